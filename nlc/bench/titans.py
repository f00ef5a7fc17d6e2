"""A layer of Titans' neural memory (specs/titans.yaml) against the package titans-pytorch, forward and backward.

Theirs: NeuralMemory(dim=256, heads=4, dim_head=64, chunk_size=16, activation=SiLU, qk_rmsnorm=True) around a two-layer
MLP of four widths, without the norm and residual it puts around that by default; 4 sequences of 512 tokens.  Ours has
equal shapes and does somewhat more: momentum and forgetting go by the token, where theirs go by the chunk, and a token
reads what it has just written.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from nlc.bench.child import peak
from nlc.bench.compiled import drawn, model
from nlc.bench.packages import needed
from nlc.bench.rows import Reading, Scale
from nlc.bench.timing import Run, both, threads, turns
from nlc.bench.transformer import seeded

OURS, THEIRS = "nlc", "titans-pytorch"
TOKENS = 512


def ours(scale: Scale) -> Run:
    settings = {"sizes.width": scale.width, "sizes.heads": scale.heads, "levels.titans.chunk": scale(16)}
    made: Any = model("titans", settings)
    x, weigh = (drawn(scale.batch, scale(TOKENS), scale.width, seed=i, grad=not i) for i in (0, 1))
    return both(lambda: made(x=x, final=True)[0], [x, *made.parameters()], weigh)


def theirs(scale: Scale) -> Run:
    (package,) = needed(THEIRS, "titans_pytorch")
    head = scale.width // scale.heads
    made: Any = seeded(lambda: package.NeuralMemory(
        dim=scale.width, heads=scale.heads, dim_head=head, chunk_size=scale(16), activation=nn.SiLU(), qk_rmsnorm=True,
        model=package.MemoryMLP(head, depth=2, expansion_factor=4), mem_model_norm_add_residual=False,
        default_step_transform_max_lr=0.01,
    ))  # fmt: skip
    x, weigh = (drawn(scale.batch, scale(TOKENS), scale.width, seed=i, grad=not i) for i in (0, 1))
    made(x)[0].backward(weigh)
    used = [w for w in made.parameters() if w.grad is not None]
    return both(lambda: made(x)[0], [x, *used], weigh)


def times(scale: Scale, asked: frozenset[str]) -> dict[str, Reading]:
    runs = {THEIRS: theirs(scale), OURS: ours(scale)}
    with threads(1):
        took = turns(runs, max(1, scale.turns - 2))
    ratio = took.ratio(THEIRS, OURS)
    speed = {name: round(scale.batch * scale(TOKENS) / took.median(name)) for name in runs}
    return {"titans-time": Reading(ratio.value, ratio.low, ratio.high, {**ratio.details, "tokens per second": speed})}


def memory(scale: Scale, asked: frozenset[str]) -> dict[str, Reading]:
    """Resident bytes at the peak of one pass, above those of a process that has made its model."""
    found = {name: peak(f"nlc.bench.titans:{work}", scale) for name, work in ((THEIRS, "theirs"), (OURS, "ours"))}
    gigabytes = {name: round(sizes["work"] / 1e9, 3) for name, sizes in found.items()}
    ratio = found[THEIRS]["work"] / max(found[OURS]["work"], 1)
    return {"titans-memory": Reading(ratio, details={"peak GB above the model": gigabytes})}
