"""Tasks learned in order by several architectures, beside what they must be read against: three seeds, equal sizes.

    python bench/continual.py                                     the stand-in and, with NLC_DATA, CLINC150 (10 x 15)
    python bench/continual.py --tasks class_incremental --seeds 1

A row is a system and a method: one task after another (naive), with some of each label read again (replay), all at once
in any order (joint), as `nlc continual` does it; hope also with its slow levels off; each with learning on and off at
test time.  The number to move is the gap: joint - naive, random order against task order.

All have as many parameters as hope, to the nearest that width and layers allow, and read equally many tokens.  One
thread; the rate is the spec's own.  The command may be killed at any moment: given again, it goes on with what is
missing, and a run that was cut goes on from its last checkpoint.

Writes OUT/continual.json (everything) and OUT/continual.md (the table), with what is recorded there already of other
tasks and systems, if at the same sizes.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import facts

import nlc
from nlc.cli.exam import number, split
from nlc.compile import build
from runtime import data as texts
from runtime.errors import USAGE, RunError
from runtime.evaluate.tasks.continual.measures import DEFINITIONS
from runtime.evaluate.tasks.continual.sources import ENVIRONMENT

SYSTEMS = ("transformer", "hope")  # hope with its slow levels off is a part of hope's
SIZES = {"sizes.width": 64, "sizes.heads": 2, "sizes.layers": 2, "run.batch": 16, "run.warmup": 40}
MEASURE = "hope"  # the system whose number of parameters the others are given
OWN = {  # what a system says beside; of hope periods that fit into a sequence of 32 to 96 bytes
    "hope": {
        "levels.titans.chunk": 16,
        "levels.cms.memories.fast.every": "16 tokens",
        "levels.cms.memories.mid.every": "32 tokens",
    },
}
TASKS = ("class_incremental", "clinc150(passes=3, context=64, whole=1)")
MEASURES = ("final", "average", "learning", "forgetting", "backward_transfer", "forward_transfer")
PLACE = ("date", "machine", "versions", "corpus")
WIDTHS, LAYERS = range(48, 97, 4), range(1, 7)  # among which a system of hope's size is looked for


def parameters(spec: str, chosen: Mapping[str, object]) -> int:
    graph = build(nlc.load(spec, set=dict(chosen)))
    assert graph.cost is not None
    return graph.cost.parameters


def sizes_of(system: str) -> dict[str, object]:
    """The width and the layers that give a system the nearest number of parameters; MEASURE has its own."""
    if system == MEASURE:
        return SIZES | OWN[MEASURE]
    goal, found = parameters(MEASURE, SIZES | OWN[MEASURE]), {}
    for width in WIDTHS:
        way = SIZES | OWN.get(system, {}) | {"sizes.width": width}
        one, two = (parameters(system, way | {"sizes.layers": layers}) for layers in (1, 2))
        found |= {(width, layers): one + (layers - 1) * (two - one) for layers in LAYERS}  # a layer more costs the same
    width, layers = min(found, key=lambda way: abs(found[way] - goal))
    return SIZES | OWN.get(system, {}) | {"sizes.width": width, "sizes.layers": layers}


def learned(system: str, task: str, given: argparse.Namespace) -> dict[str, Any]:
    """What `nlc continual` finds, which keeps what is finished."""
    place = given.work / re.sub(r"[^A-Za-z0-9=]+", "_", f"{task}-{system}-{given.items}-{given.replay}").strip("_")
    command = [sys.executable, "-m", "nlc", "continual", system, "--task", task, "--out", str(place), "--json"]
    command += ["--seeds", str(given.seeds), "--replay", str(given.replay), "--items", str(given.items)]
    command += ["--device", "cpu"]
    command += [part for key, value in sizes_of(system).items() for part in ("--set", f"{key}={value}")]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: status {done.returncode}\n{done.stdout}")
    return dict(json.loads(done.stdout))


def with_recorded(records: Sequence[dict[str, Any]], record: Path, given: argparse.Namespace) -> list[dict[str, Any]]:
    """And those of `record` of other tasks and systems that were made in the same way; each says where."""

    def run(of: Mapping[str, Any]) -> str:
        return json.dumps([of["task"]["name"], of["task"]["knobs"], of["spec"]], sort_keys=True)

    def alike(of: Mapping[str, Any]) -> bool:
        sizes = {name: str(value) for name, value in sizes_of(of["spec"]).items()}
        seeds = {len(row["seeds"]) for row in of["rows"]}
        return (of["replay"], of["items"], seeds, of["set"]) == (given.replay, given.items, {given.seeds}, sizes)

    written = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {"records": ()}
    before = [{"place": {name: written[name] for name in PLACE}, **one} for one in written["records"] if alike(one)]
    return list({run(one): one for one in (*before, *records)}.values())


def shown(measure: Mapping[str, float] | None, unit: str) -> str:
    if measure is None:
        return "-"
    spread = "" if measure["deviation"] is None else f" ± {number(measure['deviation'], unit)}"
    return number(measure["mean"], unit) + spread


def rendered(records: Sequence[Mapping[str, Any]], place: Mapping[str, Any], given: argparse.Namespace) -> str:
    columns = ("task", "system", "method", *(name.replace("_", " ") for name in MEASURES), "final, learning off",
               "parameters", "tokens")  # fmt: skip
    lines, gaps = [], []
    for record in records:
        finals: dict[str, dict[str, float]] = {}
        for row in record["rows"]:
            unit = row["seeds"][0]["on"]["unit"]
            system = record["spec"] + (", slow levels off" if row["system"] == "slow_off" else "")
            cells = [record["task"]["name"], system, row["method"]]
            cells += [shown(row["on"][name], unit) for name in MEASURES] + [shown(row["off"]["final"], unit)]
            lines.append([*cells, f"{row['parameters']:,}", f"{row['tokens']:,}"])
            finals.setdefault(system, {})[row["method"]] = row["on"]["final"]["mean"]
        for system, final in finals.items():
            gap, by_replay = final["joint"] - final["naive"], final["replay"] - final["naive"]
            share = f"{100 * by_replay / gap:.0f} %" if gap > 0 else "-"
            gaps.append([record["task"]["name"], system, number(gap, unit), number(by_replay, unit), share])
    meanings = "\n".join(f"- {name.replace('_', ' ')}: {meaning}" for name, meaning in DEFINITIONS.items())
    heads = ("task", "system", "gap: joint - naive", "replay - naive", "share of the gap")
    sizes = ", ".join(f"`{name}` {value}" for name, value in sizes_of(MEASURE).items())
    said = f"{given.seeds} seeds, mean ± standard deviation; {given.items} test items a task; {given.replay} texts "
    said += f"of each label are kept for replay. Hope: {sizes}; other systems as many parameters. Rates as specs say."
    parts = [
        "# Tasks in order",
        facts.table(columns, lines),
        facts.table(heads, gaps),
        meanings,
        said,
        facts.said(place),
    ]
    return "\n\n".join(parts) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("bench/results"), help="folder of the table (%(default)s)")
    parser.add_argument("--work", type=Path, default=Path("build/bench/continual"), help="folder of the runs")
    parser.add_argument("--tasks", default=",".join(TASKS), help="with commas between (%(default)s)")
    parser.add_argument("--systems", default=",".join(SYSTEMS), help="%(default)s")
    parser.add_argument("--seeds", type=int, default=3, help="of weights and order (%(default)s)")
    parser.add_argument("--replay", type=int, default=8, help="texts of a label that are kept (%(default)s)")
    parser.add_argument("--items", type=int, default=20, help="test items of each task (%(default)s)")
    given = parser.parse_args(arguments)
    records = []
    with facts.alone(given.work):
        for task in split(given.tasks):
            if task.startswith(("clinc150", "banking77", "dbpedia70")) and ENVIRONMENT not in os.environ:
                print(f"{task}: skipped, {ENVIRONMENT} is not set", file=sys.stderr)
                continue
            made = [learned(system, task, given) for system in given.systems.split(",")]
            records += [{"place": facts.place(texts.load(None)), **one} for one in made]
    records = with_recorded(records, given.out / "continual.json", given)
    if not records:
        raise RunError("no task was run, and none is recorded", USAGE)
    place = facts.together([one["place"] for one in records])
    markdown = rendered(records, place, given)
    facts.write(given.out / "continual", {"sizes": sizes_of(MEASURE), **place, "records": records}, markdown)
    print(markdown)
    return 0


if __name__ == "__main__":
    sys.exit(facts.ended(main))
