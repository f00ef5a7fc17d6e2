"""Every shipped architecture for the same steps on the same text: does it train, how fast, how far does it come.

    python bench/architectures.py --out bench/results            all of them, one after another
    python bench/architectures.py --systems hope,retnet          some of them

Small sizes and one thread: this table shows that each system learns, not which is best (bench/text.py asks that, with
tuned rates and more tokens).  The command may be killed at any moment: given again, it goes on with what is missing.
A system whose loss does not fall, or is not finite, is said to have failed, and the exit status is 3.

Writes OUT/architectures.json (everything) and OUT/architectures.md (the table).
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import facts

import nlc
from nlc.spec import Spec, shipped
from runtime import data as texts

WIDTH, HEADS, LAYERS, CONTEXT, BATCH = 64, 2, 2, 128, 4
EDGE = 3  # reported steps at either end whose mean losses are compared


def settings(spec: Spec, steps: int) -> dict[str, object]:
    """A small program of the same structure: sizes as wide as the model shrink with it."""
    sizes = spec.model.sizes
    kinds = len(spec.model.stack) or 1
    chosen: dict[str, object] = {
        "sizes.width": WIDTH, "sizes.context": CONTEXT, "sizes.layers": max(LAYERS, kinds), "sizes.heads": HEADS,
        "run.batch": BATCH, "run.warmup": steps // 10,
    }  # fmt: skip
    own = set(sizes) - {"width", "heads", "head", "layers", "vocab", "context"}
    ratio = WIDTH / sizes["width"]
    return chosen | {f"sizes.{name}": round(sizes[name] * ratio) for name in own if sizes[name] >= sizes["width"]}


def trained(name: str, folder: Path, steps: int) -> dict[str, Any]:
    """One system's row; what is in the folder already is not made again."""
    spec = nlc.load(name)
    written = folder / name / "row.json"
    if written.exists():
        return dict(json.loads(written.read_text()))
    chosen = settings(spec, steps)
    command = [sys.executable, "-m", "nlc", "train", name, "--out", str(folder / name / "run"), "--quiet", "--json"]
    command += ["--steps", str(steps), "--seed", "0", "--device", "cpu"]
    command += [part for key, value in chosen.items() for part in ("--set", f"{key}={value}")]
    done = subprocess.run(command, capture_output=True, text=True)
    result = json.loads(done.stdout or "{}")
    if done.returncode:
        raise SystemExit(f"{name}: nlc train ended with {done.returncode}: {result.get('error', done.stderr)}")
    row = {"system": name, "set": chosen, **measured(folder / name / "run", result)}
    written.write_text(json.dumps(row))
    return row


def measured(run: Path, result: Mapping[str, Any]) -> dict[str, Any]:
    """What a finished run says: its size, its speed, the losses at both ends, and validation."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [line["train/loss"] for line in lines if "train/loss" in line]
    first, last = (sum(part) / len(part) for part in (losses[:EDGE], losses[-EDGE:]))
    return {
        "parameters": result["parameters"],
        "tokens": result["tokens"],
        "tokens_per_s": result["tokens"] / result["seconds"],
        "first": first,
        "last": last,
        "bits_per_byte": result["val_bits_per_byte"],
        "passed": all(map(math.isfinite, losses)) and last < first,
    }


def rendered(rows: Sequence[Mapping[str, Any]], place: Mapping[str, Any], steps: int) -> str:
    columns = ["system", "parameters", "tokens/s", "first loss", "last loss", "bits per byte", "learns"]
    lines = [
        [
            row["system"],
            f"{row['parameters']:,}",
            f"{row['tokens_per_s']:,.0f}",
            f"{row['first']:.3f}",
            f"{row['last']:.3f}",
            f"{row['bits_per_byte']:.3f}",
            "yes" if row["passed"] else "NO",
        ]
        for row in rows
    ]
    said = (
        f"Width {WIDTH}, {HEADS} heads, {LAYERS} layers (a stack once), {BATCH} sequences of {CONTEXT} bytes a step, "
        f"one thread. Losses in nats, means of the first and of the last {EDGE} reported steps. Rates are the specs' "
        "own, not tuned to this size, so the order says little."
    )
    return f"# Every architecture, {steps} steps\n\n{facts.table(columns, lines)}\n\n{said}\n\n{facts.said(place)}\n"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("bench/results"), help="folder of the table (%(default)s)")
    parser.add_argument("--work", type=Path, default=Path("build/bench/architectures"), help="folder of the runs")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--systems", help="some of them, with commas between; all otherwise")
    given = parser.parse_args(arguments)
    names = given.systems.split(",") if given.systems else [n for n in shipped() if not nlc.build(nlc.load(n)).bare]
    rows = []
    with facts.alone(given.work):
        for name in names:
            rows.append(trained(name, given.work, given.steps))
            print(f"{name}: {rows[-1]['bits_per_byte']:.3f} bits per byte", file=sys.stderr, flush=True)
    place = facts.place(texts.load(None))
    markdown = rendered(rows, place, given.steps)
    facts.write(given.out / "architectures", {"steps": given.steps, **place, "rows": rows}, markdown)
    print(markdown)
    return 0 if all(row["passed"] for row in rows) else 3


if __name__ == "__main__":
    sys.exit(facts.ended(main))
