"""How a run goes: what the generated train.py says, changed by what its command line says."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from runtime.data import Pack


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """A spec's sizes and run, and how often a run looks at itself.  0 in a period means only at the end."""

    name: str
    spec: str  # the file it was compiled from
    graph: str  # hash of the graph
    vocab: int
    context: int  # tokens of a sequence
    batch: int  # sequences of a step
    steps: int
    warmup: int  # steps
    clip: float  # largest norm of a level's gradient; 0 is any
    seed: int
    log_every: int  # steps
    validate_every: int  # steps
    checkpoint_every: int  # steps
    precision: str = "float32"  # of matrix products; see runtime.precision
    validation_tokens: int = 8_192  # read at each validation; sixteen times as many at the end

    @property
    def tokens(self) -> int:
        """Tokens of a step."""
        return self.batch * self.context


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line adds."""

    data: Path | None
    field: str | None  # of records
    tokenizer: Path | None
    pack: Pack | None
    task: Path | None  # in place of a text
    out: Path | None
    keep: int  # checkpoints kept; 0 is all
    checkpoint_seconds: float  # from one to the next; 0: Settings.checkpoint_every says it in steps
    resume: bool  # go on with the run that `out` holds
    allow: bool  # even where something else than before would be trained
    time_limit: float  # seconds after which the run is saved and ends; 0 is none
    tensorboard: bool  # mirror the metrics
    quiet: bool
    json: bool
    device: str = "auto"
    on_nan: str = "stop"  # or skip, clip: see runtime.finite
    cuda_graphs: bool = False  # steps as CUDA graphs: see runtime.cuda_graphs
    compile: bool = False  # steps by torch's compiler: see runtime.compiled
    tape: bool = False  # the operations of a step alone: see runtime.compiled


def read(settings: Settings, arguments: Sequence[str] | None = None) -> tuple[Settings, Options]:
    """The settings as the command line changes them, and its options.  Exits with status 2 on a wrong argument."""
    parser = argparse.ArgumentParser(
        prog="train.py", description=f"Train {settings.name}, compiled from {settings.spec}."
    )
    parser.add_argument("--steps", type=positive, default=settings.steps, help="optimiser steps (%(default)s)")
    parser.add_argument("--seed", type=seed, default=settings.seed, help="of the weights and the batches (%(default)s)")
    parser.add_argument("--data", type=Path, metavar="PATH",
                        help="a file, a folder, 'a/pattern*', JSON lines (Python's own source)")  # fmt: skip
    parser.add_argument("--field", metavar="NAME", help="the field of records that holds the text (text)")
    parser.add_argument("--tokenizer", type=Path, metavar="FILE", help="a tokenizer.json (a token is a byte)")
    parser.add_argument("--pack", choices=("text", "documents"),
                        help="documents as one text, or each by itself (text; documents for records)")  # fmt: skip
    parser.add_argument("--task", type=Path, metavar="FILE",
                        help="learn a task (code/task.json of a run); --data is what it hides in")  # fmt: skip
    places = parser.add_mutually_exclusive_group()
    places.add_argument("--out", type=Path, help=f"run directory, which must not hold a run yet (runs/{settings.name})")
    places.add_argument("--resume", type=Path, metavar="RUN", help="go on with the run in this directory")
    parser.add_argument(
        "--allow", action="store_true", help="go on although the program, the data or a setting changed"
    )
    parser.add_argument("--time-limit", type=duration, default=0.0, metavar="TIME",
                        help="save and end with status 75 after so long: 90, 90s, 15m, 2h30m")  # fmt: skip
    parser.add_argument("--checkpoint-every", type=interval, metavar="N|TIME",
                        help="save after so many steps, or at the first step after so long: 500, 10m; 0 is only at the "
                             f"end ({settings.checkpoint_every})")  # fmt: skip
    parser.add_argument("--keep", type=natural, default=0, help="keep only so many of the newest checkpoints (all)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (auto: a GPU where there is one)")
    parser.add_argument("--on-nan", choices=("stop", "skip", "clip"), default="stop",
                        help="a loss or gradient that is not finite: stop the run, skip the step, or clip: take "
                             "what is not finite as 0 (stop)")  # fmt: skip
    recorded = parser.add_mutually_exclusive_group()
    recorded.add_argument(
        "--cuda-graphs", action="store_true", help="on a GPU, record a step once and replay it (a CUDA graph)"
    )
    recorded.add_argument("--compile", action="store_true", help="steps by torch's compiler: minutes once, then faster")
    recorded.add_argument(
        "--tape", action="store_true", help="record the operations of a step once and run these alone: faster on a CPU"
    )
    parser.add_argument(
        "--tensorboard", action="store_true", help="mirror the metrics for TensorBoard, below the run directory"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress")
    parser.add_argument("--json", action="store_true", help="the result as JSON on standard output")
    given = parser.parse_args(arguments)
    changed = replace(settings, steps=given.steps, seed=given.seed)
    steps, seconds = given.checkpoint_every or (settings.checkpoint_every, 0.0)
    changed = replace(changed, checkpoint_every=steps)
    options = Options(
        data=given.data,
        field=given.field,
        tokenizer=given.tokenizer,
        pack=given.pack,
        task=given.task,
        out=given.resume or given.out,
        keep=given.keep,
        checkpoint_seconds=seconds,
        resume=given.resume is not None,
        allow=given.allow,
        time_limit=given.time_limit,
        tensorboard=given.tensorboard,
        quiet=given.quiet,
        json=given.json,
        device=given.device,
        on_nan=given.on_nan,
        cuda_graphs=given.cuda_graphs,
        compile=given.compile,
        tape=given.tape,
    )
    return changed, options


def positive(text: str) -> int:
    if (value := natural(text)) < 1:
        raise argparse.ArgumentTypeError(f"'{text}': at least 1 is needed")
    return value


def natural(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is not a count")
    return int(text)


def interval(text: str) -> tuple[int, float]:
    """Steps or seconds, and nothing of the other: 500 is (500, 0), 10m is (0, 600)."""
    if text.isdecimal():
        return int(text), 0.0
    try:
        return 0, duration(text)
    except argparse.ArgumentTypeError:
        message = f"'{text}' is neither a number of steps nor a length of time: 500, 10m and 2h30m are"
        raise argparse.ArgumentTypeError(message) from None


def seed(text: str) -> int:
    if (value := natural(text)) >= 2**63:
        raise argparse.ArgumentTypeError(f"'{text}': less than 2^63 is needed")
    return value


def duration(text: str) -> float:
    """Seconds: 90, 90s, 15m, 2h30m."""
    parts = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?", text)
    seconds = sum(int(n or 0) * unit for n, unit in zip(parts.groups(), (3600, 60, 1), strict=True)) if parts else 0
    if not seconds:
        raise argparse.ArgumentTypeError(f"'{text}' is no length of time: 90s, 15m and 2h30m are")
    return float(seconds)
