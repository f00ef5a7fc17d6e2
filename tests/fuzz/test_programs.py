"""Programs nobody wrote: any legal one compiles and means one thing however it is run; any broken one is refused once.

The first are always the same seeds, so that a run says the same as the one before; how many of them are reached depends
on the machine alone.  The rest is hypothesis, which shrinks what it finds.  `make fuzz` is the long run.
"""

from __future__ import annotations

from time import monotonic

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings

from tests.fuzz.agreement import accepted, check, reads_back
from tests.fuzz.choices import Choose, drawn
from tests.fuzz.definition2 import misplaced
from tests.fuzz.illegal import Broken, broken, refused
from tests.fuzz.legal import layer, program
from tests.fuzz.program import Drawn
from tests.fuzz.worker import Twin

SEEDS = 1_000_000  # the first of continuous integration: others than those of the long run
LEAST = 8
ALWAYS = settings(
    max_examples=25, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck),
    phases=(Phase.generate, Phase.shrink),
)  # fmt: skip


@pytest.mark.fuzz
@pytest.mark.timeout(600)
@pytest.mark.parametrize("make", [program, layer])
def test_any_legal_program_means_one_thing(make: object, seconds: float, twin: Twin) -> None:
    assert callable(make)
    torch.set_num_threads(1)
    until, done, overflow = monotonic() + seconds / (1 if make is program else 3), 0, 0
    while done < LEAST or monotonic() < until:
        seed = SEEDS + done
        one: Drawn = make(Choose.seeded(seed))
        try:
            overflow += check(one, twin.digest).overflows
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error}\n{one.feeding}\n{one.text}") from error
        done += 1
    assert overflow <= max(2, 0.05 * done), f"{overflow} of {done} programs overflow: the drawing is not tame"


@pytest.mark.fuzz
@pytest.mark.timeout(300)
def test_any_broken_program_is_refused_once_where_it_is_broken(seconds: float) -> None:
    until, done = monotonic() + seconds / 3, 0
    while done < 4 * LEAST or monotonic() < until:
        one = broken(Choose.seeded(SEEDS + done))
        try:
            refused(one)
        except Exception as error:
            raise AssertionError(f"seed {SEEDS + done}: {error}\n{one.text}") from error
        done += 1


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
