"""Known truths, by searches: which memories recall, which track a state.  The shipped searches with fixed seeds.

    python bench/searches.py                       all of them, one after another: under an hour on two cores
    python bench/searches.py which-memory

Killed at any moment, the same command goes on.  Writes OUT/NAME.md and OUT/NAME.json: the table, the search, the place.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import facts

from nlc.bench import place as here
from nlc.variants.journal import read

OUT = Path("bench/results/searches")
SEARCHES = ("which-memory", "which-state")


def searched(name: str, folder: Path, jobs: int | None) -> list[dict[str, Any]]:
    """The journal of a search that is done."""
    command = [sys.executable, "-m", "nlc", "search", name, "--out", str(folder), "--device", "cpu"]
    command += ["--jobs", str(jobs)] if jobs else []
    if status := subprocess.run(command, stdout=subprocess.DEVNULL).returncode:
        raise SystemExit(status)
    return [dict(line) for line in read(folder)]


def rendered(name: str, folder: Path, records: Sequence[dict[str, Any]]) -> str:
    head, last = records[0], records[-1]
    table = (folder / "leaderboard.md").read_text(encoding="utf-8")
    place = here.place()
    machine, versions = place["machine"], place["versions"]
    said = (
        f"{last['runs']} runs, {last['seconds']:,.0f} s of processes in all. {place['date']}, {machine['processor']} "
        f"({machine['cores']} cores), Python {versions['python']}, torch {versions['torch']}, nlc {versions['nlc']} "
        f"({versions['commit'] or 'no checkout'})."
    )
    return f"# {name}\n\n{head['doc']}\n\n{table}\n{said}\n"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("searches", nargs="*", default=SEARCHES, help=f"some of them ({', '.join(SEARCHES)})")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the tables (%(default)s)")
    parser.add_argument("--work", type=Path, default=Path("build/bench/searches"), help="folder of the searches")
    parser.add_argument("--jobs", type=int, help="runs at a time; as many as there are cores")
    given = parser.parse_args(arguments)
    for name in given.searches:
        folder = given.work / name
        records = searched(name, folder, given.jobs)
        board = json.loads((folder / "leaderboard.json").read_text(encoding="utf-8"))
        facts.write(given.out / name, {**here.place(), "search": records[0], **board}, rendered(name, folder, records))
        print(rendered(name, folder, records))
    return 0


if __name__ == "__main__":
    sys.exit(main())
