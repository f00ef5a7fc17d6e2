"""What is seen of memories while somebody watches: surprise is the gradient's norm, whatever way it is computed."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from runtime.ops.basic import l2norm
from runtime.ops.forms import Form, Matrix, Mlp, Swiglu, Vector
from runtime.ops.memories import Write, memory
from runtime.ops.segment import Call, Learner
from runtime.ops.shared import shared_product
from runtime.ops.watch import Watched, watch

B, T, H, K, HIDDEN = 2, 11, 2, 4, 5
FORMS: dict[str, Form] = {
    "matrix": Matrix(), "mlp": Mlp(bias=True), "deep": Mlp(depth=3, residual=False), "swiglu": Swiglu(bias=True),
    "vector": Vector(),
}  # fmt: skip


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def parts_of(form: Form) -> dict[str, Tensor]:
    if isinstance(form, Vector):
        return {"m": 0.5 * normal(B, H, K)}
    found = {}
    for i, layer in enumerate(form.layers):
        rows = K if layer is form.layers[-1] else HIDDEN
        columns = K if i == 0 or layer.weight == "W_in" else HIDDEN
        found[layer.weight] = 0.5 * normal(B, H, rows, columns, seed=i)
        if layer.bias:
            found[layer.bias] = normal(B, H, rows, seed=i + 9)
    return found


def seen_by(write: Write, block: int = 64, pairs: int = 1, keep: bool = True, **more: Any) -> dict[str, float]:
    state = parts_of(write.form)
    state |= {f"held.{name}": x for name, x in state.items()} if write.chunk > 1 else {}
    state |= (
        {f"rule.m.{name}": torch.zeros_like(x) for name, x in state.items() if "." not in name}
        if write.momentum
        else {}
    )
    shape = (B, T, pairs, H, K) if pairs > 1 else (B, T, H, K)
    k, v = F.normalize(normal(*shape, seed=1), dim=-1), normal(*shape, seed=2)
    rate, kept = 0.3 * normal(B, T, H, seed=3).sigmoid(), -0.3 * normal(B, T, H, seed=4).sigmoid()
    with watch() as found:
        memory(write, state, k, v, rate, kept if keep else None, block=block, **more)
    means = found.means()["titans.memory"]
    assert means["rate"] == pytest.approx(float(rate.mean()))
    assert means.get("retain") == (pytest.approx(float(kept.exp().mean())) if keep else None)
    return means


@pytest.mark.parametrize("form", FORMS.values(), ids=list(FORMS))
@pytest.mark.parametrize("chunk", [1, 4])
@pytest.mark.parametrize("meta", ["full", "first_order", "none"])
def test_closed_forms_see_what_the_token_loop_sees(form: Form, chunk: int, meta: str) -> None:
    write = Write(form=form, chunk=chunk, meta=meta, kept=True, name="titans.memory")
    assert seen_by(write)["surprise"] == pytest.approx(seen_by(write, block=0)["surprise"], rel=1e-10)


@pytest.mark.parametrize(
    "more",
    [{"objective": "dot"}, {"erase": True}, {"self_values": True}, {"erase": True, "chunk": 3}],
    ids=["dot", "dgd", "own values", "dgd in chunks"],
)
def test_objectives_and_rules_do_too(more: dict[str, Any]) -> None:
    write = Write(name="titans.memory", **more)
    assert seen_by(write)["surprise"] == pytest.approx(seen_by(write, block=0)["surprise"], rel=1e-10)


def test_momentum_and_several_pairs_do_too() -> None:
    write = Write(momentum=True, name="titans.memory")
    assert seen_by(write, beta=0.5)["surprise"] == pytest.approx(
        seen_by(write, block=0, beta=0.5)["surprise"], rel=1e-10
    )
    write = Write(chunk=4, name="titans.memory")
    assert seen_by(write, pairs=2)["surprise"] == pytest.approx(seen_by(write, pairs=2, block=0)["surprise"], rel=1e-10)


@pytest.mark.parametrize("form", FORMS.values(), ids=list(FORMS))
def test_the_token_loop_sees_the_gradient_of_the_objective(form: Form) -> None:
    """One token: |d/dM 1/2 |M(k) - v|^2|, by autograd."""
    state = {name: x.requires_grad_() for name, x in parts_of(form).items()}
    k, v = F.normalize(normal(B, 1, H, K, seed=1), dim=-1), normal(B, 1, H, K, seed=2)
    loss = 0.5 * (form.read(state, k)[0] - v).square().sum()
    grads = torch.autograd.grad(loss, list(state.values()))
    expected = math.sqrt(sum(float(g[0].square().sum()) for g in grads))
    with watch() as found:
        memory(Write(form=form, name="m"), state, k, v, 0.1, None, block=0)
    assert found.means()["m"]["surprise"] == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("objective", ["l2", "dot"])
@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("phase", [0, 2])
def test_a_shared_product_sees_what_a_memory_of_its_own_sees(objective: str, kept: bool, phase: int) -> None:
    """Keys, values and rates that the shared product reads from its boxes, given to each box as a plain memory."""
    boxes = ("key", "value", "memory")
    made_of = lambda seed: {"M": 0.5 * normal(B, H, K, K, seed=seed), "held.M": 0.5 * normal(B, H, K, K, seed=seed + 5)}
    states = {box: made_of(i) for i, box in enumerate(boxes)}
    start = {box: 0.5 * normal(H, K, K, seed=i + 10) for i, box in enumerate(boxes)}
    rates = 0.3 * normal(B, T, H, seed=20).sigmoid(), -0.3 * normal(B, T, H, seed=21).sigmoid()

    def flow(reads: Any, extras: Any, weights: Any) -> Any:
        return l2norm(reads[0]), reads[1], *extras

    more: Any = {"chunk": 4, "phase": phase, "start": start, "objective": objective, "kept": kept}
    with watch() as found:
        queries = ((normal(B, T, H, K, seed=30), ("key", "value")),)
        made = shared_product(flow, states, queries, rates, outputs=False, name="titans", **more)
    for box in boxes:
        write = Write(objective=objective, erase=True, chunk=4, kept=kept, self_values=True, name=f"titans.{box}")
        assert made.k is not None and made.v is not None  # made for who watches
        with watch() as alone:
            memory(write, states[box], made.k, made.v, *rates, start={"M": start[box]}, phase=phase)
        one, other = found.means()[f"titans.{box}"], alone.means()[f"titans.{box}"]
        assert one == pytest.approx(other, rel=1e-10)


def test_a_learner_sees_errors_writes_and_its_rate() -> None:
    form = Mlp(bias=True)
    start = {name: x[0] for name, x in parts_of(form).items()}
    x, errors = normal(B, T, H, K), [normal(B, T, H, HIDDEN, seed=1), normal(B, T, H, K, seed=2)]
    _, taps = form.read(start, x)
    learner = Learner("cms", form, lambda *, grad, lr, **_: (-lr * grad, {}), name="cms.fast")
    with watch() as found:
        register = learner.gather({}, Call(learner, (taps,)), errors)
        after = learner.write(register, start, lr=torch.tensor(0.05))
    each = [form.sums([(a[:, t : t + 1], z) for a, z in taps], [e[:, t : t + 1] for e in errors])[0] for t in range(T)]
    squares = sum(float(g[0].square().sum()) for grads in each for g in grads.values())
    moved = sum(float((after[part] - start[part])[0].square().sum()) for part in start)
    means = found.means()["cms.fast"]
    assert means["surprise"] == pytest.approx(math.sqrt(squares / T), rel=1e-10)
    assert means["update"] == pytest.approx(math.sqrt(moved), rel=1e-10) and means["rate"] == pytest.approx(0.05)


def test_nobody_watches_afterwards_or_without_a_name() -> None:
    with watch() as found:
        memory(Write(), {"M": normal(B, H, K, K)}, normal(B, T, H, K), normal(B, T, H, K), 0.1, None)
    assert found.means() == {} and Watched.by is None
    with pytest.raises(RuntimeError), watch():
        raise RuntimeError
    assert Watched.by is None
