"""Programs under autocast to bfloat16 against themselves in float32; and on a device without a processor's help."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import nlc
from nlc.verify.small import small_settings
from runtime.precision import autocast

SPECS = ("hope", "hope_attention", "hope_deep", "linear_attention", "titans_lmm", "transformer")
CELL = """
nlc: 1
name: cell
sizes: {heads: 2, head: 8}
inputs: {k: [heads, head], v: [heads, head], q: [heads, head], eta: [heads], alpha: [heads]}
levels:
  - {name: m, every: 1 token, chunk: 4, objective: l2, rule: dgd, rate: eta, retain: alpha, read: before, start: zeros,
     memories: {memory: {form: matrix, keys: k, values: v}}}
block: |
  y = memory(q)
outputs: [y]
"""
# A rounding to bfloat16 is 2^-9 = 0.2 % of a number. A gradient comes of some dozens of products in a row (two layers,
# up and down), whose roundings add up like a random walk: 0.2 % * sqrt(100) = 2 %. Measured: 1.4 to 3.3 %.
GRADIENT = 0.05
STATE = 0.05


@pytest.fixture(scope="module", params=SPECS)
def model(request: pytest.FixtureRequest) -> nn.Module:
    small = small_settings(nlc.load(request.param)) | {"sizes.width": 16}
    found = nlc.compile(nlc.load(request.param, set=small)).model(seed=0)
    with torch.no_grad():
        for p in found.parameters():  # off the zeros: every path carries a gradient
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    return found


def batch(device: str = "cpu") -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, targets, and documents that begin in the middle of the first row."""
    tokens = torch.randint(0, 48, (2, 65), generator=torch.Generator().manual_seed(1))
    starts = torch.zeros(2, 64, dtype=torch.bool)
    starts[:, 0] = starts[0, 40] = True
    return tokens[:, :-1].to(device), tokens[:, 1:].to(device), starts


def gone(x: Tensor, y: Tensor) -> float:
    return float((x - y).detach().norm() / x.detach().norm().clamp_min(1e-12))


def test_gradients_and_states_in_bfloat16_are_those_of_float32_but_for_rounding(model: nn.Module) -> None:
    x, y, _ = batch()
    found = {}
    for precision in ("float32", "bfloat16"):
        model.zero_grad()
        with autocast(precision, "cpu"):
            loss, state = model.loss(x, y)
        loss.backward()
        grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        found[precision] = (loss.detach(), state, grads)
    (loss, state, whole), (rounded, after, half) = found.values()
    assert loss.dtype == rounded.dtype == torch.float32 and gone(loss, rounded) < 1e-3
    numbers = [(x, after[place][part]) for place, r in state.items() for part, x in r.items() if x.is_floating_point()]
    assert {b.dtype for _, b in numbers} == {torch.float32}  # memories, what periods gather, histories
    assert max(gone(a, b) for a, b in numbers) < STATE
    assert {g.dtype for g in half.values()} == {torch.float32}
    assert (
        gone(torch.cat([g.flatten() for g in whole.values()]), torch.cat([g.flatten() for g in half.values()]))
        < GRADIENT
    )


def test_bfloat16_learns(model: nn.Module) -> None:
    x, y, starts = batch()
    before = {name: p.detach().clone() for name, p in model.state_dict().items()}
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3)
    losses = []
    for _ in range(4):
        optimiser.zero_grad()
        with autocast("bfloat16", "cpu"):
            loss, _ = model.loss(x, y, starts=starts, final=True)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    model.load_state_dict(before)
    assert losses[-1] < 0.95 * losses[0]


def test_a_bare_program_takes_what_autocast_makes_and_keeps_float32() -> None:
    cell = nlc.compile(nlc.spec.loads(CELL)).model(seed=0)
    draw = torch.Generator().manual_seed(2)
    shapes = {"k": (2, 10, 2, 8), "v": (2, 10, 2, 8), "q": (2, 10, 2, 8), "eta": (2, 10, 2), "alpha": (2, 10, 2)}
    half = {n: torch.rand(shape, generator=draw).mul(0.5).bfloat16().requires_grad_() for n, shape in shapes.items()}
    with autocast("bfloat16", "cpu"):
        y, state = cell(**half)
    exact, _ = cell(**{name: x.float() for name, x in half.items()})
    assert torch.equal(y, exact)
    assert {x.dtype for x in state["blocks.0.m.memory"].values()} == {torch.float32}
    y.sum().backward()
    assert half["k"].grad.dtype == torch.bfloat16 and half["k"].grad.isfinite().all()


def test_nothing_is_made_on_the_processor_and_nothing_asked_of_the_device(model: nn.Module) -> None:
    """On `meta` there are no values: a look at one, or a tensor of the processor next to it, is an error."""
    there = type(model)().to("meta")
    x, y, starts = (rows[:, :41] for rows in batch("meta"))
    loss, state = there.loss(x, y, starts=starts)
    loss.backward()
    loss, _ = there.loss(x, y, final=True)
    loss.backward()
    _, state = there.loss(x[:, :7], y[:, :7], state)
    kinds = {t.device.type for place, r in state.items() if place != "clock" for t in r.values()}
    assert kinds == {"meta"} and {p.grad.device.type for p in there.parameters() if p.grad is not None} == {"meta"}
    assert {t.device.type for t in state["clock"].values()} == {"cpu"}
