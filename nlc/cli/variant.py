"""One run of a search, in a process of its own: python -m nlc.cli.variant FOLDER PARENT.

FOLDER/request.json -> the variant is compiled, learns its task, is asked -> FOLDER/outcome.json.  Ends when the process
PARENT is gone.  What goes wrong in a way that is no surprise is an outcome; what the machine lacks ends it with a line
and the status of that; anything else ends it with a traceback.
"""

from __future__ import annotations

import errno
import io
import json
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlc.cli.common import Status, calm_threads, note

if TYPE_CHECKING:
    from runtime.evaluate.exam import Exam

POINTS = 100  # of a learning curve
LAST = 2_000  # characters of an error
ABOUT = ("low", "high", "answers", "items")  # how sure an accuracy is, and what it is of
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class Missing(Exception):
    """The machine lacks what any variant needs: data, a device, room on its disk."""


def main(arguments: Sequence[str]) -> int:
    folder, parent = Path(arguments[0]), int(arguments[1])
    threading.Thread(target=follow, args=(parent,), daemon=True).start()
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    part = folder / "outcome.json.part"
    try:
        told = learned(request, folder / "run")
        told["peak_memory"] = peak()
        part.write_text(json.dumps(told), encoding="utf-8")
        part.replace(folder / "outcome.json")
    except (Missing, OSError) as error:
        if isinstance(error, OSError) and error.errno not in FULL:
            raise
        with suppress(OSError):  # the log may be on the disk that is full
            note(str(error))
        return Status.MISSING
    return Status.DONE


def follow(parent: int) -> None:
    """End with the process that started this one."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os.killpg(os.getpid(), signal.SIGKILL)


def peak() -> int:
    """Bytes: the most resident memory this process had."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def learned(request: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The outcome of a request, but for its memory.  Raises Missing."""
    calm_threads()
    from nlc.cli.runs import TASK, start, write
    from nlc.spec import loads
    from nlc.target import Target
    from runtime.device import choose
    from runtime.directory import RunDirectory
    from runtime.errors import RunError, short_of_memory

    try:
        device = str(choose(request["device"]))
    except RunError as error:
        raise Missing(str(error)) from None
    spec = loads(request["text"], "the variant", request["set"])
    directory = RunDirectory(folder)
    write(spec, directory, Target.of(device))
    options = ["--out", str(folder), "--quiet", "--json", "--device", device, "--checkpoint-every", "0"]
    (directory.code / TASK).write_text(json.dumps(request["facts"]), encoding="utf-8")
    options += ["--task", str(directory.code / TASK)]
    options += ["--data", request["data"]] if request["data"] is not None and reads(request) else []
    said, errors = io.StringIO(), io.StringIO()
    with redirect_stdout(said), redirect_stderr(errors):
        status = start(directory.code, options, 1)
    told: dict[str, Any] = {"curve": curve(directory.metrics)}
    if status:
        why = errors.getvalue().strip()
        if status == Status.MISSING:
            raise Missing(why[-LAST:])
        kind = "not_finite" if directory.diverged.exists() else "crashed"
        kind = "overmemory" if short_of_memory(RuntimeError(why)) else kind
        return {**told, "status": kind, "error": why[-LAST:]}
    result = json.loads(said.getvalue())
    told |= {"status": "ok", "tokens": result["tokens"]}
    try:
        return {**told, **judged(request["task"], asked(request, folder, device))}
    except RunError as error:
        if error.status == Status.MISSING:
            raise Missing(str(error)) from None
        return {**told, "status": "crashed", "error": str(error)}


def reads(request: Mapping[str, Any]) -> bool:
    """Whether the search's data is for this task: others make their items themselves."""
    from runtime.evaluate.tasks import Task

    return Task.read(request["facts"]).reads


def asked(request: Mapping[str, Any], folder: Path, device: str) -> list[Exam]:
    from runtime.evaluate.exam import examine_run
    from runtime.evaluate.tasks import Task

    text = request["data"] if Task.read(request["facts"]).hides else None
    return examine_run(folder, [Task.read(request["facts"])], items=request["items"], text=text, device=device)


def judged(name: str, exams: Sequence[Exam]) -> dict[str, Any]:
    """Scores by name, their intervals, the answers told apart, and whatever else an exam says of itself."""
    scores: dict[str, float] = {}
    intervals: dict[str, tuple[float, float]] = {}
    maps: list[dict[str, Any]] = []
    details: dict[str, Any] = {}
    for i, exam in enumerate(exams):
        told = exam.as_dict()
        where = f"{name}[{exam.test}]" if i else name
        for learn in ("on", "off"):
            before = f"{where}." if learn == "on" else f"{where}.off."
            for key, value in told[learn].items():
                share = told[learn] if key == "accuracy" else value if isinstance(value, dict) else {}
                if "low" in share:
                    scores[before + key], intervals[before + key] = share["accuracy"], (share["low"], share["high"])
                elif isinstance(value, int | float) and key not in ABOUT:
                    scores[before + key] = value
                elif key == "by":
                    seen = {"test": exam.test, "context": exam.task.kind(exam.test).context, "learn": learn}
                    maps += [{**seen, "by": mark, "cells": list(cells(mark, found))} for mark, found in value.items()]
                elif key not in ABOUT:
                    details[before + key] = value
    return {"scores": scores, "intervals": intervals, "maps": maps, "details": details}


def cells(mark: str, found: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    for cell in found:
        yield {"at": cell[mark], **{key: cell[key] for key in ("accuracy", "low", "high", "answers")}}


def curve(metrics: Path) -> dict[str, list[float | None]]:
    """Loss of training and what was said of validations, by step; evenly chosen where there are many points."""
    if not metrics.exists():
        return {}
    rows = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    named = [name for name in dict.fromkeys(key for row in rows for key in row) if name.startswith(("train/", "val/"))]
    last = len(rows) - 1
    judged = [i for i, row in enumerate(rows) if any(name.startswith("val/") for name in row)]
    wanted = sorted({*judged[-POINTS:], *(round(i * last / (POINTS - 1)) for i in range(POINTS))}) if rows else []
    rows = [rows[i] for i in wanted]
    return {name: [row.get(name) for row in rows] for name in ("step", "tokens", *named)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
