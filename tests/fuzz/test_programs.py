"""Programs nobody wrote: any legal one compiles and means one thing however it is run; any broken one is refused once.

The first are always the same seeds, so that a run says the same as the one before; how many of them are reached depends
on the machine alone: three minutes of them, and as many of mutants of HOPE.  The rest is hypothesis, which shrinks what
it finds.
`make fuzz` is the long run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings

from tests.fuzz.agreement import accepted, check, reads_back
from tests.fuzz.choices import drawn
from tests.fuzz.definition2 import misplaced
from tests.fuzz.illegal import Broken, broken, refused
from tests.fuzz.legal import program
from tests.fuzz.mutations import Mutation, known
from tests.fuzz.program import Drawn
from tests.fuzz.worker import Twin, made

SEEDS = 1_000_000  # the first of continuous integration: others than those of the long run
LEAST = 8
ALWAYS = settings(
    max_examples=25, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck),
    phases=(Phase.generate, Phase.shrink),
)  # fmt: skip


def seeds(seconds: float, least: int) -> Iterator[int]:
    """The fixed block, from its first on: as many as there is time for, and `least` of them always."""
    until, done = monotonic() + seconds, 0
    while done < least or monotonic() < until:
        yield SEEDS + done
        done += 1


@contextmanager
def named(kind: str, seed: int) -> Iterator[None]:
    """A failure says how to see it again."""
    try:
        yield
    except Exception as error:
        one = made(kind, seed)
        again = f"python -m tests.fuzz --again {kind} {seed}"
        raise AssertionError(f"{error}\n\n{again}\n\n{getattr(one, 'feeding', '')}\n{one.text}") from error


@pytest.mark.fuzz
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("kind", "share"), [("legal", 1), ("layer", 1 / 3), ("objective", 1 / 6)])
def test_any_legal_program_means_one_thing(kind: str, share: float, seconds: float, twin: Twin) -> None:
    torch.set_num_threads(1)
    overflows = []
    for seed in seeds(share * seconds, LEAST):
        with named(kind, seed):
            overflows.append(check(made(kind, seed), twin.digest).overflows)
    assert sum(overflows) <= max(2, 0.05 * len(overflows)), "the drawing is not tame: too many programs say nothing"


@pytest.mark.fuzz
@pytest.mark.timeout(900)
def test_any_mutant_of_hope_means_one_thing_or_is_refused_where_it_is_wrong(seconds: float, twin: Twin) -> None:
    torch.set_num_threads(1)
    legal = []
    for seed in seeds(2 * seconds, LEAST):
        with named("mutation", seed):
            one: Mutation = made("mutation", seed)
            legal.append(one.error is None)
            if one.error is None:
                check(one, twin.digest)
            else:
                known(one)
    assert sum(legal) > 0.6 * len(legal), "edits that know what they change are mostly legal"


@pytest.mark.fuzz
@pytest.mark.timeout(300)
def test_any_broken_program_is_refused_once_where_it_is_broken(seconds: float) -> None:
    for seed in seeds(seconds / 3, 4 * LEAST):
        with named("illegal", seed):
            refused(made("illegal", seed))


@pytest.mark.fuzz
@ALWAYS
@given(drawn(program))
def test_any_program_that_hypothesis_draws_is_legal_and_in_order(one: Drawn) -> None:
    found = accepted(one.text)
    reads_back(found.graph)
    assert not misplaced(found.graph)


@pytest.mark.fuzz
@ALWAYS
@given(drawn(broken))
def test_any_break_that_hypothesis_draws_is_refused_once(one: Broken) -> None:
    refused(one)
