"""A model that goes on learning from one endless stream: the memory it takes, and the norm of every memory.

    python bench/stream.py                                    a small hope is trained first
    python bench/stream.py --run runs/mine --tokens 100000    a run of one's own

Text is read in pieces of 256 to 1,024 tokens; every --every tokens some are generated one at a time, which the model
learns from too.  One process, one state, never begun anew; learning is on.  The small hope's continuum has retention
towards its start, since its stream has no end.

Writes OUT.json and OUT.md; the status is 3 where resident memory is not flat or a norm is not bounded.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # threads sleep soon: read when torch is imported

import facts
import torch
from torch import Tensor

from runtime import data as texts
from runtime.errors import RunError
from runtime.metrics import norms
from runtime.numerics import subnormals_flushed
from runtime.session import Session, Surprise, find

SPEC = "hope"
SMALL = {
    "sizes.width": "64",
    "sizes.layers": "2",
    "levels.cms.retain": "0.999",
    "levels.cms.retain_to": "start",
    "run.warmup": "30",
}
FIRST = 10_000  # tokens after which everything has been allocated once
FLAT = 0.02  # the share by which resident memory may grow after that
BOUNDED = 10.0  # times its norm after FIRST tokens that a memory's norm may reach
UNMET = 3


def small(work: Path, steps: int) -> Path:
    """The run of a small hope, trained unless it is there."""
    run = work / f"run-{steps}"
    if not (run / "checkpoints" / "latest").exists() or not (run / "loss.png").exists():
        sets = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]
        command = [sys.executable, "-m", "nlc", "train", SPEC, "--steps", str(steps), "--out", str(run), *sets]
        if (run / "lock.json").exists():
            command = [sys.executable, "-m", "nlc", "train", "--resume", str(run)]
        if subprocess.run(command, check=False, stdout=sys.stderr).returncode:
            raise RunError(f"the small {SPEC} could not be trained in '{run}'")
    return run


def resident() -> int:
    """Bytes of this process in memory, without what its allocator keeps back to give out again."""
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def pieces(text: Tensor, draw: torch.Generator) -> Iterator[Tensor]:
    """The text from its beginning, again and again, in pieces of 256 to 1,024 tokens."""
    at = 0
    while True:
        length = int(torch.randint(256, 1025, (), generator=draw))
        piece = text[at : at + length].long()
        at = at + length if at + length < len(text) else 0
        yield piece


def stream(session: Session, text: Tensor, tokens: int, every: int, generated: int) -> list[dict[str, Any]]:
    """Read and generate until `tokens` have gone through; a row after 1,000, after FIRST and every `every`."""
    draw, rows, marks = torch.Generator().manual_seed(0), [], [1_000, FIRST, *range(every, tokens, every), tokens]
    source, began = pieces(text, draw), time.perf_counter()
    for mark in sorted({mark for mark in marks if mark <= tokens}):
        found = Surprise()
        while session.tokens < mark - generated:
            found += session.read(next(source)[: mark - generated - session.tokens], piece=1024)
        start = time.perf_counter()
        for _ in session.generate(mark - session.tokens):
            pass
        step = (time.perf_counter() - start) / generated
        assert session.stream.state is not None
        rows.append({
            "tokens": session.tokens,
            "seconds": round(time.perf_counter() - began, 1),
            "resident_bytes": resident(),
            "bits_per_token": found.bits,
            "ms_a_generated_token": 1e3 * step,
            "norms": norms(session.stream.state),
        })  # fmt: skip
        print(told(rows[-1]), file=sys.stderr, flush=True)
    return rows


def told(row: Mapping[str, Any]) -> str:
    held = "  ".join(f"{name} {norm:.3g}" for name, norm in row["norms"].items())
    memory, bits = f"{row['resident_bytes'] / 2**20:.1f} MiB", f"{row['bits_per_token']:.3f} bits"
    return f"{row['tokens']:>9,}  {memory}  {bits}  {row['ms_a_generated_token']:.1f} ms  {held}"


def judged(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the rows say of the two claims, from FIRST tokens on."""
    settled = [row for row in rows if row["tokens"] >= FIRST]
    first, most = settled[0], max(row["resident_bytes"] for row in settled)
    growth = {name: max(row["norms"][name] for row in settled) / norm for name, norm in first["norms"].items()}
    return {
        "resident_growth": settled[-1]["resident_bytes"] / first["resident_bytes"] - 1,
        "resident_growth_at_most": most / first["resident_bytes"] - 1,
        "norm_growth_at_most": growth,
        "flat": most <= (1 + FLAT) * first["resident_bytes"],
        "bounded": all(times <= BOUNDED for times in growth.values()),
    }


