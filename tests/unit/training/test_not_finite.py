"""A number that is not finite, planted in one memory of one layer at one token, is found there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import nlc
from runtime import checkpoint
from runtime.batches import Batch
from runtime.diverge import Found, Step, find
from runtime.level import Level, Weights
from runtime.ops.segment import Learner

SMALL = {"sizes.width": 16, "sizes.layers": 3, "sizes.vocab": 32, "sizes.context": 64}
CMS = {"levels.cms.memories.fast.every": "16 tokens", "levels.cms.memories.mid.every": "32 tokens"}
SPECS = {
    "hope": SMALL | CMS | {"levels.titans.chunk": 16},
    "hope_attention": SMALL | CMS,
    "titans_lmm": SMALL,
}
LAYER = 1


@dataclass
class Planted:
    """A model of a spec whose layer 1 can be tampered with: `clock` and `layer` are those of the call that runs."""

    model: Any
    module: Any
    layer: int = -1
    clock: int = 0

    @property
    def here(self) -> bool:
        return self.layer == LAYER


@pytest.fixture(scope="module")
def programs() -> dict[str, nlc.Program]:
    return {name: nlc.compile(nlc.load(name, set=given)) for name, given in SPECS.items()}


@pytest.fixture
def plant(programs: dict[str, nlc.Program]) -> Callable[[str], Planted]:
    def make(name: str) -> Planted:
        planted = Planted(programs[name].model(seed=0), programs[name].module)
        with torch.no_grad():
            for p in planted.model.parameters():  # off the zeros: every path carries a gradient
                p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))

        def enter(layer: int) -> Callable[..., None]:
            def note(block: nn.Module, given: tuple[Any, ...]) -> None:
                planted.layer, planted.clock = layer, given[2]["sequence"]

            return note

        for i, block in enumerate(planted.model.blocks):
            block.register_forward_pre_hook(enter(i))
        return planted

    return make


def step(model: nn.Module, starts: Tensor | None = None) -> Step:
    tokens = torch.randint(0, 32, (2, 65), generator=torch.Generator().manual_seed(3))
    random = checkpoint.random_states(torch.device("cpu"))
    return Step(model, Batch(tokens[:, :-1], tokens[:, 1:], starts), None, "float32", random)


def first(model: nn.Module) -> Found:
    levels = [Level("train", Weights(model).take("*"))]
    found = find(step(model), levels)
    assert found is not None
    return found


# ---- forward ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("box", ["value", "memory"])
def test_a_self_referential_matrix_is_named(
    plant: Callable[[str], Planted], monkeypatch: pytest.MonkeyPatch, box: str
) -> None:
    """Its state is spoilt when it is written at the end of a chunk: after token 31, in one box of five."""
    planted = plant("hope")
    whole = planted.module.shared_product

    def spoilt(flow: Any, states: Any, queries: Any, **more: Any) -> Any:
        here = planted.here and planted.clock == 16 and queries[0][0].shape[1] == 16
        if here:
            more["final"] = False  # every box by itself, as if somebody read them
        result = whole(flow, states, queries, **more)
        if here:
            M = result.state[box]["M"].clone()
            M[1, 0, 2, 3] = torch.nan
            result.state[box].update({"M": M, "held.M": M})
        return result

    monkeypatch.setattr(planted.module, "shared_product", spoilt)
    found = first(planted.model)
    assert (found.memory, found.level, found.layer) == (f"titans.{box}", "titans", LAYER)
    assert found.tokens == (31, 31) and found.sequence == 1 and found.what == "memory"


def test_a_key_that_all_share_is_named_with_all_that_it_writes(
    plant: Callable[[str], Planted], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Token 20 is in the middle of a chunk, where no state is formed in the run that fails."""
    planted = plant("hope")
    whole = planted.module.shared_product

    def spoilt(flow: Any, *more: Any, **options: Any) -> Any:
        at = 20 - planted.clock

        def bad(reads: Any, extras: Any, weights: Any) -> Any:
            k, *rest = flow(reads, extras, weights)
            here = torch.arange(k.shape[1]) == at if planted.here else torch.zeros(k.shape[1], dtype=torch.bool)
            return k.masked_fill(here[None, :, None, None], torch.nan), *rest

        return whole(bad if planted.here else flow, *more, **options)

    monkeypatch.setattr(planted.module, "shared_product", spoilt)
    found = first(planted.model)
    assert (found.memory, found.level, found.layer, found.tokens) == ("titans.key", "titans", LAYER, (20, 20))
    assert found.others == ("titans.value", "titans.eta", "titans.alpha", "titans.memory")
    assert found.equation is not None and found.equation.startswith("level titans: every 1 token, chunk 16")


