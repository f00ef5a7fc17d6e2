"""Every shipped task, learned by small models of some architectures: which of them solve which, beside chance.

    python bench/tasks.py                                            all of them, one after another: hours
    python bench/tasks.py --tasks 'mqar,s3' --systems transformer
    python bench/tasks.py --tasks 'mqar(pairs=16)' --steps 4000

Width 64, two heads, two layers, batch 32, one thread; the rate is the spec's own.  A model that has not been trained is
examined in the same way.  The command may be killed at any moment: given again, it goes on with what is missing, and a
run that was cut goes on from its last checkpoint.

Writes OUT/tasks.json (everything) and OUT/tasks.md (the table), with every run that is in WORK.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import facts

from nlc.cli.exam import split
from nlc.spec import load_task, tasks
from runtime import data as texts
from runtime import exercise, program
from runtime.evaluate.tasks import Task
from runtime.numerics import subnormals_flushed

SIZES = {"sizes.width": 64, "sizes.heads": 2, "sizes.layers": 2, "run.batch": 32, "run.warmup": 100}
SYSTEMS = "transformer,deltanet,gated_deltanet,linear_attention"
ITEMS = 512


def row(task: str, system: str, steps: int, folder: Path) -> dict[str, Any]:
    """A task learned by a system; what is in the folder already is not made again."""
    place = folder / f"{re.sub(r'[^A-Za-z0-9=]+', '_', task).strip('_')}-{system}-{steps}"
    written = place / "row.json"
    if written.exists():
        return dict(json.loads(written.read_text(encoding="utf-8")))
    command = [sys.executable, "-m", "nlc", "train", "--quiet", "--json", "--device", "cpu"]
    if (place / "lock.json").exists():
        command += ["--resume", str(place)]
    else:
        command += [system, "--task", task, "--out", str(place), "--steps", str(steps), "--seed", "0"]
        command += [part for key, value in SIZES.items() for part in ("--set", f"{key}={value}")]
    result = answered(command)
    examined = [sys.executable, "-m", "nlc", "eval", str(place), "--items", str(ITEMS), "--device", "cpu", "--json"]
    found = {
        "task": task, "system": system, "steps": steps, "parameters": result["parameters"], "tokens": result["tokens"],
        "seconds": result["seconds"], "tests": answered(examined)["tasks"], "untrained": untrained(place, task),
    }  # fmt: skip
    written.write_text(json.dumps(found, indent=1), encoding="utf-8")
    return found


def answered(command: Sequence[str]) -> dict[str, Any]:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stdout}{done.stderr}")
    return dict(json.loads(done.stdout))


def untrained(place: Path, task: str) -> float:
    """The accuracy of the same model before its first step, on the first test set."""
    made = program.load(place / "code")
    of = exercise.load(Task.read(load_task(task).as_dict()))
    with subnormals_flushed():
        how = {"items": ITEMS, "tokens": made.settings.tokens}
        return exercise.examine(made.build(1), of, next(iter(of.task.tests)), **how).share.accuracy


def rendered(rows: Sequence[Mapping[str, Any]], place: Mapping[str, Any]) -> str:
    columns = ("task", "system", "steps", "test", "right, learning on", "95 %", "learning off", "chance", "untrained",
               "solved at", "solved")  # fmt: skip
    lines = []
    for one in rows:
        for i, test in enumerate(one["tests"]):
            on, off = test["on"], test["off"]
            sure = f"{on['low']:.3f} to {on['high']:.3f}"
            cells = [one["task"], one["system"], str(one["steps"]), test["test"], f"{on['accuracy']:.3f}", sure]
            cells += [f"{off['accuracy']:.3f}", f"{test['chance']:.3g}", "" if i else f"{one['untrained']:.3f}"]
            solved = test["solved"]
            verdict = "" if solved is None else "yes" if on["accuracy"] >= solved else "no"
            lines.append([*cells, "" if solved is None else f"{solved:.2f}", verdict])
    sizes = ", ".join(f"`{name}` {value}" for name, value in SIZES.items())
    said = f"{sizes}; {ITEMS} items a test set; rates as the specs say. Needles are hidden in the text below."
    return f"# Tasks\n\n{facts.table(columns, lines)}\n\n{said}\n\n{facts.said(place)}\n"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("bench/results"), help="folder of the table (%(default)s)")
    parser.add_argument("--work", type=Path, default=Path("build/bench/tasks"), help="folder of the runs")
    parser.add_argument("--tasks", default=",".join(tasks()), help="some of them, with commas between; all otherwise")
    parser.add_argument("--systems", default=SYSTEMS, help="%(default)s")
    parser.add_argument("--steps", type=int, default=2000, help="of each run (%(default)s)")
    given = parser.parse_args(arguments)
    with facts.alone(given.work):
        for task in split(given.tasks):
            for system in given.systems.split(","):
                made = row(task, system, given.steps, given.work)
                first = made["tests"][0]
                said = f"{100 * first['on']['accuracy']:.1f} % right, untrained {100 * made['untrained']:.1f} %"
                print(f"{task}, {system}: {said}, chance {100 * first['chance']:.3g} %", file=sys.stderr, flush=True)
        rows = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(given.work.glob("*/row.json"))]
    place = facts.place(texts.load(None))
    facts.write(given.out / "tasks", {"sizes": SIZES, "items": ITEMS, **place, "rows": rows}, rendered(rows, place))
    print(rendered(rows, place))
    return 0


if __name__ == "__main__":
    sys.exit(main())
