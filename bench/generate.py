"""Tokens a second of a model that generates one token at a time and learns from each, on one thread.

    python bench/generate.py --json > bench/results/generate.json
    python bench/generate.py --spec hope_attention --set sizes.width=128

Weights are as drawn: how fast they go does not depend on what they say.  In the same run, taking turns:

    generated       `nlc generate` as it is: a token is read once, what it teaches is learned at the next border
    learning off    the same without learning
    call by call    the model called once a token, as a loop of one's own does: it reads each token twice, first to
                    know the next one, then to learn from it
    weights         every matrix of the model times one vector: what no generation goes below, times 1 + 1/64 or so

A turn is --tokens tokens, whole periods of the levels, so that what a border costs is in it.  Medians over --turns.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from cell import processor
from facts import commit
from safetensors.torch import save_file

import nlc
from runtime.numerics import subnormals_flushed
from runtime.session import Session, find

SIZES = {"sizes.width": "256", "sizes.heads": "4", "sizes.layers": "4"}


def session(spec: str, sets: dict[str, str], learn: bool) -> Session:
    """A session of a model as it is drawn, after 64 tokens."""
    with tempfile.TemporaryDirectory() as folder:
        program = nlc.compile(nlc.load(spec, set=sets), out=Path(folder) / "package")
        weights = Path(folder) / "weights.safetensors"
        save_file({name: w.contiguous() for name, w in program.model(seed=0).state_dict().items()}, weights)
        one = Session(find(Path(folder) / "package", weights=weights), learn=learn)
    one.read(torch.randint(one.drawable, (64,), generator=torch.Generator().manual_seed(0)))
    return one


def generating(one: Session, tokens: int) -> Callable[[], None]:
    def turn() -> None:
        for _ in one.generate(tokens):
            pass

    return turn


def calling(one: Session, tokens: int) -> Callable[[], None]:
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


def multiplying(one: Session, tokens: int) -> Callable[[], None]:
    """Every matrix of a kind times one vector."""
    matrices = [w.detach() for w in one.model.parameters() if w.dim() == 2 and w.numel() > 4096]
    vectors = [torch.ones(1, 1, w.shape[1]) for w in matrices]

    @torch.no_grad()
    def turn() -> None:
        for _ in range(tokens):
            for w, x in zip(matrices, vectors, strict=True):
                F.linear(x, w)

    return turn


def measured(spec: str, sets: dict[str, str], tokens: int, turns: int) -> dict[str, Any]:
    on, off, calls = (session(spec, sets, learn) for learn in (True, False, True))
    contenders = {
        "generated": generating(on, tokens),
        "learning off": generating(off, tokens),
        "call by call": calling(calls, tokens),
        "weights": multiplying(on, tokens),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(turns):
        for name, turn in contenders.items():
            began = time.perf_counter()
            turn()
            seconds[name].append((time.perf_counter() - began) / tokens)
    middle = {name: statistics.median(found) for name, found in seconds.items()}
    return {
        "spec": {"name": spec, **sets},
        "graph": on.trained.settings.graph,
        "parameters": sum(p.numel() for p in on.model.parameters()),
        "threads": torch.get_num_threads(),
        "tokens per second": {name: round(1 / one, 1) for name, one in middle.items()},
        "milliseconds a token": {name: round(1e3 * one, 3) for name, one in middle.items()},
        "milliseconds a token, least and most": {
            name: [round(1e3 * f(found), 3) for f in (min, max)] for name, found in seconds.items()
        },
        "times call by call": round(middle["call by call"] / middle["generated"], 2),
        "machine": {"processor": processor(), "python": platform.python_version(), "torch": torch.__version__},
        "commit": commit(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spec", default="hope", help="a shipped name or a path (%(default)s)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="over width 256, 4 layers")
    parser.add_argument("--tokens", type=int, default=256, help="of a turn (%(default)s)")
    parser.add_argument("--turns", type=int, default=5, help="(%(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="(%(default)s)")
    parser.add_argument("--json", action="store_true", help="everything, as JSON")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    sets = SIZES | dict(pair.partition("=")[::2] for pair in given.set)
    with subnormals_flushed():
        record = measured(given.spec, sets, given.tokens, given.turns)
    if given.json:
        print(json.dumps(record, indent=1))
        return 0
    for name, speed in record["tokens per second"].items():
        least, most = record["milliseconds a token, least and most"][name]
        print(f"{name:14}{speed:>10,.1f} tokens/s   {least:.2f} to {most:.2f} ms")
    print(f"{record['times call by call']:.1f} times call by call")
    return 0


if __name__ == "__main__":
    sys.exit(main())
