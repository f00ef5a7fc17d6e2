"""A sequence in spans, whose activations are made again: the same loss, gradients, states and counts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from nlc.bench.activations import saved
from nlc.bench.compiled import SPECS
from nlc.compile import compile
from nlc.explain import explain
from nlc.passes import build
from nlc.report import report
from nlc.spec import Spec, load, loads
from runtime.cuda_graphs import CudaGraphs
from runtime.ops.inputs import summed
from runtime.ops.watch import watch
from runtime.spans import made_again

SMALL = {"sizes.width": 16, "sizes.layers": 2, "sizes.context": 64, "sizes.vocab": 11}
CHUNKS = {"levels.titans.chunk": 8}
PERIODS = {f"levels.cms.memories.{name}.every": f"{n} tokens" for name, n in (("fast", 8), ("mid", 16))}
MODELS: dict[str, dict[str, object]] = {
    "hope": CHUNKS | PERIODS,
    "transformer": {},
    "titans_mac": {},
    "samba": {},
    "cms_nested": {},
    "deltanet": {},
}
DROPPED = """\
nlc: 1
name: dropped
sizes: {width: 16, layers: 2, vocab: 11, context: 64}
levels: [{name: train, every: 1 step, objective: loss, rule: adamw, memories: rest}]
block: |
  x = dropout(x, 0.3)
  x = x + linear(silu(linear(rmsnorm(x))))
"""
HELD = """\
nlc: 1
name: held
sizes: {width: 8, layers: 1, vocab: 11, context: 64}
levels:
  - {name: m, every: 3 tokens, chunk: 12, rate: 0.1, retain: 0.9, retain_to: start,
     memories: {memory: {form: 'mlp(hidden=2x)', keys: k, values: v}}}
  - {name: train, every: 1 step, objective: loss, rule: adamw, memories: rest}
block: |
  h = rmsnorm(x)
  k = l2norm(linear(h))
  v = linear(h)
  x = x + memory(k)
"""
B, T = 2, 75


def model(name: str, dtype: torch.dtype = torch.float64) -> Any:
    made = compile(load(name, SMALL | MODELS.get(name, {}))).model(seed=0, dtype=dtype)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=draw, dtype=torch.float64).to(dtype))
    return made


def batch() -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(2)
    return tuple(torch.randint(0, 11, (B, T), generator=draw) for _ in range(2))  # type: ignore[return-value]


def step(made: Any, span: int | None, **more: Any) -> dict[str, Tensor]:
    """Loss, every gradient, of a loss that looks at the state too, and the state."""
    made.span, made.fires = span, dict.fromkeys(made.fires, 0)
    torch.manual_seed(3)
    loss, state = made.loss(*batch(), **more)
    parts = {f"{place}.{part}": x for place, register in state.items() for part, x in register.items()}
    seen = loss + sum(x.pow(2).sum() for x in parts.values() if x.is_floating_point() and x.requires_grad)
    grads = torch.autograd.grad(seen, [*made.parameters()], allow_unused=True)
    found = {name: g for (name, _), g in zip(made.named_parameters(), grads, strict=True) if g is not None}
    return {"loss": loss.detach(), **{name: x.detach() for name, x in parts.items()}, **found}


def same(made: Any, span: int, rtol: float = 1e-9, **more: Any) -> None:
    whole = step(made, None, **more)
    fires = made.fires
    torch.testing.assert_close(step(made, span, **more), whole, rtol=rtol, atol=rtol * 0.01)
    assert made.fires == fires


@pytest.mark.parametrize("name", MODELS)
def test_spans_are_the_whole(name: str) -> None:
    """Also of such as end in the middle of chunks, whose first states may still be the weights'."""
    made = model(name)
    same(made, 16)
    same(made, 5)


def test_spans_from_a_state_of_documents_and_of_some_levels() -> None:
    """A span ends where a period of the sequence ends, wherever a call begins."""
    made = model("hope")
    _, state = made.loss(*(x[:, :21] for x in batch()))
    same(made, 16, state={place: {part: x.detach() for part, x in of.items()} for place, of in state.items()})
    same(made, 16, learn=["titans", "cms.mid"])
    starts = torch.zeros(B, T, dtype=torch.bool)
    starts[0, [0, 40]] = starts[1, [0, 25, 60]] = True
    same(made, 16, starts=starts)


def test_a_span_hands_on_a_view_of_a_weight_as_its_own() -> None:
    """The state before an unfinished chunk is still the start when the first spans end."""
    made = compile(loads(HELD, "held.yaml")).model(seed=0, dtype=torch.float64)
    same(made, 4)


def test_what_is_drawn_is_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    made = compile(loads(DROPPED, "dropped.yaml")).model(seed=0, dtype=torch.float64).train()
    again = step(made, 16)
    monkeypatch.setattr("runtime.spans.passed", lambda run, inputs, state, *_: run(inputs, state))
    torch.testing.assert_close(again, step(made, 16), rtol=1e-9, atol=1e-11)


