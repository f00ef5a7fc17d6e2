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

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import Tensor, nn

from runtime import checkpoint, device, ends, learned, mirror, probe, replay, resume, settings, summary
from runtime.allocator import keep_freed_memory
from runtime.asked import SAVE, Asked, obey
from runtime.batches import Batch, Crops, Lanes
from runtime.checkpoint import Checkpoint
from runtime.cuda_graphs import CudaGraphs, on_own_stream
from runtime.data import Data, Text
from runtime.directory import RunDirectory, environment, fresh
from runtime.diverge import Step
from runtime.errors import DATA_MISSING, Diverged, Interrupted, Lost, Preempted, RunError
from runtime.evaluate.loss import Result
from runtime.exercise import Examined, Exercise
from runtime.finite import Guard, not_finite
from runtime.level import Level
from runtime.numerics import subnormals_flushed
from runtime.ops import watch
from runtime.precision import autocast
from runtime.processes import Processes
from runtime.progress import Report, display
from runtime.record import Record
from runtime.recordings import Recordings
from runtime.schedule import due
from runtime.settings import Settings
from runtime.signals import Stop
from runtime.state import settled

FINAL = 16  # times the tokens of a validation on the way are read at the end


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
        self.asked = Asked(self.stop, self.options.time_limit, self.options.checkpoint_seconds, self.processes.joined)
        self.flushed = subnormals_flushed()
        self.status = 0
        self.result: dict[str, Any] = {}
        self.batch: Batch | None = None  # the last one given out
        self.recordings = self._cuda_graphs()
        self.stream = on_own_stream(self.recordings)
        self.ends: frozenset[int] = frozenset()  # steps after which one of several tasks is over
        self.claimed: int | None = None  # a handle of the directory, in the process that writes it
        self.record = Record(self.settings.tokens, self.processes)
        self.diverged = replay.stopped(self.directory.diverged)  # before it was resumed, at a step still to come
        self.state: Any = None  # what the last step left
        self.step = 0  # steps done
        self.running = 0  # the step that is running, from 1
        self.saved = -1  # steps done at the last checkpoint

    # ---- before the first step --------------------------------------------------------------------------------------

    def _cuda_graphs(self) -> Recordings | None:
        """What records the steps of this run, where it is asked to and can."""
        if not self.options.cuda_graphs:
            return None
        if self.device.type != "cuda":
            self._warn(f"warning: --cuda-graphs is for a GPU: on {self.device} steps are run as always")
            return None
        return CudaGraphs(lambda line: self._warn(f"warning: {line}"))

    def _taped(self) -> Recordings | None:
        """What compiles or repeats the steps of this run.  Raises RunError where nothing can be compiled."""
        if not (self.options.compile or self.options.tape):
            return self.recordings
        from runtime.compiled import Compiled, Repeated, refusal  # torch's compiler takes seconds to import

        if self.options.compile and (why_not := refusal()):
            raise RunError(why_not, DATA_MISSING)
        kind = Compiled if self.options.compile else Repeated
        return kind(lambda line: self._warn(f"warning: {line}"), self.display.note, apart=self.record.pause)

    def data(self) -> Data | Exercise:
        """The text to learn from, or the task, checked against the settings.  Raises DataError."""
        o, note = self.options, self.display.note
        begun = self.directory.read_lock().get("data", {}) if o.resume else {}
        if begun and not (o.data or o.field or o.tokenizer or o.pack or o.task):
            self.text = learned.again(begun, self.directory.path, note)
        else:
            self.text = learned.load(o, begun, self.settings.vocab, note)
        learned.check(self.text, self.settings.context, self.settings.vocab)
        self.ends = learned.ends(self.text, self.settings)
        self.bytes_per_token = self.text.bytes_per_token
        self.display.note(str(self.text))
        return self.text

    def crops(self, text: Text | Exercise) -> Iterator[Batch]:
        """(tokens_BT, targets_BT, starts_BT) of every step: sequences from random places."""
        return self._batches(Crops, text)

    def lanes(self, text: Text | Exercise) -> Iterator[Batch]:
        """(tokens_BT, targets_BT, starts_BT) of every step: sequences that go on where those of the last one ended."""
        return self._batches(Lanes, text)

    def _batches(self, kind: type[Crops | Lanes], text: Text | Exercise) -> Iterator[Batch]:
        s, p = self.settings, self.processes
        source = learned.batches(kind, text, s, s.seed, p.rank, p.count)
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
            if self.recordings is not None:
                self.recordings.on = not self._logs(self.running)
            yield self.step
        taped = self.options.compile or self.options.tape
        if taped and self.running and self.recordings is not None and not self.recordings.asked:
            self._warn(f"warning: {self.recordings.name}: no step was recorded, since steps that log are run as always")
        self._finish()

    def _begin(self, model: nn.Module, levels: Sequence[Level]) -> None:
        self.model, self.levels = model, list(levels)
        self.recordings = self._taped()
        model.recordings = self.recordings  # type: ignore[assignment]
        self.parameters = sum(p.numel() for p in model.parameters())
        for level in self.levels:
            level.processes = self.processes
        place = self.processes.led(self._claim)
        scalars = self._resume(Path(place)) if place else {}
        self.processes.led(lambda: self._open(place, scalars.get("rows", 0)))
        size = f"{self.parameters:,} parameters, {self.settings.tokens:,} tokens a step"
        self.display.note(f"{self.settings.name}: {size}, in {self.directory.path}")
        if self.step:
            self.display.note(f"going on after step {self.step}")
        self.display.__enter__()
        self.record.start(self.step, scalars.get("seconds", 0.0))

    def _claim(self) -> str:
        """The checkpoint that the run goes on from, "" for its beginning.  Refused where it is not this run's to do."""
        if self.options.tensorboard:
            mirror.library()  # or an end before anything is written
        self.claimed = self.directory.claim()
        if not self.options.resume:
            return ""
        if not self.options.allow:
            lock = self.directory.read_lock()
            resume.refuse(self.directory.path, resume.differences(lock, self._facts()))
        place = resume.newest(self.directory, self._warn)
        if place is None:
            self.display.note("no checkpoint was written yet: going on from the beginning")
        return str(place or "")

    def _resume(self, place: Path) -> dict[str, Any]:
        """Everything as it was at a checkpoint; its scalars."""
        found = checkpoint.read(place)
        resume.restore(found, place, self.model, self.levels)
        scalars = found.scalars
        self.step = self.saved = scalars["step"]
        self.state = device.moved(self.processes.rows(found.state), self.device) if found.state else None
        self.guard.count = scalars.get("not_finite", 0)
        self.record.restore(scalars, self.device)
        return scalars

    def _open(self, place: str, rows: int) -> str:
        """What the run is from here on, on the disk: nothing has changed there before, and nothing is refused after."""
        directory = self.directory
        if not self.options.resume:
            directory.begin(self.package)
            if self.text.tokenizer is not None:
                self.text.tokenizer.keep(directory.path)
            directory.write_lock(self._facts())
        self.record.open(directory, rows, self.step, mirrored=self.options.tensorboard, lenient=self.options.allow)
        if self.options.resume:
            lock = directory.read_lock()
            if place:
                checkpoint.go_back_to(Path(place), self._warn)
            directory.adopt(self.package)
            elsewhere = (lock.get("environment"), lock.get("device")) != (environment(), device.name_of(self.device))
            if elsewhere or resume.differences(lock, self._facts()):
                directory.write_lock(self._facts(), {"step": self.step, "before": lock})
        return ""

    def _warn(self, message: str) -> None:
        if self.processes.first:
            print(message, file=sys.stderr)

    def _facts(self) -> dict[str, Any]:
        return resume.facts(self.settings, self.directory, self.package, self.device, self.text)

    # ---- at the end of every step -----------------------------------------------------------------------------------

    def autocast(self) -> AbstractContextManager[Any]:
        """What `run.precision` makes of a forward pass."""
        return autocast(self.settings.precision, self.device)

    def backward(self, loss: Tensor, state: Any = None) -> None:
        """The gradients of a step, and what --on-nan says where one is not finite.  `state`: of streams."""
        try:
            self.guard.backward(loss, self.levels, state)
        finally:
            if self.recordings is not None:
                self.recordings.on = False
        if self.guard.bad:
            self.display.note(f"step {self.running}: {self.guard.said}: {self.guard.policy}ped")  # skipped, clipped

    def report(self, loss: Tensor, state: Any = None) -> None:
        """Count the step; log, validate and save when it is time; stop if a signal asked for it.

        Nothing here waits for the device, unless the step logs.
        """
        s = self.settings
        self.step += 1
        seen = watch.end()
        if state is not None and bool(getattr(self.model, "streams", False)):
            state = settled(state)  # as it will be after a resume
        before, self.state = self.state, self.state if self.guard.lost else state
        self.record.losses += [] if self.guard.bad else [loss.detach()]
        if self.diverged and self.step >= self.diverged.step and self.processes.first:
            replay.set_aside(self.directory, self.diverged)
            self.diverged = None
        if self._logs(self.step):
            self._log(self._inside(seen, before))
        if self.step == s.steps:  # `steps` does the rest
            return
        if due(self.step, s.validate_every):
            self._validate(s.validation_tokens)
        asked = self.processes.largest(self._asked())
        if asked or due(self.step, s.checkpoint_every) or self.step in self.ends:
            place = self._save()
            if asked > SAVE:
                obey(asked, f"after step {self.step}; saved in {place}")

    def _asked(self) -> int:
        return self.asked.now()

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
        with self.record.pause():
            return probe.look(seen, self.model, *self.batch, state if getattr(self.model, "streams", ()) else None)

    def _log(self, inside: dict[str, float]) -> None:
        """A row of metrics and the display, from the steps since the last row, none where no loss was finite; `inside`:
        what a look inside found."""
        counts: dict[str, float] = {f"level/{name}/fires": count for name, count in self.fires().items()}
        counts |= {f"train/{self.guard.policy}ped": self.guard.count} if self.guard.count else {}
        record, steps = self.record, self.settings.steps
        speed = record.row(self.step, self.state, self.levels, counts | inside)
        if speed is None:
            return
        for warning in record.warnings(self.levels):
            self._warn(f"warning: step {self.step}: {warning}")
        left = (steps - self.step) * record.training / self.step
        self.display.update(Report(self.step, steps, record.loss, speed, left, self.bytes_per_token, self.text.unit))
        record.next_row(self.step)

    def fires(self) -> dict[str, int]:
        """Updates of every level so far, as the model and the levels count them."""
        inside: dict[str, int] = getattr(self.model, "fires", {})
        return {**inside, **{level.name: level.count for level in self.levels}}

    def _validate(self, tokens: int, between: Callable[[], None] = lambda: None) -> Result | Examined | None:
        """The loss on text that is not trained on, by the first process."""
        if not self.processes.first:
            return None
        with self.record.pause():
            result = learned.judge(self.model, self.text, self.settings, tokens, between)
            self.record.write(self.step, result.metrics())
        self.display.judged(result.brief)
        self.display.note(f"step {self.step}: validation {result}")
        return result

    def _save(self) -> Path:
        """The checkpoint of this step, written by the first process unless it has been."""
        if self.saved != self.step:
            with self.record.pause():
                made = self._checkpoint()
                if name := not_finite(made):
                    raise Diverged(f"{name} is not finite after step {self.step}, and no checkpoint of it is made")
                self.processes.led(lambda: self._put(made))  # the others wait, and may end when it is there
            self.saved, self.asked.saved = self.step, time.perf_counter()
        return self.directory.checkpoints / checkpoint.name_of(self.step)

    def _put(self, made: Checkpoint) -> str:
        assert self.record.metrics is not None
        self.record.metrics.sync()
        place = checkpoint.save(self.directory.checkpoints, self.step, made, self.options.keep)
        self.directory.note_saved(self.step)
        return str(place)

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
            "not_finite": self.guard.count,
            **self.record.scalars(),
        }
        state = self.processes.all_rows(self.state) if outlives else {}
        return Checkpoint(self.model.state_dict(), optimiser, state, scalars)

    # ---- the end ----------------------------------------------------------------------------------------------------

    def _finish(self) -> None:
        s = self.settings
        seen = self.step * s.tokens
        place = self._save()
        result = self._validate(s.validation_tokens, self._heed)  # the last of the curve: the same sequences as before
        if result is None:
            return
        more = min(FINAL * s.validation_tokens, seen)
        before, after = (learned.sequences(self.text, n, s.context) for n in (s.validation_tokens, more))
        if after > before:
            result = self._validate(more, self._heed) or result
        self._draw()
        self.result = {
            "name": s.name,
            "run": str(self.directory.path),
            "checkpoint": str(place),
            "plot": str(self.directory.plot) if self.directory.plot.exists() else None,
            "parameters": self.parameters,
            "steps": self.step,
            "tokens": seen,
            "seconds": round(self.record.seconds, 3),
            "tokens_per_s": round(seen / self.record.training, 1),
            "train_loss": self.record.loss,
            **result.result(),
            "fires": self.fires(),
        }

    def _heed(self) -> None:
        """Between the batches of the last validation: --resume makes up for it."""
        if asked := self.asked.end():
            place = self.directory.checkpoints / checkpoint.name_of(self.saved)
            obey(asked, f"before the last validation; saved in {place}")

    def _draw(self) -> None:
        title = f"{self.settings.name}, learning {self.text.source}"
        if not self.record.draw(self.directory, title, self.bytes_per_token, self.text.unit):
            self.display.note("no loss.png: drawing it needs matplotlib")

    def _said(self, error: BaseException) -> str:
        message, self.status = ends.told(error, self.directory, self.settings.name, self.running)
        return self._inspect(error) if isinstance(error, Diverged) else message

    def _inspect(self, error: Diverged) -> str:
        """Keep what the step was made of, and say where a number first stopped being finite."""
        lines = [f"step {self.running}: {error}"]
        if self.batch is not None and error.rank == self.processes.rank:
            state = self.state if getattr(self.model, "streams", ()) else None
            step = Step(self.model, self.batch, state, self.settings.precision, self.random)
            kept = {"step": self.step, "updates": {level.name: level.count for level in self.levels}, **self.random}
            lines += replay.keep(self.directory, step, self.levels, kept, replay.Stopped(self.running, str(error)))
            lines.append(f"metrics are in {self.directory.metrics}")
        self.processes.largest(0)  # the others wait: a launcher ends all when one ends
        return "\n".join(lines)

    def __enter__(self) -> Run:
        self.stop.__enter__()
        self.flushed.__enter__()
        self.stream.__enter__()
        keep_freed_memory()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self.display.__exit__(kind, error, trace)
        self.stream.__exit__(kind, error, trace)
        self.flushed.__exit__(None, None, None)
        watch.end()
        message = "" if error is None else self._said(error)
        if message and not isinstance(error, Lost):
            summary.keep(message, self.status)
        if message and (self.processes.rank == getattr(error, "rank", 0) or isinstance(error, Lost)):
            alone = self.processes.first or not isinstance(error, Lost)  # all that are left say that one is lost
            summary.fail(message, self.status, self.options.json and alone)
        with suppress(OSError):  # of a disk that the message above speaks of
            if error is not None and self.record.metrics is not None:
                self._draw()
        self.record.close()
        if self.claimed is not None:
            os.close(self.claimed)
        if error is None or message:
            self.processes.leave(together=error is None or isinstance(error, (Interrupted, Preempted)))
        if error is None and self.result:
            self.status = summary.say(self.result, self.options.json)
        self.stop.__exit__(kind, error, trace)
        return error is None or bool(message)
