"""States of memories written inside a sequence, made again in the backward pass: what comes out is what was kept."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import nlc
from runtime.ops import segment
from runtime.ops.boundaries import Traced
from runtime.precision import autocast

SMALL = {
    "sizes.width": 8, "sizes.heads": 2, "sizes.layers": 2, "sizes.context": 48, "sizes.vocab": 20,
    "levels.cms.memories.fast.every": "4 tokens", "levels.cms.memories.mid.every": "8 tokens",
    "run.memory": "0 B",
}  # fmt: skip
CASES: Mapping[str, Mapping[str, str]] = {
    "gd": {},
    "full": {"levels.cms.meta": "full"},
    "momentum": {"levels.cms.rule": "momentum(beta=0.5)"},
    "adamw": {"levels.cms.rule": "adamw", "levels.cms.rate": "learned(0.01)"},
    "dgd, full": {"levels.cms.rule": "dgd", "levels.cms.meta": "full"},
    "retention": {"levels.cms.retain": "learned(0.9)", "levels.cms.retain_to": "start"},
    "rates of tokens": {"levels.cms.rate": "sigmoid(linear(h, out=1))"},
    "swiglu, chunks": {"levels.cms.memories.fast.form": "swiglu(hidden=2x)", "levels.cms.memories.fast.chunk": "8"},
}


def model_of(settings: Mapping[str, str]) -> nn.Module:
    model = nlc.compile(nlc.load("hope_attention", set={**SMALL, **settings})).model(seed=0, dtype=torch.float64)
    model.span = None  # spans have tests of their own: here only the states of memories are made again
    with torch.no_grad():
        for p in model.parameters():  # off the zeros: every path carries a gradient
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()), dtype=p.dtype))
    return model


@contextlib.contextmanager
def all_kept() -> Iterator[None]:
    """As autograd would have it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segment, "leanly", lambda form, W, x, *_: form.read(W, x))
        patch.setattr(segment, "followed", lambda register, step, out: out)
        patch.setattr(segment, "written", lambda write, register, start, lr: write(register, start, lr))
        yield


def loss_of(model: nn.Module) -> Tensor:
    text = torch.randint(model.vocab, (2, 49), generator=torch.Generator().manual_seed(1))
    loss, _ = model.loss(text[:, :-1], text[:, 1:], final=True)
    return loss


def gradients(model: nn.Module, **how: Any) -> list[Tensor]:
    return [
        g
        for g in torch.autograd.grad(loss_of(model), list(model.parameters()), **how, allow_unused=True)
        if g is not None
    ]


def worst(mine: list[Tensor], right: list[Tensor]) -> float:
    return max(float((a - b).norm() / b.norm().clamp_min(1e-30)) for a, b in zip(mine, right, strict=True))


@pytest.mark.parametrize("settings", CASES.values(), ids=CASES)
def test_gradients_are_those_of_states_that_were_kept(settings: Mapping[str, str]) -> None:
    model = model_of(settings)
    mine = gradients(model)
    with all_kept():
        right = gradients(model)
    assert worst(mine, right) < 1e-12


@pytest.mark.parametrize("settings", CASES.values(), ids=CASES)
def test_a_budget_of_memory_changes_no_gradient(settings: Mapping[str, str]) -> None:
    again, kept = (model_of({**settings, "run.memory": memory}) for memory in ("0 B", "1 GB"))
    assert all(torch.equal(a, b) for a, b in zip(gradients(again), gradients(kept), strict=True))


def test_in_bfloat16_too() -> None:
    model = model_of({}).float()
    with autocast("bfloat16", "cpu"):
        mine = loss_of(model)
    with all_kept(), autocast("bfloat16", "cpu"):
        right = loss_of(model)
    weights = list(model.parameters())
    found = [[g for g in torch.autograd.grad(x, weights, allow_unused=True) if g is not None] for x in (mine, right)]
    assert worst(*found) < 1e-6


def test_a_second_backward_pass_and_a_second_derivative_find_the_states_again() -> None:
    model = model_of({})
    weights = list(model.parameters())
    loss = loss_of(model)
    first = torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True)
    again = torch.autograd.grad(loss, weights, allow_unused=True)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True) if a is not None and b is not None)

    def curvature() -> list[Tensor]:
        slope = sum(g.square().sum() for g in gradients(model, create_graph=True))
        return [g for g in torch.autograd.grad(slope, weights, allow_unused=True) if g is not None]

    mine = curvature()
    with all_kept():
        right = curvature()
    assert worst(mine, right) < 1e-12


def test_a_start_changed_before_the_backward_pass_is_not_passed_over() -> None:
    model = model_of({})
    loss = loss_of(model)
    with torch.no_grad():
        next(p for name, p in model.named_parameters() if "cms.fast.start" in name).mul_(2)
    with pytest.raises(RuntimeError, match="changed in place"):
        loss.backward()


def test_a_copy_of_a_register_is_a_plain_one() -> None:
    register = segment.followed({"M": torch.zeros(2)}, lambda: lambda x: x, {"M": torch.ones(2)})
    assert isinstance(register, Traced) and type(copy.copy(register)) is dict