@pytest.mark.parametrize("token", [0, 20, 63])
def test_a_deep_memory_is_named_within_its_chunk(
    plant: Callable[[str], Planted], monkeypatch: pytest.MonkeyPatch, token: int
) -> None:
    planted = plant("titans_lmm")
    whole = planted.module.memory

    def spoilt(write: Any, state: Any, k: Tensor, v: Tensor, rate: Tensor, keep: Tensor, **more: Any) -> Any:
        T, (q, when), beta, phase = k.shape[1], more.pop("queries")[0], more.pop("beta"), more.pop("phase")

        def part(state: Any, a: int, b: int) -> Any:
            cut = slice(a, b)
            return whole(
                write, state, k[:, cut], v[:, cut], rate[:, cut], keep[:, cut], queries=((q[:, cut], when),),
                beta=beta[:, cut], phase=phase + a, **more,
            )  # fmt: skip

        if not planted.here or token >= T:
            return part(state, 0, T)
        (y,), state = part(state, 0, token + 1)
        state = state | {"W_out": state["W_out"].clone()}
        state["W_out"][0, 1, 2, 3] = torch.inf
        if token + 1 == T:
            return (y,), state
        (rest,), state = part(state, token + 1, T)
        return (torch.cat((y, rest), 1),), state

    monkeypatch.setattr(planted.module, "memory", spoilt)
    found = first(planted.model)
    assert (found.memory, found.level, found.layer) == ("titans.memory", "titans", LAYER)
    assert found.tokens == (token, token) and found.sequence == 0


