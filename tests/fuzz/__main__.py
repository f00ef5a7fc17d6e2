"""The long run: thousands of legal and illegal programs, each in a process with a limit on time and memory.

    python -m tests.fuzz                        5,000 of each, 1,000 bare ones and of objectives; goes on where its
                                                journal ends, and checks again what failed
    python -m tests.fuzz --mutations            2,000 mutants of hope in their place, to bench/results/mutations
    python -m tests.fuzz --again legal 17       one program again, as text and verdict
    python -m tests.fuzz --report               the counts so far, to bench/results/fuzz

The journal has one line of JSON for each program, and is only ever appended to; of one checked again the last counts.
A seed means the same program everywhere.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

from tests.fuzz.mutation_report import mutation_report
from tests.fuzz.report import report
from tests.fuzz.worker import DRAWN, judged, made

ROOT = Path(__file__).parents[2]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Programs nobody wrote, checked.")
    parser.add_argument("--legal", type=int, default=5000, help="programs of tokens")
    parser.add_argument("--layer", type=int, default=1000, help="bare programs")
    parser.add_argument("--illegal", type=int, default=5000, help="legal programs with one thing broken")
    parser.add_argument("--objective", type=int, default=1000, help="programs about the objectives of memories")
    parser.add_argument(
        "--mutations", type=int, nargs="?", const=2000, default=0, help="mutants of hope, and none of the others"
    )
    parser.add_argument("--journal", type=Path, help="a folder (build/fuzz, build/mutations)")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=300, help="for one program")
    parser.add_argument("--megabytes", type=int, default=6000, help="of address space for one process")
    parser.add_argument("--minutes", type=float, default=1e9, help="for all; the next run goes on")
    parser.add_argument("--report", action="store_true", help="write bench/results/fuzz from the journal and end")
    parser.add_argument("--again", nargs=2, metavar=("KIND", "SEED"), help="one program")
    asked = parser.parse_args()
    asked.journal = asked.journal or ROOT / "build" / ("mutations" if asked.mutations else "fuzz")
    return asked


def main() -> int:
    asked = arguments()
    if asked.again:
        kind, seed = asked.again[0], int(asked.again[1])
        print(made(kind, seed).text)
        line = judged(kind, seed, None)
        print(json.dumps({k: v for k, v in line.items() if k != "text"}, indent=1))
        return 0 if line["ok"] else 3
    if not asked.report:
        run(asked)
    results = ROOT / "bench" / "results"
    if asked.mutations:
        return mutation_report(read(asked.journal), results / "mutations")
    return report(read(asked.journal), results / "fuzz")


def read(folder: Path) -> list[dict[str, Any]]:
    """The journal; a last line that was cut off is no line."""
    path = folder / "journal.jsonl"
    found = {}
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            line = json.loads(text)
        except ValueError:
            continue
        found[line["kind"], line["seed"]] = line
    return list(found.values())


def waiting(asked: argparse.Namespace) -> Iterator[tuple[str, int]]:
    """What is still to be checked, and what failed, the kinds in turn."""
    done = {(line["kind"], line["seed"]) for line in read(asked.journal) if line["ok"]}
    counts = {"mutation": asked.mutations} if asked.mutations else {kind: getattr(asked, kind) for kind in DRAWN}
    total = max(counts.values(), default=0)
    for i in range(total):
        for kind, count in counts.items():
            seeds = range(i * count // total, (i + 1) * count // total)
            yield from ((kind, seed) for seed in seeds if (kind, seed) not in done)


def run(asked: argparse.Namespace) -> None:
    """Feed the workers until nothing waits or time is up."""
    asked.journal.mkdir(parents=True, exist_ok=True)
    left, until = deque(waiting(asked)), monotonic() + 60 * asked.minutes
    workers = [Worker(i, asked.megabytes) for i in range(asked.jobs)]
    with (asked.journal / "journal.jsonl").open("a", encoding="utf-8") as journal:
        try:
            while (left and monotonic() < until) or any(w.task for w in workers):
                for worker in workers:
                    if worker.task is None and left and monotonic() < until:
                        worker.give(*left.popleft(), asked.seconds)
                ready, _, _ = select.select([w.out for w in workers if w.task], [], [], 1.0)
                for worker in workers:
                    line = worker.answer(worker.out in ready)
                    if line is not None:
                        journal.write(json.dumps(line) + "\n")
                        journal.flush()
                        if not line["ok"]:
                            saved(line, asked.journal / "failed")
        finally:
            for worker in workers:
                worker.end()


def saved(line: dict[str, Any], folder: Path) -> None:
    """A failure as a spec, with what is wrong in front."""
    folder.mkdir(exist_ok=True)
    said = f"{line['message']}\n{line.get('fed', '')}\nseed {line['seed']}"
    comment = "".join(f"# {text}\n" for text in said.split("\n"))
    (folder / f"{line['kind']}-{line['seed']}.yaml").write_text(comment + line.get("text", ""), encoding="utf-8")
    print(f"{line['kind']} {line['seed']}: {line['message'].splitlines()[0]}", file=sys.stderr, flush=True)


class Worker:
    """A process, started again when a program takes too long or ends it."""

    def __init__(self, number: int, megabytes: int) -> None:
        self.number, self.megabytes, self.task = number, megabytes, None
        self.start()

    def start(self) -> None:
        environment = {**os.environ, "PYTHONHASHSEED": str(self.number), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-W", "ignore", "-m", "tests.fuzz.worker", str(self.megabytes)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT,
            process_group=0,
        )  # fmt: skip
        self.out = self.process.stdout

    def give(self, kind: str, seed: int, seconds: float) -> None:
        assert self.process.stdin
        self.task: tuple[str, int] | None = (kind, seed)
        self.seconds, self.until = seconds, monotonic() + seconds
        self.process.stdin.write(f"{kind} {seed}\n")
        self.process.stdin.flush()

    def answer(self, ready: bool) -> dict[str, Any] | None:
        """The line of the program in work, once there is one."""
        if self.task is None:
            return None
        text = self.process.stdout.readline() if ready and self.process.stdout else ""
        if not text and not ready and monotonic() < self.until:
            return None
        kind, seed = self.task
        self.task = None
        if text:
            found: dict[str, Any] = json.loads(text)
            return found
        why = "the process ended" if ready else f"not done after {self.seconds:.0f} s"
        self.end()
        self.start()
        return {"kind": kind, "seed": seed, "ok": False, "claim": "ended" if ready else "time", "message": why,
                "text": made(kind, seed).text}  # fmt: skip

    def end(self) -> None:
        """End the process and its twin, which share a group of their own."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, 9)
        self.process.wait()


if __name__ == "__main__":
    sys.exit(main())
