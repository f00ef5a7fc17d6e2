"""What a layer keeps for its backward pass, as `nlc bench` measures it."""

from __future__ import annotations

import math

import pytest

from nlc.bench.activations import of_layer, of_model


def test_a_continuum_that_is_never_written_keeps_five_widths_a_memory() -> None:
    """Its input and its hidden layer, four times as wide, before the activation."""
    B, T, D = 2, 64, 16
    kept = of_layer("hope at never", batch=B, context=T, width=D, heads=1)
    assert kept[f"{B}x{T}x{4 * D}"] == 3 * B * T * 4 * D * 4  # floats, of three memories


def test_hope_at_never_keeps_at_most_a_third_more_than_a_transformer() -> None:
    """Of equal width, 512 tokens: 1.3 times as much at most."""
    hope, transformer = (sum(of_layer(name, batch=2).values()) for name in ("hope at never", "transformer"))
    assert hope <= 1.3 * transformer


@pytest.mark.parametrize("meta", ["first_order", "full"])
@pytest.mark.parametrize("rule", ["gd", "adamw"])
def test_of_the_states_of_a_continuum_the_square_root_of_their_number_is_kept(rule: str, meta: str) -> None:
    """And no sum of a period, nothing that a write computes: half the period, hardly more bytes."""
    B, T, D = 2, 128, 24
    sizes = {"sizes.layers": 1, "sizes.context": T, "sizes.width": D, "sizes.heads": 1, "run.memory": "0 B"}
    cms = {"levels.cms.rule": rule, "levels.cms.meta": meta, "levels.cms.memories.mid.every": "never"}
    states = 1 + 2 * (rule == "adamw")  # as large as the weights: the weights, two moments
    for every in (32, 16, 8, 4):
        settings = {**sizes, **cms, "levels.cms.memories.fast.every": f"{every} tokens"}
        kept = of_model("hope", settings, B, T)
        sets = (kept.get(f"{B}x{4 * D}x{D}", 0) + kept.get(f"{B}x{D}x{4 * D}", 0)) / (2 * B * 4 * D * D * 4)
        assert sets <= states * math.isqrt(2 * T // every), every


def test_a_layer_of_hope_keeps_at_most_twice_what_a_transformer_keeps() -> None:
    """Of equal width, 512 tokens, both memories of its continuum written."""
    hope, transformer = (sum(of_layer(name).values()) for name in ("hope", "transformer"))
    assert hope <= 2 * transformer
