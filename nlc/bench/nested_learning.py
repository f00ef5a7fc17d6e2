"""Training steps against those of the package nested-learning, two threads, seconds by the wall.

Theirs is `run_training_loop` with the preset configs/ablations/selfmod_chunked_8_64 (block_variant: hope_selfmod), at
width 256, 4 layers, vocabulary 256, one sequence of 512 random tokens, continuum periods 16 / 64 / 256, AdamW, float32,
fast state per step: from the first forward pass to the end of the optimiser's step.  It stops gradients at every write.
Ours, from the batch to the end of the outer update, as `nlc train --tape` runs it once its step is recorded, by one
thread; a process for each, so that they are recorded side by side:

    equal work          specs/deep.yaml: one head, mlp memories (key, value, eta, alpha in chunks of 8, memory of 64),
                        the same continuum, AdamW; gradients through all writes, or `meta: first_order` at the
                        continuum (with that at the memories too, nothing would teach the values their start)
    hope as shipped     four heads, matrix memories, continuum at 64 / 256, at that width, depth, length and batch

Theirs differs where it cannot be told otherwise: eta and alpha give one number, not a width that is read out; the
continuum forgets nothing and is written by a rule with momentum and a preconditioner.
"""

from __future__ import annotations

import io
import time
import warnings
from contextlib import ExitStack, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.optim.optimizer import register_optimizer_step_post_hook

from nlc.bench.compiled import program
from nlc.bench.elsewhere import elsewhere
from nlc.bench.model import sizes
from nlc.bench.packages import calling, needed
from nlc.bench.rows import Reading, Scale
from nlc.bench.timing import Run, Seconds, threads, turns
from nlc.bench.training import step
from runtime.allocator import keep_freed_memory

THEIRS, THREADS = "nested-learning", 2
BATCH = 1  # more sequences would share their fast state
PERIODS = {"fast": 16, "mid": 64, "slow": 256}
PRESET = "ablations/selfmod_chunked_8_64.yaml"


def ours(scale: Scale, id: str) -> Run:
    if id == "nested-hope":
        return step(program("hope", {**sizes(scale), "run.batch": BATCH}))
    meta = "first_order" if id == "nested-first" else "full"
    return step(
        program(
            "deep",
            {
                "sizes.width": scale.width,
                "sizes.layers": 4 if scale.by == 1 else 1,
                "sizes.context": scale(512),
                "run.batch": BATCH,
                "levels.titans.chunk": scale(8),
                "levels.titans.memories.memory.chunk": scale.chunk,
                "levels.cms.meta": meta,
                **{f"levels.cms.memories.{name}.every": f"{scale(n)} tokens" for name, n in PERIODS.items()},
            },
        )
    )


def prepared(scale: Scale, id: str) -> Run:
    """Ours in a process of its own, recorded, with freed memory kept as in a run of `nlc train`."""
    keep_freed_memory()
    run = ours(scale, id)
    with threads(1):
        run()

    def turn() -> Any:
        with threads(THREADS):
            return run()

    return turn


full, first, hope = (partial(prepared, id=f"nested-{name}") for name in ("full", "first", "hope"))


def settings(scale: Scale, package: Any, omegaconf: Any) -> Any:
    """Their preset at the sizes of the measurement."""
    configs = Path(package.__file__).parent / "configs"
    levels = [{"name": n, "update_period": scale(p), "optimizer_key": "cms_opt"} for n, p in PERIODS.items()]
    chunks = {"self_mod_chunk_size": scale(8), "self_mod_chunk_size_memory": scale.chunk}
    layers, off = 4 if scale.by == 1 else 1, {"enabled": False, "enable": False}
    return omegaconf.OmegaConf.merge(
        omegaconf.OmegaConf.load(configs / "pilot.yaml"),
        omegaconf.OmegaConf.load(configs / PRESET),
        {
            "model": {"vocab_size": 256, "dim": scale.width, "num_layers": layers, "heads": 1, "cms_levels": levels,
                      "surprise_threshold": None, **chunks},
            "data": {"source": "synthetic", "vocab_size": 256, "seq_len": scale(512), "dataset_size": 64,
                     "batch_size": BATCH, "num_workers": 0},
            "train": {"steps": 1, "device": "cpu", "use_fast_state": True, "mixed_precision": off, "compile": off,
                      "checkpoint": off},
            "optim": {"type": "adamw"},
            "logging": off,
        },
    )  # fmt: skip


def theirs(scale: Scale) -> Run:
    package, training, omegaconf = needed(THEIRS, "nested_learning", "nested_learning.training", "omegaconf")
    chosen = settings(scale, package, omegaconf)

    def run() -> Seconds:
        began, ended = list[float](), list[float]()
        hooks = [
            register_module_forward_pre_hook(lambda *_: began.append(time.perf_counter())),
            register_optimizer_step_post_hook(lambda *_: ended.append(time.perf_counter())),
        ]
        try:
            with calling(THEIRS), redirect_stdout(io.StringIO()), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                training.run_training_loop(chosen, device=torch.device("cpu"))
        finally:
            for hook in hooks:
                hook.remove()
        return Seconds(ended[-1] - began[0])

    return run


def times(scale: Scale, asked: frozenset[str]) -> dict[str, Reading]:
    """Few turns: a step of theirs takes many seconds."""
    work = {THEIRS: "theirs", **{id: id.removeprefix("nested-") for id in sorted(asked)}}
    with ExitStack() as stack:
        runs = {
            name: stack.enter_context(elsewhere(f"nlc.bench.nested_learning:{function}", scale, THREADS))
            for name, function in work.items()
        }
        for run in runs.values():
            run.ready()
        took = turns(runs, max(1, scale.turns // 2), warm=())
    speed = {name: round(BATCH * scale(512) / took.median(name), 1) for name in runs}
    found = {id: took.ratio(THEIRS, id) for id in asked}
    return {id: Reading(r.value, r.low, r.high, {**r.details, "tokens per second": speed}) for id, r in found.items()}