def run(given: argparse.Namespace) -> tuple[str, bool]:
    torch.set_num_threads(given.threads)
    folder = given.run or small(given.work, given.steps)
    trained = find(folder)
    text = texts.again(trained.facts.get("data", {}), run=trained.package.parent)
    session = Session(trained)
    with subnormals_flushed():
        rows = stream(session, text.train.tokens, given.tokens, given.every, given.generated)
    state = session.stream.state
    assert state is not None
    record = {
        "measures": f"{trained.settings.name} reading and writing one stream of {given.tokens:,} tokens, learning on",
        **facts.place(text),
        "set": {} if given.run else dict(SMALL),
        "steps_trained": None if given.run else given.steps,
        "parameters": sum(p.numel() for p in trained.model.parameters()),
        "state_bytes": sum(x.numel() * x.element_size() for parts in state.values() for x in parts.values()),
        "threads": given.threads,
        "generated_tokens": given.generated * len(rows),
        **judged(rows),
        "rows": rows,
    }
    markdown = rendered(record)
    facts.write(given.out, record, markdown)
    return markdown, record["flat"] and record["bounded"]


def rendered(record: Mapping[str, Any]) -> str:
    rows = record["rows"]
    shown = [row for i, row in enumerate(rows) if row["tokens"] <= FIRST or i % max(1, len(rows) // 10) == 0]
    shown += [] if shown[-1] is rows[-1] else [rows[-1]]
    names = list(rows[-1]["norms"])
    lines = [
        [f"{row['tokens']:,}", f"{row['resident_bytes'] / 2**20:.1f}", f"{row['ms_a_generated_token']:.1f}",
         f"{row['bits_per_token']:.3f}", *(f"{row['norms'][name]:.4g}" for name in names)]
        for row in shown
    ]  # fmt: skip
    columns = ["tokens", "resident, MiB", "ms a generated token", "bits a token", *(f"norm of {n}" for n in names)]
    growth = f"{100 * record['resident_growth']:+.2f} % at the end, {100 * record['resident_growth_at_most']:+.2f} %"
    most = max(record["norm_growth_at_most"].items(), key=lambda item: item[1])
    sets = ", ".join(f"{key}={value}" for key, value in record["set"].items())
    return (
        f"# {record['measures'][0].upper()}{record['measures'][1:]}\n\n"
        f"{facts.table(columns, lines)}\n\n"
        f"Resident memory against that after {FIRST:,} tokens: {growth} at most "
        f"({'flat' if record['flat'] else 'not flat'} within {100 * FLAT:g} %). "
        f"No memory's norm is ever more than {most[1]:.2f} times what it was then ({most[0]}; "
        f"{'bounded' if record['bounded'] else 'not bounded'} by {BOUNDED:g}). "
        f"The state takes {record['state_bytes'] / 2**20:.2f} MiB, {record['parameters']:,} parameters; "
        f"{record['generated_tokens']:,} tokens were generated one at a time; {record['threads']} thread(s), "
        f"{rows[-1]['seconds']:,.0f} seconds."
        + (f" Trained for {record['steps_trained']} steps; {sets}." if sets else "")
        + f"\n\n{facts.said(record)}\n"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a run directory (a small hope is trained for --steps)")
    parser.add_argument("--steps", type=int, default=300, help="of the small hope (%(default)s)")
    parser.add_argument("--tokens", type=int, default=1_000_000, help="(%(default)s)")
    parser.add_argument("--every", type=int, default=50_000, help="tokens from row to row (%(default)s)")
    parser.add_argument("--generated", type=int, default=50, help="tokens generated before each row (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("bench/results/stream"), help="result files (%(default)s)")
    parser.add_argument("--work", type=Path, default=Path("build/bench/stream"), help="(%(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="(%(default)s)")
    given = parser.parse_args(arguments)
    if given.tokens < 2 * FIRST:
        parser.error(f"--tokens {given.tokens}: at least {2 * FIRST:,}, to compare with the first {FIRST:,}")
    if not 0 < given.generated < min(given.every, 900):
        parser.error(f"--generated {given.generated}: at least 1, below 900 and below --every")
    with facts.alone(given.work):
        markdown, held = run(given)
    print(markdown)
    return 0 if held else UNMET


if __name__ == "__main__":
    sys.exit(facts.ended(main))
