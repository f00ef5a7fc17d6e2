"""Memories of layers by the gradient written by hand: the same numbers as by rows, alone or as boxes of one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from runtime.ops import memories
from runtime.ops.boxes import Boxes
from runtime.ops.forms import Form, Matrix, Mlp, Swiglu, read
from runtime.ops.memories import Write, memory
from runtime.ops.segment import held
from runtime.ops.watch import watch

B, T, H, K, HIDDEN = 2, 9, 2, 3, 4
FORMS: dict[str, Form] = {
    "matrix": Matrix(), "mlp": Mlp(normalise_hidden=True), "biases": Mlp(bias=True, norm="layernorm"),
    "swiglu": Swiglu(bias=True),
}  # fmt: skip


def normal(*shape: int, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return (0.3 * torch.randn(*shape, generator=draw, dtype=torch.float64)).requires_grad_()


def parts_of(form: Form, *axes: int, seed: int) -> dict[str, Tensor]:
    found = {}
    for i, layer in enumerate(form.layers):
        rows = K if layer is form.layers[-1] else HIDDEN
        columns = HIDDEN if layer.weight == "W_out" else K
        found[layer.weight] = normal(*axes, rows, columns, seed=seed + i)
        if layer.bias:
            found[layer.bias] = normal(*axes, rows, seed=seed + 5 + i)
    return found


def register_of(form: Form, seed: int) -> dict[str, Tensor]:
    older = parts_of(form, B, H, seed=seed + 10)
    return parts_of(form, B, H, seed=seed) | {f"held.{part}": x for part, x in older.items()}


def pace(seed: int = 30) -> tuple[Tensor, Tensor]:
    rate, keep = normal(B, T, H, seed=seed), normal(B, T, H, seed=seed + 1)
    return 0.2 * rate.sigmoid(), torch.nn.functional.logsigmoid(keep + 2)


def close(found: list[Tensor], wanted: list[Tensor]) -> None:
    for x, y in zip(found, wanted, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("objective", "erase", "phase"), [("l2", True, 0), ("l2", True, 3), ("huber", False, 2)])
@pytest.mark.parametrize("name", FORMS)
def test_by_hand_equals_by_rows(
    name: str, objective: str, erase: bool, phase: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = FORMS[name]
    write = Write(form=form, objective=objective, erase=erase, chunk=4, self_values=objective == "l2")
    state, start = register_of(form, 0), parts_of(form, H, seed=50)
    k, v, q = (normal(B, T, H, K, seed=s) for s in (60, 61, 62))
    rate, keep = pace()
    leaves = [k, v, q, *state.values(), *start.values()]

    def run() -> list[Tensor]:
        params = (0.5,) if objective == "huber" else ()
        (y,), after = memory(
            write, state, k, v, rate, keep, start=start, queries=((q, "chunk"),), phase=phase, params=params
        )
        outs = [y, *after.values()]
        loss = sum((x.sin().sum() for x in outs), torch.zeros(()))
        grads = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True, retain_graph=True)
        return [*outs, *grads]

    by_hand = run()
    monkeypatch.setattr(memories, "layered", lambda call: False)
    close(by_hand, run())


@pytest.mark.parametrize("phase", [0, 2])
@pytest.mark.parametrize("name", FORMS)
def test_boxes_are_memories_of_their_own(name: str, phase: int) -> None:
    form, names = FORMS[name], ("key", "value", "eta")
    write = Write(form=form, erase=True, chunk=4, self_values=True, name="titans.key")
    registers = {name: register_of(form, 100 * i) for i, name in enumerate(names)}
    starts = {name: parts_of(form, H, seed=100 * i + 50) for i, name in enumerate(names)}
    k, v, (rate, keep) = normal(B, 2, H, K, seed=60), normal(B, 2, H, K, seed=61), (x[:, :2] for x in pace())
    boxes = Boxes(write, registers, start=starts)
    reads = [*boxes.read(k, names), *boxes.read(v, ("eta", "key"))]
    boxes.write(k, v, rate, keep, phase=phase)
    found = [*reads, *(x for register in boxes.registers().values() for x in register.values())]
    wanted = [read(form, held(registers[name]), k) for name in names]
    wanted += [read(form, held(registers[name]), v) for name in ("eta", "key")]
    for box in names:
        _, after = memory(write, registers[box], k, v, rate, keep, start=starts[box], phase=phase)
        wanted += after.values()
    close(found, wanted)


def test_boxes_are_watched_by_name() -> None:
    form, names = FORMS["mlp"], ("key", "value")
    write = Write(form=form, erase=True, chunk=4, self_values=True, name="titans.key")
    registers = {name: register_of(form, 100 * i) for i, name in enumerate(names)}
    k, v, (rate, keep) = normal(B, T, H, K, seed=60), normal(B, T, H, K, seed=61), pace()
    with watch() as together:
        Boxes(write, registers).write(k, v, rate, keep, phase=0)
    for box in names:
        with watch() as alone:
            memory(write, registers[box], k, v, rate, keep, phase=0)
        (means,) = alone.means().values()
        assert together.means()[f"titans.{box}"] == pytest.approx(means)
