"""Everything a training loop does besides learning: its data, directory, metrics, progress, checkpoints and end.

    with Run(settings, arguments, __file__) as run:
        data = run.data()
        ...
        for step in run.steps(model, levels):
            ...
            run.backward(loss)
            ...
            run.report(loss, state)
    return run.status

Errors a user can act on, signals and numbers that are not finite end the `with` block quietly: a message on stderr, the
metrics kept, and `run.status` set.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from runtime import checkpoint, device, metrics, mirror, plot, probe, replay, resume, settings, summary
from runtime import data as texts
from runtime.batches import Batch, Crops, Lanes
from runtime.checkpoint import Checkpoint
from runtime.directory import PACKAGE, RunDirectory, environment, fresh
from runtime.diverge import Step
from runtime.errors import DATA_MISSING, Diverged, Interrupted, Lost, Preempted, RunError, Unsaved, short_of_memory
from runtime.evaluate.loss import Result, evaluate
from runtime.finite import Guard, not_finite
from runtime.level import Level
from runtime.numerics import subnormals_flushed
from runtime.ops import watch
from runtime.precision import autocast
from runtime.processes import Processes
from runtime.progress import Report, display
from runtime.schedule import due
from runtime.settings import Settings
from runtime.signals import Stop
from runtime.trends import Trends

FINAL = 16  # times the tokens of a validation on the way are read at the end
INTERRUPTED = 130
TIME_IS_UP = 1 << 16  # beside the numbers of signals


class Run:
    """One training run.  As a context it catches what ends a run; `status` is then the exit status of the command."""

    def __init__(self, defaults: Settings, arguments: Sequence[str] | None, file: str) -> None:
        """`file` is the generated train.py: the run directory keeps a copy of its package."""
        self.settings, self.options = settings.read(defaults, arguments)
        self.package = Path(file).resolve().parent
        self.device = device.chosen(self.options.device)
        self.processes = Processes.join(self.device)
        self.guard = Guard(self.options.on_nan, self.processes)
        out = self.processes.agree(str(self.options.out or fresh(defaults.name)))
        self.directory = RunDirectory(out)
        self.display = display(self.settings.steps, self.options.quiet or not self.processes.first)
        self.stop = Stop()
        self.flushed = subnormals_flushed()
        self.status = 0
        self.result: dict[str, Any] = {}
        self.batch: Batch | None = None  # the last one given out
        self.metrics: metrics.Metrics | None = None
        self.claimed: int | None = None  # a handle of the directory, in the process that writes it
        self.mirror: mirror.Mirror | None = None
        self.trends = Trends()
        self.state: Any = None  # what the last step left
        self.step = 0  # steps done
        self.running = 0  # the step that is running, from 1
        self.saved = -1  # steps done at the last checkpoint
        self.losses: list[Tensor] = []  # of the steps since the last row
        self.loss = math.nan  # their mean at the last row
        self.training = 0.0  # seconds spent in steps, up to the last row
        self.entered = time.perf_counter()

    # ---- before the first step --------------------------------------------------------------------------------------

    def data(self) -> texts.Data:
        """The text to learn from, checked against the settings.  Raises DataError."""
        o, note = self.options, self.display.note
        begun = self.directory.read_lock() if o.resume else {}
        if begun and not (o.data or o.field or o.tokenizer or o.pack):
            self.text = texts.again(begun.get("data", {}), run=self.directory.path, note=note)
        else:
            vocab = self.settings.vocab
            self.text = texts.load(o.data, field=o.field, tokenizer=o.tokenizer, pack=o.pack, vocab=vocab, note=note)
        texts.check(self.text, self.settings.context, self.settings.vocab)
        self.display.note(str(self.text))
        return self.text

    def crops(self, text: texts.Text) -> Iterator[Batch]:
        """(tokens_BT, targets_BT, starts_BT) of every step: sequences from random places."""
        return self._batches(Crops, text)

    def lanes(self, text: texts.Text) -> Iterator[Batch]:
        """(tokens_BT, targets_BT, starts_BT) of every step: sequences that go on where those of the last one ended."""
        return self._batches(Lanes, text)

    def _batches(self, kind: type[Crops | Lanes], text: texts.Text) -> Iterator[Batch]:
        s, p = self.settings, self.processes
        source = kind(text, s.batch, s.context, s.seed, p.rank, p.count)
        while True:
            self.batch = device.sent(source.at(self.step), self.device)
            yield self.batch

    def steps(self, model: nn.Module, levels: Sequence[Level]) -> Iterator[int]:
        """0, 1, ... up to the last step.  What a run does before its first step and after its last is done in here."""
        self._begin(model, levels)
        while self.step < self.settings.steps:
            self.running = self.step + 1
            self.random = checkpoint.random_states(self.device)
            if self._logs(self.running):
                watch.begin()
                for level in self.levels:
                    level.watched = True
            yield self.step
        self._finish()

    def _begin(self, model: nn.Module, levels: Sequence[Level]) -> None:
        self.model, self.levels = model, list(levels)
        self.parameters = sum(p.numel() for p in model.parameters())
        for level in self.levels:
            level.processes = self.processes
        if self.processes.first:
            if self.options.tensorboard:
                mirror.library()  # or an end before anything is written
            self.claimed = self.directory.claim()
        scalars = self._resume() if self.options.resume else {}
        if self.processes.first:
            if self.options.tensorboard:
                self.mirror = mirror.Mirror(self.directory.path, self.step * self.settings.tokens)
            if not self.options.resume:
                self.directory.begin(self.package)
                if self.text.tokenizer is not None:
                    self.text.tokenizer.keep(self.directory.path)
                self.directory.write_lock(self._facts())
            rows = scalars.get("rows", 0)
            self.metrics = metrics.Metrics(self.directory.metrics, rows, lenient=self.options.allow)
            for row in self.metrics.rows:
                self.trends.see(row)
        size = f"{self.parameters:,} parameters, {self.settings.tokens:,} tokens a step"
        self.display.note(f"{self.settings.name}: {size}, in {self.directory.path}")
        if self.step:
            self.display.note(f"going on after step {self.step}")
        self.display.__enter__()
        self.clock, self.clocked = time.perf_counter(), self.step  # when, and after which step, the last row was made
        self.began = self.clock - scalars.get("seconds", 0.0)  # of the run

    def _resume(self) -> dict[str, Any]:
        """Go back to the newest whole checkpoint, or to the beginning where none was written; its scalars."""
        lock, facts = self.directory.read_lock(), self._facts()
        changed = resume.differences(lock, facts)
        if not self.options.allow:
            resume.refuse(self.directory.path, changed)
        if not checkpoint.steps(self.directory.checkpoints):
            return {}
        place, found = resume.newest(self.directory, self._warn)
        resume.restore(found, place, self.model, self.levels)
        scalars = found.scalars
        self.step = self.saved = scalars["step"]
        self.state = device.moved(self.processes.rows(found.state), self.device) if found.state else None
        self.guard.count = scalars.get("not_finite", 0)
        self.losses = [torch.tensor(loss, device=self.device) for loss in scalars["losses"]]
        self.loss, self.training = scalars["loss"] or math.nan, scalars["training"]
        elsewhere = (lock.get("environment"), lock.get("device")) != (environment(), facts["device"])
        if self.processes.first and (changed or elsewhere):
            self.directory.write_lock(facts, [*lock.get("resumed", []), {"step": self.step, "before": lock}])
        return scalars

    def _warn(self, message: str) -> None:
        if self.processes.first:
            print(message, file=sys.stderr)

    def _facts(self) -> dict[str, Any]:
        s = self.settings
        return {
            "name": s.name,
            "spec": {"file": s.spec, "sha256": resume.digest(self.directory.spec)},
            "graph": s.graph,
            "seed": s.seed,
            "steps": s.steps,
            "batch": s.batch,
            "context": s.context,
            "device": device.name_of(self.device),
            "data": self.text.facts(),
            "code": {name: resume.digest(self.package / name) for name in PACKAGE if (self.package / name).exists()},
        }

    # ---- at the end of every step -----------------------------------------------------------------------------------

    def autocast(self) -> AbstractContextManager[Any]:
        """What `run.precision` makes of a forward pass."""
        return autocast(self.settings.precision, self.device)

    def backward(self, loss: Tensor, state: Any = None) -> None:
        """The gradients of a step, and what --on-nan says where one is not finite.  `state`: of streams."""
        self.guard.backward(loss, self.levels, state)
        if self.guard.bad:
            self.display.note(f"step {self.running}: {self.guard.said}: {self.guard.policy}ped")  # skipped, clipped

    def report(self, loss: Tensor, state: Any = None) -> None:
        """Count the step; log, validate and save when it is time; stop if a signal asked for it.

        Nothing here waits for the device, unless the step logs.
        """
        s = self.settings
        self.step += 1
        seen = watch.end()
        before, self.state = self.state, self.state if self.guard.lost else state
        self.losses += [] if self.guard.bad else [loss.detach()]
        last = self.step == s.steps
        if self._logs(self.step):
            self._log(self._inside(seen, before))
        if last:  # `steps` does the rest
            return
        if due(self.step, s.validate_every):
            self._validate(s.validation_tokens)
        if due(self.step, s.checkpoint_every):
            self._save()
        if asked := self.processes.largest(self._asked()):
            self._end(asked)

    def _asked(self) -> int:
        """The number of the signal that asks this process to stop, or that its time is up; or 0."""
        limit = self.options.time_limit
        return TIME_IS_UP if limit and time.perf_counter() - self.entered > limit else self.stop.asked

    def _end(self, asked: int) -> None:
        where = f"after step {self.step}; saved in {self._save()}"
        if asked == TIME_IS_UP:
            raise Preempted(f"the time limit is over {where}")
        raise Interrupted(f"stopped by {signal.Signals(asked).name} {where}", asked)

    @property
    def unread(self) -> bool:
        """Whether nobody will read the state that this step leaves: no row of metrics is due."""
        return not self._logs(self.step + 1)

    def _logs(self, step: int) -> bool:
        return step in (1, self.settings.steps) or due(step, self.settings.log_every)

    def _inside(self, seen: watch.Watch, state: Any) -> dict[str, float]:
        """What the levels inside a sequence did; `state` is what the step's sequences went on from, in a stream."""
        if not self.processes.first or self.batch is None:
            return {}
        with self._pause():
            return probe.look(seen, self.model, *self.batch, state if getattr(self.model, "streams", ()) else None)

    def _log(self, inside: dict[str, float]) -> None:
        """A row of metrics and the display, from the steps since the last row, none where no loss was finite; `inside`:
        what a look inside found."""
        if not self.losses:
            return
        mean = torch.stack(self.losses).mean()
        norms = metrics.norms(self.state or {})
        squares = torch.tensor(list(norms.values())).square()
        self.processes.mean([mean, squares])
        loss = float(mean)
        if not math.isfinite(loss):
            raise Diverged("the loss is not finite")
        now = time.perf_counter()
        speed = (self.step - self.clocked) * self.settings.tokens / (now - self.clock)
        self.training += now - self.clock
        values: dict[str, float] = {"train/loss": loss, "perf/tokens_per_s": speed}
        for level in self.levels:
            values |= level.seen()
        values |= {f"memory/{name}/norm": norm for name, norm in zip(norms, squares.sqrt().tolist(), strict=True)}
        values |= {f"level/{name}/fires": count for name, count in self.fires().items()}
        values |= {f"train/{self.guard.policy}ped": self.guard.count} if self.guard.count else {}
        self._write(values | inside)
        self._warn_of_memories()
        left = (self.settings.steps - self.step) * self.training / self.step
        self.display.update(Report(self.step, self.settings.steps, loss, speed, left))
        self.losses, self.loss = [], loss
        self.clock, self.clocked = time.perf_counter(), self.step

    def _warn_of_memories(self) -> None:
        """A line for every memory that is about to vanish or explode since the last row."""
        for memory, words in self.trends.see(self.metrics.rows[-1]).items() if self.metrics else ():
            self._warn(f"warning: step {self.step}: memory {memory} {words}; look at its rate and retention")

    def fires(self) -> dict[str, int]:
        """Updates of every level so far, as the model and the levels count them."""
        inside: dict[str, int] = getattr(self.model, "fires", {})
        return {**inside, **{level.name: level.count for level in self.levels}}

    def _validate(self, tokens: int) -> Result | None:
        """The loss on text that is not trained on, by the first process."""
        s = self.settings
        if not self.processes.first:
            return None
        with self._pause():
            part, precision = self.text.validation, s.precision
            result = evaluate(self.model, part, batch=s.batch, context=s.context, tokens=tokens, precision=precision)
            found = {"val/loss": result.loss, "val/bits_per_byte": result.bits_per_byte, "val/tokens": result.tokens}
            self._write(found)
        bits = result.bits_per_byte
        self.display.judged(bits)
        self.display.note(f"step {self.step}: validation {bits:.4f} bits/byte on {result.tokens:,} tokens")
        return result

    def _save(self) -> Path:
        """The checkpoint of this step, written by the first process unless it has been."""
        folder = self.directory.checkpoints
        if self.saved != self.step:
            with self._pause():
                made = self._checkpoint()
                if name := not_finite(made):
                    raise Diverged(f"{name} is not finite after step {self.step}, and no checkpoint of it is made")
                if self.processes.first:
                    assert self.metrics is not None
                    self.metrics.sync()
                    checkpoint.save(folder, self.step, made, self.options.keep)
            self.saved = self.step
        return folder / checkpoint.name_of(self.step)

    def _checkpoint(self) -> Checkpoint:
        optimiser = {name: value for level in self.levels for name, value in level.tensors().items()}
        outlives = bool(getattr(self.model, "streams", ())) and self.state is not None  # the step it was made in
        scalars = {
            "step": self.step,
            "tokens": self.step * self.settings.tokens,
            "updates": {level.name: level.count for level in self.levels},
            "fires": dict(getattr(self.model, "fires", {})),
            "levels": {level.name: level.last() for level in self.levels},
            **checkpoint.random_states(self.device),
            "losses": [float(loss) for loss in self.losses],
            "loss": self.loss if math.isfinite(self.loss) else None,
            "not_finite": self.guard.count,
            "rows": len(self.metrics.rows) if self.metrics else 0,
            "training": self.training,
            "seconds": time.perf_counter() - self.began,
        }
        state = self.processes.all_rows(self.state) if outlives else {}
        return Checkpoint(self.model.state_dict(), optimiser, state, scalars)

    def _write(self, values: dict[str, float]) -> None:
        if self.metrics is not None:
            tokens = self.step * self.settings.tokens
            self.metrics.write(self.step, tokens, time.perf_counter() - self.began, values)
            if self.mirror is not None:
                self.mirror.write(self.metrics.rows[-1])

    @contextmanager
    def _pause(self) -> Iterator[None]:
        """Time in here does not count as training."""
        began = time.perf_counter()
        yield
        self.clock += time.perf_counter() - began

    # ---- the end ----------------------------------------------------------------------------------------------------

    def _finish(self) -> None:
        s = self.settings
        seen = self.step * s.tokens
        place = self._save()
        result = self._validate(s.validation_tokens)  # the last point of the curve: the same sequences as all before
        if (more := min(FINAL * s.validation_tokens, seen)) > s.validation_tokens:
            result = self._validate(more)
        if result is None:
            return
        self._draw()
        self.result = {
            "name": s.name,
            "run": str(self.directory.path),
            "checkpoint": str(place),
            "plot": str(self.directory.plot) if self.directory.plot.exists() else None,
            "parameters": self.parameters,
            "steps": self.step,
            "tokens": seen,
            "seconds": round(time.perf_counter() - self.began, 3),
            "tokens_per_s": round(seen / self.training, 1),
            "train_loss": self.loss,
            "val_loss": result.loss,
            "val_bits_per_byte": result.bits_per_byte,
            "val_tokens": result.tokens,
            "fires": self.fires(),
        }

    def _draw(self) -> None:
        assert self.metrics is not None
        try:
            title = f"{self.settings.name}, learning {self.text.source}"
            plot.loss(self.metrics.rows, self.directory.plot, title)
        except ModuleNotFoundError:
            self.display.note("no loss.png: drawing it needs matplotlib")

    def _inspect(self, error: Diverged) -> str:
        """Keep what the step was made of, and say where a number first stopped being finite."""
        lines = [f"step {self.running}: {error}"]
        if self.batch is not None and error.rank == self.processes.rank:
            state = self.state if getattr(self.model, "streams", ()) else None
            step = Step(self.model, self.batch, state, self.settings.precision, self.random)
            kept = {"step": self.step, "updates": {level.name: level.count for level in self.levels}, **self.random}
            lines += replay.keep(self.directory, step, self.levels, kept)
            lines.append(f"metrics are in {self.directory.metrics}")
        self.processes.largest(0)  # the others wait: a launcher ends all when one ends
        return "\n".join(lines)

    def __enter__(self) -> Run:
        self.stop.__enter__()
        self.flushed.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self.display.__exit__(kind, error, trace)
        self.flushed.__exit__(None, None, None)
        watch.end()
        message = "" if error is None else self._said(error)
        if message and not isinstance(error, Lost):
            summary.keep(message, self.status)
        if message and (self.processes.rank == getattr(error, "rank", 0) or isinstance(error, Lost)):
            alone = self.processes.first or not isinstance(error, Lost)  # all that are left say that one is lost
            summary.fail(message, self.status, self.options.json and alone)
        if self.metrics is not None:
            with suppress(OSError):  # of a disk that the message above speaks of
                if error is not None:
                    self._draw()
                self.metrics.close()
        if self.mirror is not None:
            self.mirror.close()
        if self.claimed is not None:
            os.close(self.claimed)
        if error is None:
            self.processes.leave()
            if self.result:
                self.status = summary.say(self.result, self.options.json)
        self.stop.__exit__(kind, error, trace)
        return error is None or bool(message)

    def _said(self, error: BaseException) -> str:
        """What a user reads of an error that ends the run, its status set; "" of one that is a fault of ours."""
        match error:
            case Lost() | Unsaved():
                self.status = error.status
                return f"{error}; {self._last()}"
            case RunError():
                self.status = error.status
                return self._inspect(error) if isinstance(error, Diverged) else str(error)
            case MemoryError() | RuntimeError() if short_of_memory(error):
                self.status = DATA_MISSING
                return f"not enough memory for {self.settings.name}: make sizes or run.batch smaller"
            case OSError():
                self.status = DATA_MISSING
                return f"{error.filename or self.directory.path}: {error.strerror or error}; {self._last()}"
            case KeyboardInterrupt():  # asked for twice
                self.status = INTERRUPTED
                return f"stopped at once in step {self.running}; {self._last()}"
        return ""

    def _last(self) -> str:
        """The checkpoint to go on from."""
        try:
            return f"the newest checkpoint is {checkpoint.newest(self.directory.checkpoints)}"
        except RunError:
            return "no checkpoint was written yet"