def test_the_backward_pass_is_under_autocast_where_the_forward_pass_was() -> None:
    seen, weight = [], torch.ones(3, 3, requires_grad=True)

    def function(given: list[Tensor]) -> list[Tensor]:
        seen.append((given[0] @ weight).dtype)
        return [(given[0] @ weight).float()]

    x = torch.ones(2, 3, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (y,) = made_again(function, [x], [weight])
    y.sum().backward()
    made_again(function, [x], [weight])[0].sum().backward()
    assert seen == [torch.bfloat16] * 2 + [torch.float32] * 2
    assert weight.grad is not None and weight.grad.eq(4).all()


@pytest.mark.parametrize("name", ["deltanet", "mamba2", "atlas"])
def test_gradients_in_bfloat16_are_those_of_a_whole_step_to_the_bit(name: str) -> None:
    """Of one span, and of a step as CUDA graphs begin it: what is exact forward is exact backward."""
    made = model(name, torch.float32)

    def gradients(span: int | None = None, graphs: CudaGraphs | None = None) -> list[Tensor]:
        made.span, made.recordings = span, graphs
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss, _ = made.loss(*batch(), final=True)
        return [g for g in torch.autograd.grad(loss, [*made.parameters()], allow_unused=True) if g is not None]

    graphs = CudaGraphs(print)
    graphs.on = True
    whole = gradients()
    for other in (gradients(80), gradients(graphs=graphs)):
        assert len(whole) == len(other) and all(map(torch.equal, whole, other))


def test_what_is_done_again_is_not_seen_again() -> None:
    made, means = model("hope"), []
    for span in (None, 16):
        with watch() as seen, summed([made.blocks[0].q.linear]) as sums:
            step(made, span)
        means.append(seen.means() | {"inputs": sums[id(made.blocks[0].q.linear)]})
    torch.testing.assert_close(means[1], means[0], rtol=1e-9, atol=1e-9)


def test_states_are_all_that_is_saved() -> None:
    made = model("transformer")

    def run(span: int | None) -> int:
        made.span = span
        return saved(lambda: made.loss(*batch(), final=True)[0])

    assert run(16) < run(None) / 4


# ---- how long a span is ---------------------------------------------------------------------------------------------


def hope(memory: str, context: int = 4096) -> Spec:
    return load("hope", {"run.batch": 1, "sizes.context": context, "run.memory": memory})


def span(memory: str, context: int = 4096) -> int:
    cost = build(hope(memory, context), check=True).cost
    assert cost is not None
    return cost.span


def test_a_span_is_as_long_as_fits_and_ends_where_every_period_ends() -> None:
    found = [span(memory) for memory in ("4 GB", "400 MB", "260 MB", "210 MB")]
    assert found == [0, 2048, 1024, 512]
    assert all(n % 256 == 0 for n in found)


def test_where_not_even_the_least_fits_the_least_is_kept() -> None:
    assert span("0 B") == span("1 MB") > 0
    assert span("0 B", context=256) == 0  # nothing ends within it


def test_memories_without_a_period_end_anywhere() -> None:
    """Attention is written at no frequency: a span of it may be of any length."""
    cost = build(load("transformer", {"run.memory": "0 B", "run.batch": 1}), check=True).cost
    assert cost is not None and 0 < cost.span < 512


def test_the_generated_model_and_explain_say_the_span() -> None:
    spec = hope("260 MB")
    assert "1,024 tokens  at a time" in report(explain(build(spec, check=True)))
    assert "    span = 1024  # activations of so many tokens at a time" in compile(spec).files["model.py"]
    assert "span" not in compile(hope("4 GB")).files["model.py"]


def test_a_bare_program_in_spans_is_the_whole() -> None:
    """Gradients of its inputs, too."""
    made: Any = compile(load(SPECS / "titans.yaml", {"sizes.width": 8, "levels.titans.chunk": 4})).model(seed=0)
    draw = torch.Generator().manual_seed(1)
    x, weigh = (torch.randn(B, T, 8, generator=draw, dtype=torch.float64) for _ in range(2))
    made = made.double()

    def run(span: int | None, cut: int) -> list[Tensor]:
        made.span, made.fires = span, {"titans": 0}
        given = x.clone().requires_grad_()
        first, state = made(x=given[:, :cut])
        second, state = made(x=given[:, cut:], state=state)
        loss = (torch.cat((first, second), 1) * weigh).sum()
        loss = loss + sum(part.pow(2).sum() for part in state["blocks.0.titans.memory"].values())
        return [first.detach(), second.detach(), *torch.autograd.grad(loss, [given, *made.parameters()])]

    whole, fires = run(None, 9), made.fires
    torch.testing.assert_close(run(8, 9), whole, rtol=1e-9, atol=1e-11)
    assert made.fires == fires
