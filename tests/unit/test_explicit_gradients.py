"""Every gradient that is written by hand, against finite differences; a new one has to be added here."""

from __future__ import annotations

import inspect
import pkgutil
from importlib import import_module

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import runtime.ops
from runtime.ops import basic, stack
from runtime.ops.chunk_reads import ReadChunks
from runtime.ops.deep import Task, Written
from runtime.ops.descent import PIECE, descended, inner_of_pieces
from runtime.ops.forms import Lean, Matrix, Mlp, Swiglu
from runtime.ops.history import Past, past
from runtime.ops.naive import Write
from runtime.ops.rows import ROWS, by_weight, collected

CHECKED = {  # Product: with its operator; Gathered: in Written
    "ByWeight", "CausalConv", "Collected", "Descent", "Gathered", "L2norm", "Lean", "Past", "Product", "ReadChunks",
    "RmsNorm", "Written",
}  # fmt: skip


def normal(*shape: int, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=draw, dtype=torch.float64).requires_grad_()


def test_every_explicit_gradient_is_checked() -> None:
    found = set()
    for module in pkgutil.iter_modules(runtime.ops.__path__, "runtime.ops."):
        for name, one in inspect.getmembers(import_module(module.name), inspect.isclass):
            if issubclass(one, torch.autograd.Function) and one.__module__ == module.name:
                found.add(name)
    assert found == CHECKED


