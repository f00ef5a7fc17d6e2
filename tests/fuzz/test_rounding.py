"""A difference that rounding alone brings about is told from one that is wrong."""

from __future__ import annotations

import pytest
import torch

from nlc.compile import compile
from nlc.spec import loads
from nlc.verify.judge import perturbed
from tests.differential.machine import Run, case_of, generated
from tests.fuzz import agreement
from tests.fuzz.agreement import Disagreement, agrees, moved
from tests.fuzz.program import Feeding
from tests.fuzz.rounding import Rounded

CANCELLED = """nlc: 1
name: cancelled
sizes: {{width: 4, layers: 1, vocab: 7, context: 8}}
run: {{batch: 1}}
levels:
  - name: slow
    every: 8 tokens
    carry: model
    objective: loss
    rule: gd
    rate: 0.01
    memories: {{m: {{form: 'mlp(hidden=3, depth=3, act=tanh, residual=false)', normalise_hidden: true}}}}
  - {{name: train, every: 1 step, objective: loss, rule: gd, rate: 0.01, memories: rest}}
block: |
  u = rmsnorm(x)
  x = x + m({read}) + tanh(u)
"""


def test_a_gradient_that_cancels_after_two_norms_of_zero_is_rounding() -> None:
    """At `u - u` stands 1e12 times the error above it; what its two halves leave of each other is rounding."""
    assert hangs("u - u") > 1e-7
    assert hangs("u") < 1e-11


def hangs(read: str) -> float:
    program = compile(loads(CANCELLED.format(read=read)))
    model = perturbed(program.model(seed=0, dtype=torch.float64), 0)
    return moved(program, model, case_of(program, 4, batch=1), (4,), True)


@pytest.mark.parametrize("wrong", [1e-8, float("nan")])
@pytest.mark.parametrize("way", [(4,), (1, 3)])
def test_a_wrong_number_is_no_rounding(wrong: float, way: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    def off(program: object, model: object, case: object, pieces: tuple[int, ...], learn: object) -> Run:
        found = generated(program, model, case, pieces, learn)  # type: ignore[arg-type]
        if pieces == way:
            found.gradients = {name: g + wrong * g.abs().max() for name, g in found.gradients.items()}
        return found

    monkeypatch.setattr(agreement, "generated", off)
    with pytest.raises(Disagreement, match="whole" if way == (4,) else "pieces"):
        agrees(compile(loads(CANCELLED.format(read="u"))), Feeding(4, pieces=(1, 3)), {})


def test_rounding_leaves_whole_numbers_and_views() -> None:
    x = torch.tensor([-2.0, 0.5], dtype=torch.float64)
    with Rounded():
        assert float(x[0] ** (x[0] + 4)) == 4
        assert x[1:].data_ptr() == x.data_ptr() + 8
        assert 0 < abs(float(x[1] / 3) * 6 - 1) < 1e-13
        assert float(x[1] - x[1]) == 0


def test_gradients_that_cancel_are_off_whatever_order_they_meet_in() -> None:
    """(g + a g) - a g and g + (a g - a g) are one gradient; in the second order no rounding of sums would show."""
    x, a = torch.full((3,), 0.3, dtype=torch.float64, requires_grad=True), 1234567.89
    with Rounded():
        (0.7 * (a * x - a * x)).sum().backward()
    assert x.grad is not None and 1e-10 < float(x.grad.abs().max()) < 1e-8


def test_a_product_that_cancels_is_off() -> None:
    """0.3 x 1.1 - 0.3 x 1.1, as a matrix product: 0 in one order of operations, a rounding error in another."""
    a, b = torch.full((1, 2), 0.3, dtype=torch.float64), torch.tensor([[1.1], [-1.1]], dtype=torch.float64)
    with Rounded():
        assert 0 < abs(float(a @ b)) < 1e-14


def test_rounding_leaves_zeros_without_memory() -> None:
    with Rounded():
        assert not (torch._efficientzerotensor((2, 3)) * 2).any()


@pytest.mark.parametrize(("size", "agrees_with_it"), [(10 * agreement.SQUARED, True), (1.0, False)])
def test_finite_numbers_beside_an_overflow_agree_only_where_their_products_overflow_too(
    size: float, agrees_with_it: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The interpreter's infinity is the other order of operations where numbers are that large, and wrong elsewhere."""

    def run(x: float) -> Run:
        return Run(None, {"y": torch.tensor([x], dtype=torch.float64)}, {}, {})

    monkeypatch.setattr(agreement, "reference", lambda *_: run(float("inf")))
    monkeypatch.setattr(agreement, "generated", lambda *_: run(size))
    program = compile(loads(CANCELLED.format(read="u")))
    if agrees_with_it:
        assert agrees(program, Feeding(4), {}).overflows
    else:
        with pytest.raises(Disagreement, match="no finite number"):
            agrees(program, Feeding(4), {})


def test_what_comes_out_whole_by_rounding_is_off() -> None:
    """1 + erf(-8) is 1e-29; in float64, a neighbour of 1 less 1.  And a number beyond 2^52 is a rounded one."""
    x = torch.tensor([-8.0, 1e18], dtype=torch.float64)
    with Rounded():
        assert 1e-17 < abs(float(1 + torch.erf(x[0]))) < 1e-14
        assert float(torch.tanh(x[0] - x[0])) == 0
        assert 0 < abs(float(x[1] * 1 - 1e18)) < 1e5


def test_numbers_near_the_largest_may_overflow_in_the_program_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(run: Run) -> Run:
        run.gradients = {name: g * float("nan") for name, g in run.gradients.items()}
        return run

    monkeypatch.setattr(agreement, "generated", lambda *given: lost(generated(*given)))
    program = compile(loads(CANCELLED.format(read="u")))
    with pytest.raises(Disagreement):
        agrees(program, Feeding(4), {})
    monkeypatch.setattr(agreement, "largest", lambda run: 1e120)
    assert agrees(program, Feeding(4), {}).overflows
