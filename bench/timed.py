"""A generated training program, driven in blocks: a budget of steps or of seconds, interrupted and resumed at will.

    job = Job(folder, spec, Budget(seconds=600))
    while not job.finished:
        job.block(20)                  # twenty more seconds of training, then everything is on disk

The loop that trains is `main` of the generated train.py; only its `Run` is replaced by one that begins where the block
before ended, keeps time, and stops when the block is over.  A block is a run directory of its own, and counts once its
`done.json` is there: one that was killed is thrown away and done again.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import Tensor, nn

import nlc
from nlc.spec import Spec
from runtime import checkpoint, metrics, program, resume
from runtime.directory import RunDirectory
from runtime.errors import Diverged, RunError
from runtime.evaluate import evaluate_run
from runtime.level import Level
from runtime.settings import Settings
from runtime.trainer import Run
from runtime.whole import replace_text

UNKNOWN = 1000  # steps of a schedule whose speed is not known yet; the first step is measured, and it is laid out anew
VALIDATE_EVERY = 200  # steps


@dataclass(frozen=True, slots=True)
class Budget:
    """How long to train: so many steps, or so many seconds on `timer`.

    whole: the seconds are those of the whole run, validation and checkpoints included, rather than of its steps.
    """

    steps: int = 0
    seconds: float = 0.0
    whole: bool = False
    timer: Callable[[], float] = time.process_time


def allowed(done: int, spent: float, seconds: float) -> int:
    """Steps of the whole run, when `done` of them took `spent` seconds and the rest goes at the same speed."""
    return done + max(0, round((seconds - spent) * done / spent))


class Paused(RunError):
    """The block is over, the run is not."""


class Timed(Run):
    """A run of one block.  The schedule is laid out over the steps that the measured speed allows, after every step."""

    def __init__(
        self, defaults: Settings, arguments: Sequence[str], file: str, budget: Budget, block: float, before: Done
    ) -> None:
        super().__init__(defaults, arguments, file)
        self.budget, self.before, self.until = budget, before, before.spent + block
        self.step, self.spent = before.step, before.spent
        self.found: dict[str, Any] = {}  # the result
        self.failure, self.diverged = "", False

    @property
    def over(self) -> bool:
        """Whether there is nothing left to do: it has a result, or it diverged."""
        return bool(self.found) or self.diverged

    def steps(self, model: nn.Module, levels: Sequence[Level]) -> Iterator[int]:
        self.since = self.budget.timer()
        if self.before.place is not None:
            resume.restore(checkpoint.read(self.before.place), self.before.place, model, levels)
        for step in super().steps(model, levels):
            if not self.budget.whole:
                self.since = self.budget.timer()
            yield step
        if self.budget.whole:  # the validation at the end
            self.spent += self.budget.timer() - self.since

    def report(self, loss: Tensor, state: Any = None) -> None:
        now = self.budget.timer()
        self.spent, self.since = self.spent + now - self.since, now
        if self.budget.seconds:
            steps = allowed(self.step + 1, self.spent, self.budget.seconds)
            self.settings = replace(self.settings, steps=steps)
        super().report(loss, state)
        if self.step < self.settings.steps and self.spent >= self.until:
            self._save()
            raise Paused("the block is over")

    def _heed(self) -> None:
        """A signal waits for the validation at the end: no later block makes up for it."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self.found, self.result = self.result, {}  # nothing is printed
        if isinstance(error, Paused):
            return super().__exit__(None, None, None)
        self.failure, self.diverged = str(error or ""), isinstance(error, Diverged)
        return super().__exit__(kind, error, trace)


# ---- a run in blocks ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Done:
    """What has been done by the end of a block: steps, of how many as it looks; seconds; the checkpoint they left."""

    step: int = 0
    steps: int = 0
    spent: float = 0.0
    place: Path | None = None
    result: dict[str, Any] | None = None  # of the trainer, when the run is over
    failure: str = ""


