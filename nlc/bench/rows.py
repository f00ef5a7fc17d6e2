"""The rows of `nlc bench`: what is measured, what it must reach and should reach, and by which function.

A measurement is a function (Scale, the ids asked for) -> {id: Reading}, named here and imported when it is called, so
that rows which share a run are measured together.  It raises Missing where something it needs is not here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from importlib import import_module
from typing import Any


@dataclass(frozen=True, slots=True)
class Scale:
    """At which sizes.  `by`: what every length and width is divided by; above 1 it tries the code, measures nothing.

    width, heads, batch, chunk, layers: those of the goals.  turns: how often every rival is run at most; fewer, where
    it takes seconds.
    """

    by: int = 1
    turns: int = 5
    heads: int = 4
    batch: int = 4

    def __call__(self, size: int) -> int:
        return max(2, size // self.by)

    @property
    def width(self) -> int:
        return max(2 * self.heads, self(256) // self.heads * self.heads)

    @property
    def chunk(self) -> int:
        return self(64)


@dataclass(frozen=True, slots=True)
class Reading:
    """What was measured: its median, and the quartiles of the turns where there are turns.

    details: the figures it was computed from, as JSON.
    """

    value: float
    low: float | None = None
    high: float | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


class Missing(Exception):
    """What a measurement needs is not on this machine; the message says what, as in "needs `fla-core`"."""


Measure = Callable[[Scale, frozenset[str]], dict[str, Reading]]


@dataclass(frozen=True, slots=True)
class Row:
    """One number.  floor, goal: None where it is only reported.  most: more is better, or less is.

    by: module:function below nlc.bench.  quick: measured by --quick as well.
    """

    id: str
    what: str
    floor: float | None
    goal: float | None
    unit: str
    by: str
    more: bool = True
    quick: bool = True

    def below(self, value: float) -> bool:
        """Whether the value misses the floor."""
        return self.floor is not None and (value < self.floor if self.more else value > self.floor)

    def reaches(self, value: float) -> bool:
        return self.goal is not None and (value >= self.goal if self.more else value <= self.goal)

    def show(self, value: float) -> str:
        """The value with its unit: 31.3x, 34 %, 4.5 KB, 12,345 tokens/s."""
        digits = 0 if value == int(value) or abs(value) >= 100 else 2 if self.unit == "x" and abs(value) < 10 else 1
        return f"{value:,.{digits}f}{'' if self.unit == 'x' else ' '}{self.unit}"


AT = "HOPE cell, forward + backward, T 512: "
LAYER = "HOPE layer against a Transformer layer (both `--tape`): times faster at T "
STEP = "training step (`--tape`), d 256, 4 layers, T 512, two threads: times `nested-learning`, "

ROWS: tuple[Row, ...] = (
    Row("cell-loop", AT + "times the per-token loop (ours `--tape`)", 30, 48, "x", "cell:times"),
    Row("cell-generic", AT + "times the generic chunk form (both `--tape`)", 2.5, 3.3, "x", "cell:times"),
    Row("cell-flops", "useful FLOPs of the cell (`--tape`): share of the float32 matmul peak", 33, 50, "%",
        "cell:times"),
    Row("cell-rows", AT + "times a loop over the rows read alone (ours `--tape`)", None, None, "x", "cell:times",
        quick=False),
    Row("layer-512", LAYER + "512", 0.95, 1.15, "x", "layer:times"),
    Row("layer-2048", LAYER + "2048", 1.25, 1.5, "x", "layer:times"),
    Row("layer-4096", LAYER + "4096", 1.8, 2.2, "x", "layer:times"),
    Row("layer-lengths", "HOPE layer, tokens/s from T 512 to 8192: they differ by at most", 20, 8, "%",
        "layer:lengths", more=False),
    Row("mlp-loop", "mlp memory (hidden = d): times its per-token loop", 14, 20, "x", "mlp:times"),
    Row("continuum-first", "continuum level alone with a given error, C 512: times a plain MLP, first order", 1.9, 1.5,
        "x", "continuum:times", more=False),
    Row("continuum-full", "continuum level alone with a given error, C 512: times a plain MLP, full", 3.1, 2.5, "x",
        "continuum:times", more=False),
    Row("model-continuum", "whole hope (`--tape`), continuum at 64 / 256 tokens: times `never`, first order", 1.7, 1.3,
        "x", "model:times", more=False),
    Row("cell-bytes", "bytes saved for backward per token, cell", 8, 5.5, "KB", "cell:saved_bytes", more=False),
    Row("nested-full", STEP + "equal work, through all writes", 4, 8, "x", "nested_learning:times"),
    Row("nested-first", STEP + "equal work, `meta: first_order`", 5, 10, "x", "nested_learning:times"),
    Row("nested-hope", STEP + "specs/hope as shipped", 25, 50, "x", "nested_learning:times"),
    Row("titans-time", "a Titans block of equal shapes: times `titans-pytorch`", 2.5, 4, "x", "titans:times"),
    Row("titans-memory", "the same: `titans-pytorch`'s peak memory over ours", 4, 6, "x", "titans:times"),
    Row("generation", "generation, hope at d 256, 4 layers, learning on, batch 1", 300, 800, "tokens/s",
        "generation:speed"),
    Row("spill-forward", "sm_90 kernels, ahead of time: spilled bytes forward (chunk 64)", 0, 0, "bytes",
        "spills:forward", more=False),
    Row("spill-backward-32", "sm_90 kernels, ahead of time: spilled bytes backward (chunk 32)", 0, None, "bytes",
        "spills:backward", more=False),
    Row("spill-backward-64", "sm_90 kernels, ahead of time: spilled bytes backward (chunk 64)", None, 0, "bytes",
        "spills:backward", more=False),
    Row("gpu-cell", "GPU: cell forward + backward, d 1024: tokens/s a layer", 10, 20, "M tokens/s", "gpu:speed"),
    Row("gpu-eager", "GPU: the same, times eager chunked PyTorch", 10, 20, "x", "gpu:speed"),
    Row("gpu-fla", "GPU: the same, times `fla`'s gated delta rule at equal shapes", 0.7, 1.2, "x", "gpu:fla"),
    Row("long", "64k-token training, hope at d_model 256: peak memory", 8, 3, "GB", "long:peak_memory", more=False,
        quick=False),
    Row("layer-bytes", "bytes a layer of hope keeps for backward: times a Transformer's", None, None, "x",
        "activations:layer", more=False, quick=False),
    Row("layer-bytes-never", "the same, its continuum at `never`", None, None, "x", "activations:layer", more=False,
        quick=False),
    Row("step-adamw", "step of AdamW as a rule: times torch's `foreach`", 1.1, 1.0, "x", "optimizer:times",
        more=False, quick=False),
    Row("step-adamw-fused", "step of AdamW as a rule: times torch's `fused`", None, None, "x", "optimizer:times",
        more=False, quick=False),
    Row("step-muon", "step of Muon as a rule, bfloat16 products: times torch's", 1.1, 1.0, "x", "optimizer:times",
        more=False, quick=False),
    Row("generation-off", "generation, learning off", None, None, "tokens/s", "generation:speed", quick=False),
    Row("generation-calls", "generation: times a loop that calls the model", None, None, "x", "generation:speed",
        quick=False),
)  # fmt: skip
SWEEPS = ("sweep-cell", "sweep-layer", "sweep-model")  # tables of lengths and batches, by the full run (sweep.py)


def named(patterns: Sequence[str]) -> tuple[list[Row], list[str]]:
    """The rows and sweeps whose ids match; raises LookupError, with the pattern, where one matches nothing."""
    ids = [*(row.id for row in ROWS), *SWEEPS]
    for pattern in patterns:
        if not any(fnmatchcase(id, pattern) for id in ids):
            raise LookupError(pattern)
    matched = {id for id in ids if any(fnmatchcase(id, pattern) for pattern in patterns)}
    return [row for row in ROWS if row.id in matched], [id for id in SWEEPS if id in matched]


def together(rows: Iterable[Row]) -> dict[str, frozenset[str]]:
    """The ids that each function measures, functions in the order of the rows."""
    found: dict[str, frozenset[str]] = {}
    for row in rows:
        found[row.by] = found.get(row.by, frozenset()) | {row.id}
    return found


def measurement(by: str) -> Measure:
    """The function that "module:function" names."""
    module, _, name = by.partition(":")
    found: Measure = getattr(import_module(f"nlc.bench.{module}"), name)
    return found