@pytest.mark.parametrize("B", [1, 2])
@pytest.mark.parametrize("together", [1, 2, 3])
def test_reads_of_chunks(together: int, B: int, monkeypatch: pytest.MonkeyPatch) -> None:
    N, H, C, K, rows = 3, 2, 2, 3, 2
    given = normal(2, N * C, H, K), normal(N, H, 2, K, K, seed=1), normal(H, B, rows, K, seed=2)
    monkeypatch.setattr(stack, "NUMBERS", together * given[0].numel() // N)
    run = lambda *given: ReadChunks.apply((N, C), *given)
    assert gradcheck(run, given) and gradgradcheck(run, given)


FORMS = {
    "matrix": (Matrix(), {"M": (2, 3, 3)}),
    "mlp": (Mlp(bias=True), {"W_in": (2, 4, 3), "b_in": (2, 4), "W_out": (2, 3, 4), "b_out": (2, 3)}),
    "residual": (Mlp(residual=True, norm="layernorm"), {"W_in": (2, 4, 3), "W_out": (2, 3, 4)}),
    "deep": (Mlp(depth=3), {"W_in": (2, 4, 3), "W_2": (2, 4, 4), "W_out": (2, 3, 4)}),
    "swiglu": (Swiglu(), {"W_gate": (2, 4, 3), "W_in": (2, 4, 3), "W_out": (2, 3, 4)}),
}


@pytest.mark.parametrize("name", FORMS)
def test_lean_reads_of_forms(name: str) -> None:
    form, shapes = FORMS[name]
    parts = [normal(*shapes[part], seed=i + 1) for i, part in enumerate(form.parts)]
    run = lambda *given: Lean.apply(form, *given)
    assert gradcheck(run, (normal(1, 2, 2, 3), *parts))
    assert gradgradcheck(run, (normal(1, 2, 2, 3), *parts))


def test_what_is_past_is_open_to_the_outer_gradient() -> None:
    assert gradcheck(Past.apply, (normal(3),)) and gradgradcheck(Past.apply, (normal(3),))


def test_norms_and_convolutions() -> None:
    gain = normal(4, seed=1)
    for shape in ((2, 3, 4), (4,)):
        assert gradcheck(basic.rmsnorm, (normal(*shape), gain)) and gradgradcheck(basic.rmsnorm, (normal(*shape), gain))
    rms = normal(2, 3, 4), gain
    torch.testing.assert_close(basic.rmsnorm(*rms), torch.rms_norm(rms[0], (4,), rms[1], basic.EPS))
    assert gradcheck(basic.l2norm, (normal(2, 3, 4),)) and gradgradcheck(basic.l2norm, (normal(2, 3, 4),))
    given = normal(2, 4, 3), normal(3, 3, seed=1), normal(2, 2, 3, seed=2)
    assert gradcheck(basic.causal_conv, given) and gradgradcheck(basic.causal_conv, given)


def test_products_with_the_weights_of_every_sequence() -> None:
    given = normal(2, 3, 4), normal(2, 5, 4, seed=1)
    assert gradcheck(by_weight, given) and gradgradcheck(by_weight, given)
    by_weight(*given).sum().backward()
    assert given[1].grad is not None and given[1].grad.stride() == given[1].stride()


def test_gradients_that_a_weight_collects() -> None:
    def run(x: Tensor, W: Tensor) -> Tensor:
        own = collected(W)
        read = past(own)
        y = by_weight(x, read)
        return by_weight(y.sin() @ own, read).cos() + own.sum()

    given = normal(2, 3, 4), normal(2, 5, 4, seed=1)
    assert gradcheck(run, given) and gradgradcheck(run, given)


@pytest.mark.parametrize("stack", [(), (2,), (2, 3)])
@pytest.mark.parametrize("empty", [0, 1])
def test_products_of_no_rows_among_those_that_a_weight_collects(stack: tuple[int, ...], empty: int) -> None:
    rows = [ROWS, 3]
    rows.insert(empty, 0)
    x, W = [normal(*stack, n, 4, seed=n) for n in rows], normal(*stack, 5, 4, seed=9)
    found, right = (
        torch.autograd.grad(own.tanh().sum() + sum(by_weight(one, own).sin().sum() for one in x), [*x, W])
        for own in (collected(W), W)
    )
    torch.testing.assert_close(found, right)


def test_a_backward_pass_that_stops_at_a_product_leaves_nothing_behind() -> None:
    x, W = normal(1, 3, 4), normal(1, 5, 4, seed=1)
    own = collected(W)
    y = by_weight(x, own)
    torch.autograd.grad(y.sum(), x, retain_graph=True)
    (found,) = torch.autograd.grad(y.sum(), W)
    assert torch.equal(found, torch.autograd.grad((x @ W.mT).sum(), W)[0])


@pytest.mark.parametrize("rows", [3, ROWS, 3 * ROWS])
def test_the_gradient_of_what_a_weight_collects_is_nobody_s_else(rows: int) -> None:
    """Of every state of a memory, as asked for, as hooks see it, twice of one graph, and with a graph of its own."""
    x, start = [normal(2, rows, 4, seed=i) for i in range(4)], normal(2, 5, 4, seed=9)

    def run(collect: bool) -> tuple[Tensor, list[Tensor]]:
        state, states, loss = start, [start], start.new_zeros(())
        for pair in (x[:2], x[2:]):
            own = collected(state) if collect else state
            loss = loss + sum((by_weight(one, past(own)) if collect else one @ own.mT).sin().sum() for one in pair)
            state = descended(own, own.tanh(), start.new_tensor(0.1))
            states.append(state)
        return loss + (states[-1] ** 2).sum() + (states[1] ** 3).sum(), states

    (loss, states), (plain, known) = run(True), run(False)
    right = torch.autograd.grad(plain, [*x, *known], create_graph=True)
    kept: list[tuple[Tensor, Tensor]] = []
    for state in states:
        state.register_hook(lambda g: kept.append((g, g.clone())))
    for _ in range(2):
        torch.testing.assert_close(torch.autograd.grad(loss, [*x, *states], retain_graph=True), right)
    assert len(kept) >= 2 * len(states) and all(torch.equal(*pair) for pair in kept)
    again = torch.autograd.grad(loss, [*x, *states], create_graph=True)
    torch.testing.assert_close(again, right)
    slopes = [torch.autograd.grad(sum((g**2).sum() for g in found), [*x, start]) for found in (again, right)]
    torch.testing.assert_close(*slopes)


DESCENTS: dict[str, tuple[tuple[int, ...] | None, ...]] = {  # W, G, r, c, S
    "first": ((5, 4), (2, 5, 4), (), None, None),
    "kept": ((2, 5, 4), (2, 5, 4), (2, 1, 1), (2, 1, 1), None),
    "rates of heads, towards the start": ((2, 3, 5, 4), (2, 3, 5, 4), (3, 1, 1), (2, 3, 1, 1), (3, 5, 4)),
    "kept by channel": ((2, 3, 5, 4), (2, 3, 5, 4), (2, 3, 1, 1), (2, 3, 1, 4), (3, 5, 4)),
    "vector": ((2, 3, 5), (2, 3, 5), (3, 1), (2, 3, 1), (3, 5)),
}


@pytest.mark.parametrize("name", DESCENTS)
def test_writes_of_plain_descent(name: str) -> None:
    given = tuple(None if s is None else normal(*s, seed=i) for i, s in enumerate(DESCENTS[name]))
    assert gradcheck(descended, given) and gradgradcheck(descended, given)
    W, G, r, c, S = given
    kept = W if c is None else c * W + (0 if S is None else (1 - c) * S)
    torch.testing.assert_close(descended(*given), kept - r * G)


def test_a_rate_s_gradient_over_long_vectors() -> None:
    W, G, d = (normal(2, 128, 64, seed=i).detach() for i in range(3))
    for shape in ((), (2, 1, 1)):
        r = torch.full(shape, 0.5, dtype=torch.float64, requires_grad=True)
        descended(W, G, r).backward(d)
        torch.testing.assert_close(r.grad, -(G * d).sum_to_size(shape))


@pytest.mark.parametrize("length", [2 * PIECE, 2 * PIECE + 1])
def test_inner_products_as_a_gpu_takes_long_vectors(length: int) -> None:
    x, y, shared = (normal(n, length, seed=i).detach() for i, n in enumerate((3, 3, 1)))
    for rows in (x, shared.expand(3, length)):
        torch.testing.assert_close(inner_of_pieces(rows, y), torch.linalg.vecdot(rows, y))


@pytest.mark.parametrize(("kept", "outside"), [(False, True), (True, False)])
@pytest.mark.parametrize("name", ["matrix", "mlp", "swiglu"])
def test_blocks_written_to_memories_of_layers(name: str, kept: bool, outside: bool) -> None:
    form, shapes = FORMS[name]
    write = Write(form=form, objective="huber", erase=True, chunk=4, self_values=True)
    task = Task(write, (0.4,), kept, outside, kept, None)
    columns = {part: (1, *shape[1:], 1) if form.vector(part) else (1, *shape[1:]) for part, shape in shapes.items()}
    states = [normal(*columns[p], seed=i) for i, p in enumerate(form.parts * (1 + outside + kept))]
    speed = [torch.rand(1, 2, dtype=torch.float64).requires_grad_(), (-torch.rand(1, 2)).double().requires_grad_()]
    given = normal(1, 2, 3, seed=20), normal(1, 2, 3, seed=21), *speed[: 1 + kept], *states
    run = lambda *tensors: Written.apply(task, *tensors)
    assert gradcheck(run, given) and gradgradcheck(run, given)


def test_the_pull_of_a_norm_has_slopes_at_zero() -> None:
    """A hidden vector is all zeros behind a relu: slopes of what is pulled back are finite, and those of l2norm."""
    x, d = normal(2, 3, 4), normal(2, 3, 4)
    with torch.no_grad():
        x[0, 0] = 0
    pulled = basic.l2norm_pull(x, d)
    (right,) = torch.autograd.grad(basic.exact_l2norm(x), x, d, create_graph=True)
    torch.testing.assert_close(pulled, right)
    by = torch.randn_like(pulled)
    found, known = torch.autograd.grad(pulled, (x, d), by), torch.autograd.grad(right, (x, d), by)
    for mine, other in zip(found, known, strict=True):
        assert mine.isfinite().all()
        torch.testing.assert_close(mine, other)


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e13])
def test_the_pull_of_a_norm_is_as_good_of_large_vectors(size: float) -> None:
    def slopes(dtype: torch.dtype) -> list[Tensor]:
        x, d = ((by * normal(3, 4, seed=i)).detach().to(dtype).requires_grad_() for i, by in ((0, size), (1, 1.0)))
        pulled = basic.l2norm_pull(x, d)
        return [pulled * size, torch.autograd.grad(pulled, x, torch.ones_like(pulled))[0].double() * size**2]

    for mine, right in zip(slopes(torch.float32), slopes(torch.float64), strict=True):
        torch.testing.assert_close(mine.double(), right, rtol=1e-4, atol=1e-5)
