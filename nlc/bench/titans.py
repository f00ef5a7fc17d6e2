"""A layer of Titans' neural memory (specs/titans.yaml) against the package titans-pytorch, forward and backward.

Theirs is what its defaults make of width 256 and chunks of 16: one head, a two-layer MLP of four widths, momentum and
forgetting; 4 sequences of 512 tokens.  Ours has equal shapes and does somewhat more: momentum and forgetting go by the
token, where theirs go by the chunk, and a token reads what it has just written.  Theirs puts a norm around the MLP and
leaves keys and queries as they are; ours brings them to unit length.

Ours is told to keep to so many bytes (run.memory): it goes in spans of 128 tokens, each run again for its gradient.
"""

from __future__ import annotations

from typing import Any

from nlc.bench.child import peak
from nlc.bench.compiled import drawn, model
from nlc.bench.elsewhere import elsewhere
from nlc.bench.packages import calling, needed
from nlc.bench.rows import Reading, Scale
from nlc.bench.timing import Run, both, threads, turns
from nlc.bench.transformer import seeded

OURS, THEIRS = "nlc", "titans-pytorch"
TOKENS = 512


def ours(scale: Scale) -> Run:
    settings = {"sizes.width": scale.width, "levels.titans.chunk": scale(16)}
    made: Any = model("titans", settings)
    x, weigh = (drawn(scale.batch, scale(TOKENS), scale.width, seed=i, grad=not i) for i in (0, 1))
    return both(lambda: made(x=x, final=True)[0], [x, *made.parameters()], weigh)


def theirs(scale: Scale) -> Run:
    (package,) = needed(THEIRS, "titans_pytorch")
    x, weigh = (drawn(scale.batch, scale(TOKENS), scale.width, seed=i, grad=not i) for i in (0, 1))
    with calling(THEIRS):
        made: Any = seeded(package.NeuralMemory, scale.width, scale(16))
        made(x[:1, : scale(16)])[0].sum().backward()  # some of its parameters are not used
    used = [w for w in made.parameters() if w.grad is not None]
    return both(lambda: made(x)[0], [x, *used], weigh)


def times(scale: Scale, asked: frozenset[str]) -> dict[str, Reading]:
    """Seconds, and resident bytes at the peak of one pass, above those of a process that has made its model.

    Theirs takes many seconds: it has few turns, and its memory is that of the first.
    """
    with elsewhere("nlc.bench.titans:theirs", scale, threads=1) as rival, threads(1):
        found: dict[str, Reading] = {}
        rival.ready()  # it has run a chunk
        if "titans-time" in asked:
            took = turns({THEIRS: rival, OURS: ours(scale)}, max(1, scale.turns // 2), warm=(OURS,))
            ratio = took.ratio(THEIRS, OURS)
            speed = {name: round(scale.batch * scale(TOKENS) / took.median(name)) for name in (THEIRS, OURS)}
            details = {**ratio.details, "tokens per second": speed}
            found["titans-time"] = Reading(ratio.value, ratio.low, ratio.high, details)
        else:
            rival()
        if "titans-memory" in asked:
            bytes_ = {THEIRS: rival.peak(), OURS: peak("nlc.bench.titans:ours", scale)["work"]}
            gigabytes = {name: round(size / 1e9, 3) for name, size in bytes_.items()}
            value = bytes_[THEIRS] / max(bytes_[OURS], 1)
            found["titans-memory"] = Reading(value, details={"peak GB above the model": gigabytes})
    return found