def test_the_error_that_a_continuum_memory_gathers_is_named(
    plant: Callable[[str], Planted], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The layers below get errors that are finite: only what layer 1 adds up for cms.mid at token 21 is not."""
    planted, calls, whole = plant("hope_attention"), [], Learner.gather

    def spoilt(self: Learner, register: Any, call: Any, errors: Any, *more: Any) -> Any:
        calls.append(self.level)
        first = planted.clock  # of the segment whose errors these are
        layer = calls.count("cms.mid") - 1 if self.level == "cms.mid" else -1
        if layer == LAYER and first <= 21 < first + errors[0].shape[1]:
            errors = [e.clone() for e in errors]
            errors[0][1, 21 - first] = torch.nan
        if len(calls) == 2 * len(planted.model.blocks):
            calls.clear()
        return whole(self, register, call, errors, *more)

    monkeypatch.setattr(Learner, "gather", spoilt)
    found = first(planted.model)
    assert (found.memory, found.level, found.layer) == ("cms.mid", "cms.mid", LAYER)
    assert found.tokens == (21, 21) and found.sequence == 1


def test_the_write_of_a_continuum_memory_is_named(plant: Callable[[str], Planted]) -> None:
    planted = plant("hope")
    block = planted.model.blocks[LAYER]
    whole = block.write_cms_fast

    def spoilt(register: Any) -> Any:
        register = whole(register)
        if planted.clock == 32:
            register["W_in"] = register["W_in"] * torch.tensor(torch.inf)
        return register

    block.write_cms_fast = spoilt
    found = first(planted.model)
    assert (found.memory, found.level, found.layer, found.tokens) == ("cms.fast", "cms.fast", LAYER, (47, 47))
    assert found.largest["cms.fast"] > 0 and "titans.key" in found.largest


def test_attention_is_named_with_its_equation(plant: Callable[[str], Planted], monkeypatch: pytest.MonkeyPatch) -> None:
    planted = plant("hope_attention")
    whole = planted.module.attention

    def spoilt(q: Tensor, k: Tensor, v: Tensor, cache: Any, **more: Any) -> Any:
        y, after = whole(q, k, v, cache, **more)
        at = 10 - planted.clock
        if planted.here and 0 <= at < y.shape[1]:
            y = y.clone()
            y[0, at] = y[0, at] * torch.inf
        return y, after

    monkeypatch.setattr(planted.module, "attention", spoilt)
    found = first(planted.model)
    assert (found.memory, found.level, found.layer, found.tokens) == ("attention.memory", "attention", LAYER, (10, 10))
    assert found.equation is not None and "memory(q)" in found.equation and found.operation == "mul"


def test_a_value_outside_of_the_memories_is_named_by_its_equation(
    plant: Callable[[str], Planted], monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = plant("hope")
    whole = planted.module.causal_conv

    def spoilt(x: Tensor, w: Tensor, history: Tensor) -> Any:
        y, history = whole(x, w, history)
        at = 40 - planted.clock
        if planted.here and 0 <= at < y.shape[1]:
            y = torch.cat((y[:, :at], y[:, at : at + 1] / 0, y[:, at + 1 :]), 1)
        return y, history

    monkeypatch.setattr(planted.module, "causal_conv", spoilt)
    found = first(planted.model)
    assert (found.what, found.memory, found.layer, found.tokens) == ("value", None, LAYER, (40, 40))
    assert found.equation is not None and found.equation.startswith("h = conv(rmsnorm(x), 4)")


def test_documents_do_not_hide_it(plant: Callable[[str], Planted], monkeypatch: pytest.MonkeyPatch) -> None:
    """Token 33 of a sequence is token 9 of its second document; no other token is a 31."""
    planted = plant("hope_attention")
    starts = torch.zeros(2, 64, dtype=torch.bool)
    starts[:, 0] = starts[1, 24] = True
    one = step(planted.model, starts)
    one.batch.tokens[:] = one.batch.tokens % 31
    one.batch.tokens[1, 33] = 31
    whole, read, now = planted.module.attention, planted.model.read, {}

    def noted(tokens: Tensor, *more: Any) -> Any:
        now["tokens"] = tokens
        return read(tokens, *more)

    def spoilt(*arguments: Any, **more: Any) -> Any:
        y, after = whole(*arguments, **more)
        bad = (now["tokens"] == 31) & planted.here
        return y.masked_fill(bad[..., None, None], torch.nan), after

    planted.model.read = noted
    monkeypatch.setattr(planted.module, "attention", spoilt)
    found = find(one)
    assert found is not None and (found.memory, found.layer) == ("attention.memory", LAYER)
    assert found.tokens == (33, 33) and found.sequence == 1


# ---- backward --------------------------------------------------------------------------------------------------------


class Spoil(torch.autograd.Function):
    """The identity; its gradient at one token is not a number."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, at: int) -> Tensor:
        ctx.at = at
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        g = g.clone()
        g[0, ctx.at] = torch.nan
        return g, None


def test_a_gradient_is_named_by_memory_layer_and_token(
    plant: Callable[[str], Planted], monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = plant("titans_lmm")
    whole = planted.module.memory

    def spoilt(*arguments: Any, **more: Any) -> Any:
        (y,), state = whole(*arguments, **more)
        if planted.here and y.shape[1] > 37 and y.requires_grad:
            y = Spoil.apply(y, 37)
        return (y,), state

    monkeypatch.setattr(planted.module, "memory", spoilt)
    found = first(planted.model)
    assert (found.what, found.memory, found.level, found.layer) == ("gradient", "titans.memory", "titans", LAYER)
    assert found.tokens is not None and found.tokens[1] == 37 and found.sequence == 0
    assert found.weight is not None and found.weight.startswith(f"blocks.{LAYER}.")


def test_a_gradient_above_the_layers_is_the_loss_s(plant: Callable[[str], Planted]) -> None:
    planted = plant("titans_lmm")
    whole = planted.model.run

    def spoilt(*arguments: Any, **more: Any) -> Any:
        logits, nats, state = whole(*arguments, **more)
        return logits, Spoil.apply(nats, 5) if nats.requires_grad and nats.shape[1] > 5 else nats, state

    planted.model.run = spoilt
    found = first(planted.model)
    assert (found.what, found.memory, found.layer, found.tokens) == ("gradient", None, None, (5, 5))


# ---- neither ---------------------------------------------------------------------------------------------------------


def test_a_weight_is_named_with_its_level(plant: Callable[[str], Planted]) -> None:
    planted = plant("hope")
    with torch.no_grad():
        planted.model.blocks[2].q.linear[3, 3] = torch.nan
    found = first(planted.model)
    assert (found.what, found.weight, found.level) == ("weight", "blocks.2.q.linear", "train")


def test_a_step_that_is_finite_has_no_place_and_leaves_everything_as_it_was(plant: Callable[[str], Planted]) -> None:
    planted = plant("hope")
    before, fires = torch.get_rng_state(), dict(planted.model.fires)
    assert find(step(planted.model)) is None
    assert torch.equal(before, torch.get_rng_state()) and planted.model.fires == fires
    assert all(p.grad is None for p in planted.model.parameters())
