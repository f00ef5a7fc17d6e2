"""One long run of a spec at a larger size, and its validation bits per byte with learning on and off.

    python bench/long.py --minutes 90
    python bench/long.py --minutes 90 --set sizes.width=256 --set sizes.heads=4

All cores, wall time: the minutes hold everything from the first step to the last validation.  The cosine schedule is
laid out over the steps that the measured speed allows.  The state is saved every --block seconds; the command may be
killed at any moment and goes on from there when it is given again (the time that was lost is not counted).

Writes OUT.json and OUT.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # threads sleep soon: read when torch is imported

import facts
import torch
from timed import Budget, Job, interleave, say

import nlc
from nlc.spec import Spec
from runtime import data as texts
from runtime.errors import RunError

LARGER = {"sizes.width": "192", "sizes.heads": "3", "run.batch": "8"}
JUDGING = 0.05  # the share of the minutes that is kept for judging the result


def job(spec: Spec, given: argparse.Namespace, digest: str) -> Job:
    seconds = 60 * given.minutes * (1 - JUDGING)
    meaning = [spec.resolved(), digest, given.seed, seconds, given.threads, nlc.__version__]
    key = hashlib.sha256(json.dumps(meaning, sort_keys=True, default=str).encode()).hexdigest()[:10]
    budget = Budget(seconds=seconds, whole=True, timer=time.perf_counter)
    return Job(
        given.work / spec.model.name / f"{given.minutes:g}m-{key}", spec, budget, text=given.data, seed=given.seed
    )


def run(given: argparse.Namespace, chosen: Mapping[str, str]) -> str:
    text = texts.load(given.data)
    spec = nlc.load(given.spec, set=chosen)
    one = job(spec, given, text.digest)
    place = facts.place(text)
    interleave([one], given.block, say)
    done = one.done
    if done.result is None:
        raise RunError(f"the run diverged: {done.failure}")
    on, off = (one.judge(given.validation_tokens, learn) for learn in (True, False))
    record = {
        "measures": f"{spec.model.name} after {given.minutes:g} minutes: validation bits per byte",
        **one.made(place),
        "settings": {
            "spec": spec.source,
            "set": dict(chosen),
            "threads": given.threads,
            "seed": given.seed,
            "sizes": spec.model.sizes,
            "batch": spec.model.run.batch,
        },
        "graph": one.graph(),
        "parameters": done.result["parameters"],
        "steps": done.step,
        "tokens": done.result["tokens"],
        "minutes": round((done.spent + on["seconds"] + off["seconds"]) / 60, 2),
        "tokens_per_s": round(done.result["tokens"] / done.spent, 1),
        "fires": done.result["fires"],
        "validation_tokens": on["tokens"],
        "bits_per_byte": {"learning on": on["bits_per_byte"], "learning off": off["bits_per_byte"]},
        "curve": one.curve(),
        "references": dict(facts.REFERENCES),
        "folder": str(one.folder),
    }
    markdown = rendered(record)
    facts.write(given.out, record, markdown)
    return markdown


def rendered(record: Mapping[str, Any]) -> str:
    columns = ["", "bits per byte"]
    lines = [[name, f"{bits:.4f}"] for name, bits in record["bits_per_byte"].items()]
    settings = record["settings"]
    sizes = ", ".join(f"{name} {size}" for name, size in settings["sizes"].items())
    return (
        f"# {record['measures'][0].upper()}{record['measures'][1:]}\n\n"
        f"{facts.table(columns, lines)}\n\n"
        f"Validation: {record['validation_tokens']:,} tokens. {record['minutes']:.1f} minutes in all on "
        f"{settings['threads']} threads; {record['steps']:,} steps, {record['tokens']:,} tokens, "
        f"{record['tokens_per_s']:,.0f} tokens/s. {record['parameters']:,} parameters; {sizes}, "
        f"batch {settings['batch']}. {facts.references()}.\n\n"
        f"{facts.said(record)}\n"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=90.0, help="wall time (%(default)s)")
    parser.add_argument("--spec", default="hope", help="a path or a shipped name (%(default)s)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="repeatable; before it: "
                        + ", ".join(f"{key}={value}" for key, value in LARGER.items()))  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path("bench/results/long"), help="result files (%(default)s)")
    parser.add_argument("--work", type=Path, default=Path("build/bench/long"), help="folder of the run (%(default)s)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="(%(default)s)")
    parser.add_argument("--validation-tokens", type=int, default=262_144, help="0 is all (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, help="a text file or a folder (the source of Python's standard library)")
    parser.add_argument("--block", type=float, default=300.0, help="seconds between two savings (%(default)s)")
    given = parser.parse_args(arguments)
    if wrong := [pair for pair in given.set if "=" not in pair]:
        parser.error(f"--set {wrong[0]}: expected KEY=VALUE")
    torch.set_num_threads(given.threads)
    with facts.alone(given.work):
        print(run(given, {**LARGER, **dict(pair.split("=", 1) for pair in given.set)}))
    return 0


if __name__ == "__main__":
    sys.exit(facts.ended(main))
