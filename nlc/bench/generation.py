"""Tokens a second of hope generating one token at a time and learning from each.

Width 256, 4 heads, 4 layers, one stream, one thread.

Weights are as drawn: how fast they go does not depend on what they say.  In the same run, taking turns:

    nlc             `nlc generate` as it is: a token is read once, what it teaches is learned at the next border
    learning off    the same without learning
    calls           the model called once a token, as a loop of one's own does: it reads each token twice, first to
                    know the next one, then to learn from it
    weights         every matrix of the model times one vector: what no generation goes below, times 1 + 1/64 or so

A turn is 256 tokens, whole periods of the levels, so that what a border costs is in it.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from nlc.bench.compiled import program
from nlc.bench.model import sizes
from nlc.bench.rows import Reading, Scale
from nlc.bench.timing import Run, threads, turns
from runtime.session import Session, find

OURS, OFF, CALLS, WEIGHTS = "nlc", "learning off", "calls", "weights"


def session(scale: Scale, learn: bool) -> Session:
    """A session of a model as it is drawn, after 64 tokens."""
    with tempfile.TemporaryDirectory() as folder:
        made = program("hope", sizes(scale))
        made.write(folder)
        weights = Path(folder) / "weights.safetensors"
        save_file({name: w.contiguous() for name, w in made.model(seed=0).state_dict().items()}, weights)
        one = Session(find(folder, weights=weights), learn=learn)
    one.read(torch.randint(one.drawable, (scale(64),), generator=torch.Generator().manual_seed(0)))
    return one


def generating(one: Session, tokens: int) -> Run:
    def turn() -> None:
        for _ in one.generate(tokens):
            pass

    return turn


def calling(one: Session, tokens: int) -> Run:
    """One call of the model a token, its state fed back."""
    state = one.stream.state

    @torch.no_grad()
    def turn() -> None:
        nonlocal state
        token = torch.zeros(1, 1, dtype=torch.long)
        for _ in range(tokens):
            logits, state = one.model(token, state)
            token = logits[:, -1:].argmax(-1)

    return turn


def multiplying(one: Session, tokens: int) -> Run:
    """Every matrix of a kind times one vector."""
    matrices = [w.detach() for w in one.model.parameters() if w.dim() == 2 and w.numel() > 4096]
    vectors = [torch.ones(1, 1, w.shape[1]) for w in matrices]

    @torch.no_grad()
    def turn() -> None:
        for _ in range(tokens):
            for w, x in zip(matrices, vectors, strict=True):
                F.linear(x, w)

    return turn


def speed(scale: Scale, asked: frozenset[str]) -> dict[str, Reading]:
    tokens, on = scale(256), session(scale, learn=True)
    runs = {OURS: generating(on, tokens), WEIGHTS: multiplying(on, tokens)}
    if "generation-off" in asked:
        runs[OFF] = generating(session(scale, learn=False), tokens)
    if "generation-calls" in asked:
        runs[CALLS] = calling(session(scale, learn=True), tokens)
    with threads(1):
        took = turns(runs, scale.turns)
    found = {"generation": took.rate(OURS, tokens)}
    if OFF in runs:
        found["generation-off"] = took.rate(OFF, tokens)
    if CALLS in runs:
        found["generation-calls"] = took.ratio(CALLS, OURS)
    return {id: found[id] for id in asked}
