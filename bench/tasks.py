"""Every shipped task, learned by a model that is known to solve it, at a size of minutes, beside chance and untrained.

    python bench/tasks.py                                            the settings of solvers.py, one after another
    python bench/tasks.py --tasks 's3,s5'                            those of some tasks
    python bench/tasks.py --tasks 'mqar(pairs=16)' --systems transformer,deltanet --steps 4000

With --systems every one of them learns every one of --tasks: width 64, two heads, two layers, batch 32, the spec's own
rate.  One thread.  A model that has not been trained is examined in the same way.  The command may be killed at any
moment: given again, it goes on with what is missing, and a run that was cut goes on from its last checkpoint.

Writes OUT/tasks.json (everything) and OUT/tasks.md (the table), with every run that is in WORK and what is recorded in
OUT/tasks.json already of others.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import facts
from solvers import SMALL, SOLVERS, Setting

from nlc.cli.exam import split
from nlc.spec import load_task, tasks
from runtime import data as texts
from runtime import exercise, program
from runtime.evaluate.tasks import Task
from runtime.evaluate.tasks.continual.lessons import How
from runtime.numerics import subnormals_flushed


def settings(chosen: str | None, systems: str | None, steps: int) -> Iterator[Setting]:
    """Those of solvers.py for the tasks chosen, by name; with systems, every one of them on every task."""
    names = tasks() if chosen is None else split(chosen)
    if systems is None:
        yield from (one for one in SOLVERS if one.task in names or one.task.partition("(")[0] in names)
    else:
        yield from (Setting(task, system, steps) for task in names for system in systems.split(","))


def row(of: Setting, folder: Path) -> dict[str, Any]:
    """A task learned by a system; what is in the folder already is not made again."""
    own = {path: value for path, value in of.sets.items() if value != str(SMALL.get(path))}
    words = re.findall(r"[A-Za-z0-9=]+", of.task)
    name = f"{'_'.join(words)}-{of.system}-{of.steps}"
    place = folder / (f"{name}-{hashlib.sha256(json.dumps(own).encode()).hexdigest()[:8]}" if own else name)
    written = place / "row.json"
    if written.exists():
        return dict(json.loads(written.read_text(encoding="utf-8")))
    command = [sys.executable, "-m", "nlc", "train", "--quiet", "--json", "--device", "cpu"]
    if (place / "lock.json").exists():
        command += ["--resume", str(place)]
    else:
        command += [of.spec, "--task", of.task, "--out", str(place), "--seed", "0"]
        command += ["--steps", str(of.steps)] if of.steps else []
        command += [part for key, value in of.sets.items() for part in ("--set", f"{key}={value}")]
    result = answered(command)
    examined = [sys.executable, "-m", "nlc", "eval", str(place), "--items", str(of.items), "--device", "cpu", "--json"]
    found = {
        "task": of.task, "system": of.system, "sets": of.sets, "steps": result["steps"], "items": of.items,
        "parameters": result["parameters"], "tokens": result["tokens"], "seconds": result["seconds"],
        "tests": answered(examined)["tasks"], "untrained": untrained(place, of), "place": facts.place(texts.load(None)),
    }  # fmt: skip
    written.write_text(json.dumps(found, indent=1), encoding="utf-8")
    return found


def answered(command: Sequence[str]) -> dict[str, Any]:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stdout}{done.stderr}")
    return dict(json.loads(done.stdout))


def untrained(place: Path, setting: Setting) -> float:
    """The accuracy of the same model before its first step, on the first test set."""
    made = program.load(place / "code")
    of = exercise.load(Task.read(load_task(setting.task).as_dict()))
    model, items, tokens = made.build(1), setting.items, made.settings.tokens
    with subnormals_flushed():
        if of.lessons is None:
            return exercise.examine(model, of, next(iter(of.task.tests)), items=items, tokens=tokens).share.accuracy
        last = of.lessons.tasks - 1
        known = of.lessons.known(model, range(last + 1), last, How(items, tokens))
    return sum(int(one.right_B.sum()) for one in known) / sum(int(one.asked_B.sum()) for one in known)


def with_recorded(rows: Sequence[dict[str, Any]], record: Path) -> list[dict[str, Any]]:
    """And those of `record` of other runs: settings of solvers.py as they are now, and what --systems asked for.

    Of two rows of one run, which a folder of an earlier time may hold, the later."""

    def run(of: Mapping[str, Any]) -> tuple[str, str, int, str, int]:
        return of["task"], of["system"], of["steps"], json.dumps(of["sets"], sort_keys=True), of["items"]

    known = [(one.task, one.system, one.sets, one.items) for one in SOLVERS]
    recorded = json.loads(record.read_text(encoding="utf-8"))["rows"] if record.exists() else ()
    plain = Setting("", "", 0)
    kept = [
        one for one in recorded
        if (one["task"], one["system"], one["sets"], one["items"]) in known
        or (one["sets"], one["items"]) == (plain.sets, plain.items)
    ]  # fmt: skip
    latest = {run(one): one for one in sorted((*kept, *rows), key=lambda one: str(one["place"]["date"]))}
    return sorted(latest.values(), key=run)


def rendered(rows: Sequence[Mapping[str, Any]], place: Mapping[str, Any]) -> str:
    columns = ("task", "system", "parameters", "steps", "seconds", "test", "right, learning on", "95 %", "learning off",
               "chance", "untrained", "solved at", "solved")  # fmt: skip
    lines = []
    for one in rows:
        for i, test in enumerate(one["tests"]):
            on, off = test["on"], test["off"]
            of_run = (one["task"], one["system"], f"{one['parameters']:,}", str(one["steps"]), f"{one['seconds']:.0f}")
            cells = [*(("",) * len(of_run) if i else of_run), test["test"], f"{on['accuracy']:.3f}"]
            cells += [f"{on['low']:.3f} to {on['high']:.3f}", f"{off['accuracy']:.3f}"]
            cells += [f"{test['chance']:.3g}", "" if i else f"{one['untrained']:.3f}"]
            solved = test["solved"]
            verdict = "" if solved is None else "yes" if on["accuracy"] >= solved else "no"
            lines.append([*cells, "" if solved is None else f"{solved:.2f}", verdict])
    sizes = ", ".join(f"`{name}` {value}" for name, value in SMALL.items())
    said = (
        f"{sizes}, rates as the specs say, and 512 items a test set, where [solvers.py](../solvers.py) says nothing "
        "else.  Solved is what reaches the accuracy that the task's file states.  What is in no shipped spec is in "
        "[systems](../systems).  Needles are hidden in the text below.  Before it learns, a model with tied embeddings "
        "says its own token again, which is right at the first place of parity, s3 and s5, and answers equal tokens "
        "alike, which gets fewer words right than guessing each letter."
    )
    return f"# Tasks\n\n{facts.table(columns, lines)}\n\n{said}\n\n{facts.said(place)}\n"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("bench/results"), help="folder of the table (%(default)s)")
    parser.add_argument("--work", type=Path, default=Path("build/bench/tasks"), help="folder of the runs")
    parser.add_argument("--tasks", help="some of them, with commas between; all otherwise")
    parser.add_argument("--systems", help="these, in place of those of solvers.py")
    parser.add_argument("--steps", type=int, default=2000, help="of each run, with --systems (%(default)s)")
    given = parser.parse_args(arguments)
    with facts.alone(given.work):
        for setting in settings(given.tasks, given.systems, given.steps):
            made = row(setting, given.work)
            first = made["tests"][0]
            said = f"{100 * first['on']['accuracy']:.1f} % right, untrained {100 * made['untrained']:.1f} %"
            print(f"{setting.task}, {setting.system}: {said}, chance {100 * first['chance']:.3g} %", file=sys.stderr)
        rows = [json.loads(path.read_text(encoding="utf-8")) for path in given.work.glob("*/row.json")]
        rows = with_recorded(rows, given.out / "tasks.json")
    place = facts.together([one["place"] for one in rows])
    facts.write(given.out / "tasks", {**place, "rows": rows}, rendered(rows, place))
    print(rendered(rows, place))
    return 0


if __name__ == "__main__":
    sys.exit(facts.ended(main))
