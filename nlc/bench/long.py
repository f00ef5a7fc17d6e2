"""Peak memory of a training step of 65,536 tokens in one sequence: hope at width 256, 4 heads, 4 layers.

Resident bytes of a process of its own, everything included, under `run.memory: 2.5 GB`: the activations of a span of
tokens are in memory at a time.
"""

from __future__ import annotations

from nlc.bench.child import free, peak
from nlc.bench.compiled import model
from nlc.bench.model import sizes, step
from nlc.bench.rows import Reading, Scale
from nlc.bench.timing import Run

TOKENS = 65_536


def work(scale: Scale) -> Run:
    return step(model("hope", sizes(scale, TOKENS) | {"run.memory": "2.5 GB"}), 1, scale(TOKENS))


def peak_memory(scale: Scale, asked: frozenset[str]) -> dict[str, Reading]:
    found = peak("nlc.bench.long:work", scale, limit=int(0.9 * free()))
    return {"long": Reading(found["peak"] / 1e9, details={"bytes": found, "tokens": scale(TOKENS)})}
