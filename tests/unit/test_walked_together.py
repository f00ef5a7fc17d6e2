"""Which memories share a walk: those whose reads wait for one another's, through whatever is between."""

from __future__ import annotations

from pathlib import Path

import pytest

from nlc.compile import compile
from nlc.diagnostics import SpecError
from nlc.graph.nodes import Recurrence
from nlc.spec import loads

SPECS = Path(__file__).parents[1] / "specs"
FAST = "- {name: fast, objective: loss, rule: gd, rate: 0.1, every: 1 token, memories: {f: {form: matrix}}}"


def text(name: str) -> str:
    return (SPECS / f"{name}.yaml").read_text()


@pytest.mark.parametrize(
    ("name", "pace"), [("walk_beside", "4 tokens"), ("walk_between", "4 tokens"), ("walk_across", "token by token")]
)
def test_reads_that_wait_for_one_another_are_of_one_walk(name: str, pace: str) -> None:
    (walk,) = compile(loads(text(name), name)).graph.of(Recurrence)
    assert (walk.lowering, walk.members) == ("loop", ("cell.memory", "cell.beside"))
    assert walk.reason.endswith(pace)


def test_reads_that_wait_for_nothing_leave_each_memory_its_own_form() -> None:
    apart = text("walk_beside").replace("memory(y) + beside(y)", "y + memory(k) + beside(k)")
    assert [r.lowering for r in compile(loads(apart, "apart")).graph.of(Recurrence)] == ["linear", "deep"]


def test_writes_that_wait_for_one_another_are_refused_beside_a_memory_of_the_loss() -> None:
    spec = text("walk_across").replace("  - {name: train", f"  {FAST}\n  - {{name: train") + "  x = x + f(x)\n"
    with pytest.raises(SpecError) as error:
        compile(loads(spec, "across"))
    assert [d.message for d in error.value.diagnostics] == [
        f"'cell.{name}' is read after its write with what waits for another such read of it"
        for name in ("memory", "beside")
    ]
