"""What a layer keeps for its backward pass, as bench/activations.py measures it."""

from __future__ import annotations

import runpy
from pathlib import Path

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "bench" / "activations.py"))


def test_a_continuum_that_is_never_written_keeps_five_widths_a_memory() -> None:
    """Its input and its hidden layer, four times as wide, before the activation."""
    B, T, D = 2, 64, 16
    layer = SCRIPT["of_layer"]
    kept = layer("hope at never", batch=B, context=T, width=D, heads=1)
    assert kept[f"{B}x{T}x{4 * D}"] == 3 * B * T * 4 * D * 4  # floats, of three memories


def test_hope_at_never_keeps_at_most_a_third_more_than_a_transformer() -> None:
    """Of equal width, 512 tokens: 1.3 times as much at most."""
    hope, transformer = (sum(SCRIPT["of_layer"](name, batch=2).values()) for name in ("hope at never", "transformer"))
    assert hope <= 1.3 * transformer