class Job:
    """One training run, kept in `folder`: code/, blocks/000/ ... (run directories)."""

    def __init__(
        self, folder: Path, spec: Spec, budget: Budget, *, text: Path | None = None, seed: int = 0, guess: int = 0
    ) -> None:
        """`guess`: steps that a budget of seconds is thought to allow, until it is measured."""
        self.folder, self.spec, self.budget, self.text, self.seed = folder, spec, budget, text, seed
        self.steps = budget.steps or guess or UNKNOWN

    @property
    def name(self) -> str:
        return "/".join(self.folder.parts[-2:])

    @property
    def blocks(self) -> list[Path]:
        """The blocks that are over, oldest first."""
        return sorted(path.parent for path in self.folder.glob("blocks/*/done.json"))

    @property
    def done(self) -> Done:
        if not (blocks := self.blocks):
            return Done(steps=self.steps)
        said = json.loads((blocks[-1] / "done.json").read_text(encoding="utf-8"))
        over = said["result"] or said["failure"]
        place = None if over else checkpoint.newest(blocks[-1] / "checkpoints")
        return Done(place=place, **said)

    @property
    def finished(self) -> bool:
        done = self.done
        return bool(done.result or done.failure)

    @property
    def fraction(self) -> float:
        """The share of the budget that is used."""
        done = self.done
        return done.spent / self.budget.seconds if self.budget.seconds else done.step / self.budget.steps

    def block(self, seconds: float) -> Done:
        """Train for so many more seconds, or to the end.  Raises RunError (with its status) when a signal stops it."""
        before, blocks = self.done, self.blocks
        folder = self.folder / "blocks" / f"{len(blocks):03d}"
        shutil.rmtree(folder, ignore_errors=True)  # killed before it was over
        if not blocks:
            nlc.compile(self.spec, out=self.folder / "code")
        module = program.load(self.folder / "code")
        module.settings = replace(module.settings, validate_every=VALIDATE_EVERY, checkpoint_every=0)
        runs: list[Timed] = []

        def run(defaults: Settings, arguments: Sequence[str], file: str) -> Timed:
            runs.append(Timed(defaults, arguments, file, self.budget, seconds, before))
            return runs[0]

        module.Run = run
        arguments = ["--out", str(folder), "--seed", str(self.seed), "--steps", str(before.steps), "--quiet"]
        status: int = module.main([*arguments, *(["--data", str(self.text)] if self.text else [])])
        made = runs[0]
        if not (made.over or made.saved == made.step):  # by an error, or by a signal that came twice
            raise RunError(made.failure or "stopped at once; the same command goes on from the block before", status)
        said = {"step": made.step, "steps": made.settings.steps, "spent": made.spent}
        said |= {"result": made.found or None, "failure": made.failure if made.diverged else ""}
        replace_text(folder / "done.json", json.dumps(said, indent=1) + "\n")
        for old in blocks:
            shutil.rmtree(old / "checkpoints", ignore_errors=True)
        if made.stop.asked:
            raise RunError(f"stopped by {made.stop.name}; the same command goes on from here", 128 + made.stop.asked)
        return self.done

    def judge(self, tokens: int, learn: bool) -> dict[str, Any]:
        """The validation of what the finished run learned; done once and kept."""
        path = self.folder / f"validation-{tokens}-{'on' if learn else 'off'}.json"
        if not path.exists():
            began = self.budget.timer()
            found = evaluate_run(self.blocks[-1], text=self.text, tokens=tokens, learn=learn).as_dict()
            found["seconds"] = self.budget.timer() - began
            replace_text(path, json.dumps(found, indent=1) + "\n")
        judged: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return judged

    def curve(self) -> list[dict[str, float]]:
        """The validations on the way: step, tokens, bits_per_byte."""
        found = {}
        for block in self.blocks:
            for row in metrics.read(block / "metrics.jsonl"):
                if row.get("val/bits_per_byte") is not None:
                    found.setdefault(row["step"], row)
        return [
            {"step": x["step"], "tokens": x["tokens"], "bits_per_byte": x["val/bits_per_byte"]} for x in found.values()
        ]

    def made(self, place: Mapping[str, Any]) -> dict[str, Any]:
        """`place` as it was when this was first asked of the finished run: a later look changes nothing."""
        path = self.folder / "place.json"
        if not path.exists():
            replace_text(path, json.dumps(place, indent=1) + "\n")
        kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return kept

    def graph(self) -> str:
        """The graph's hash."""
        lock: dict[str, str] = RunDirectory(self.blocks[-1]).read_lock()
        return lock["graph"]


def interleave(jobs: Sequence[Job], seconds: float, say: Callable[[Job, Done], None]) -> None:
    """All jobs to their ends, a block of the one that is furthest behind at a time."""
    while waiting := [job for job in jobs if not job.finished]:
        job = min(waiting, key=lambda job: job.fraction)
        say(job, job.block(seconds))


def say(one: Job, done: Done) -> None:
    """How far a run is, on stderr."""
    end = f": {done.failure}" if done.failure else ""
    if done.result:
        end = f": {done.result['val_bits_per_byte']:.4f} bits per byte"
    speed = done.step / max(done.spent, 1e-9)
    print(f"{one.name}: step {done.step:,} of {done.steps:,}, {speed:.2f} steps/s{end}", file=sys.stderr, flush=True)
