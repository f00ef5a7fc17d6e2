from __future__ import annotations

import pytest
import torch
from torch import nn

from runtime import stacks
from runtime.errors import Diverged
from runtime.level import Level, Weights
from runtime.ops import newton_schulz

from .tiny import Tiny


def test_the_first_level_that_asks_owns_a_weight_and_the_last_takes_the_rest() -> None:
    model = Tiny()
    weights = Weights(model, decay=("blocks.*.q.linear",))
    slow = weights.take("blocks.*.cms.slow.*")
    rest = weights.take("*")
    assert [w.name for w in slow] == [f"blocks.{i}.cms.slow.{part}" for i in (0, 1) for part in ("W_in", "b_in")]
    assert sorted(w.name for w in (*slow, *rest)) == sorted(name for name, _ in model.named_parameters())
    assert {w.name for w in rest if w.decays} == {"blocks.0.q.linear", "blocks.1.q.linear"}


def test_a_name_that_no_weight_has_is_an_error_that_says_it() -> None:
    with pytest.raises(ValueError, match=r"blocks\.\*\.nothing"):
        Weights(Tiny()).take("blocks.*.nothing")


def test_frozen_weights_ask_for_no_gradient() -> None:
    model = Tiny()
    Weights(model).freeze("blocks.0.h.conv")
    assert not model.blocks[0].h.conv.requires_grad and model.blocks[1].h.conv.requires_grad


def descend(*, grad, lr, state, **_):
    return -lr * grad, state


def level_of(*values: float) -> tuple[Level, list[nn.Parameter]]:
    model = nn.ParameterDict({f"w{i}": nn.Parameter(torch.tensor([value])) for i, value in enumerate(values)})
    return Level("train", Weights(model).take("*"), state=("m", "start")), list(model.values())


def test_gradients_add_up_between_updates_and_are_gone_after_one() -> None:
    level, (w,) = level_of(2.0)
    for _ in range(3):
        (w**2).sum().backward()
    seen = []

    def keeps(*, grad, weight, start, state, count, **_):
        seen.append([float(x) for x in (grad, weight, start, state["m"], count)])
        return -grad, {"m": grad}

    level.update(keeps, lr=1.0)
    assert seen == [[12, 2, 2, 0, 1]] and float(w) == -10 and float(level.weights[0].state["m"]) == 12
    assert w.grad is None and level.count == 1 and float(level.norm) == 12


def test_clip_is_the_norm_over_all_the_level_owns() -> None:
    level, (a, b) = level_of(1.0, 1.0)
    (3 * a + 4 * b).sum().backward()
    level.update(descend, lr=1.0, clip=1.0)
    assert [1 - float(w) for w in (a, b)] == pytest.approx([0.6, 0.8], rel=1e-5)
    assert float(level.norm) == pytest.approx(5)


def test_a_gradient_that_is_not_finite_is_refused_before_any_weight_changes() -> None:
    level, (a, b) = level_of(1.0, 1.0)
    (a + b * float("nan")).sum().backward()
    with pytest.raises(Diverged, match="level train: the gradient of 'w1' is not finite"):
        level.update(descend, lr=1.0, clip=1.0)
    assert level.count == 0 and [float(a), float(b)] == [1, 1]


def test_a_weight_without_gradient_is_left_alone() -> None:
    level, (a, b) = level_of(1.0, 1.0)
    a.sum().backward()
    level.update(lambda *, grad, state, **_: (0 * grad - 7, state), lr=1.0)
    assert float(a) == -6 and float(b) == 1


def test_states_are_float32_under_bfloat16_and_float64_under_float64() -> None:
    for dtype, expected in ((torch.bfloat16, torch.float32), (torch.float64, torch.float64)):
        model = nn.Linear(2, 2).to(dtype)
        level = Level("train", Weights(model).take("*"), state=("m",))
        model(torch.ones(1, 2, dtype=dtype)).sum().backward()
        seen = []

        def rule(*, grad, weight, state, seen=seen, **_):
            seen += [grad.dtype, weight.dtype, state["m"].dtype]
            return -grad, state

        level.update(rule, lr=1.0)
        assert set(seen) == {expected} and model.weight.dtype == dtype


def test_what_a_checkpoint_keeps_restores_a_level_in_the_middle_of_a_period() -> None:
    level, (w,) = level_of(2.0)
    (w**2).sum().backward()
    level.count = 5
    kept = {name: value.clone() for name, value in level.tensors().items()}
    assert set(kept) == {"train/m/w0", "train/start/w0", "train/grad/w0"}
    other, (v,) = level_of(1.0)
    other.restore(5, kept)
    assert other.count == 5 and float(v.grad) == 4 and float(other.weights[0].state["start"]) == 2


@pytest.mark.parametrize("most", [1, 24, 25, 1000])
def test_matrices_step_alike_however_many_make_a_stack(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here a stack holds one, two, two and all five of 3 x 4: `most` entries together, and at least one."""

    def towards_orthogonal(*, grad, lr, state, **_):
        met.append(len(grad))
        m = 0.9 * state["m"] + grad
        return -lr * newton_schulz(m), {"m": m}

    def after(entries: int) -> dict[str, torch.Tensor]:
        monkeypatch.setitem(stacks.ENTRIES, "cpu", entries)
        torch.manual_seed(0)
        model = nn.ParameterDict({f"w{i}": nn.Parameter(torch.randn(3, 4, dtype=torch.float64)) for i in range(5)})
        level = Level("slow", Weights(model).take("*"), state=["m"])
        for _ in range(3):
            for weight in model.values():
                weight.grad = torch.randn_like(weight)
            level.update(towards_orthogonal, lr=0.1)
        return {**model, **level.tensors()}

    met: list[int] = []
    found = after(most)
    assert sum(met) == 15 and max(met) == {1: 1, 24: 2, 25: 2, 1000: 5}[most]
    torch.testing.assert_close(found, after(1 << 20), rtol=1e-12, atol=1e-12)


def test_a_watched_update_is_measured_once() -> None:
    level, (w,) = level_of(2.0)
    for rate in (0.5, 0.25):
        level.watched = rate == 0.5
        (w**2).sum().backward()
        level.update(descend, lr=rate)
    assert level.seen() == {"grad/train/norm": 0.0, "level/train/update": 2.0, "level/train/rate": 0.25}


def test_a_row_after_resuming_says_what_one_without_would() -> None:
    level, (w,) = level_of(2.0)
    level.watched = True
    (w**2).sum().backward()
    level.update(descend, lr=0.1)
    other, _ = level_of(1.0)
    other.restore(level.count, level.tensors(), level.last())
    assert other.seen() == level.seen() and not other.watched
    other.restore(level.count, level.tensors())  # of a checkpoint that does not say
    assert other.seen() == {}
