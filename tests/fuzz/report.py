"""The counts of a run: bench/results/fuzz/fuzz.json, and the same as a page."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from tests.fuzz.coverage import counted
from tests.fuzz.worker import DRAWN

Line = dict[str, Any]
INTRODUCTION = (
    "`make fuzz` draws them and checks each; a seed is a program. Of those under overflow nothing can be said:",
    "their own numbers do, or random rounding in the last digit moves the interpreter's answer as far as the",
    "compiled program is from it. The worst error is that of all others.",
)
WORDS = {
    "legal": "programs of tokens", "layer": "bare programs", "illegal": "programs with one thing broken",
    "objective": "programs about objectives",
}  # fmt: skip


def report(lines: list[Line], folder: Path) -> int:
    """Write both; the exit status: 3 where something failed."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {kind: _kind([line for line in lines if line["kind"] == kind], kind) for kind in DRAWN}
    (folder / "fuzz.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (folder / "fuzz.md").write_text(_page(found), encoding="utf-8")
    for kind, one in found.items():
        print(f"{kind}: {one['programs']} programs, {one['failed']} failed, {one['overflow']} overflow")
    return 3 if any(one["failed"] for one in found.values()) else 0


def _kind(lines: list[Line], kind: str) -> Line:
    failed = [line for line in lines if not line["ok"]]
    fine = [line for line in lines if line["ok"]]
    found: Line = {
        "programs": len(lines), "failed": len(failed), "overflow": sum(bool(line.get("overflows")) for line in fine),
        "seeds": _ranges(sorted(line["seed"] for line in lines)),
        "seconds": round(sum(x.get("seconds", 0) for x in lines)),
        "failures": {claim: sorted(x["seed"] for x in failed if x["claim"] == claim) for claim in _claims(failed)},
    }  # fmt: skip
    if kind == "illegal":
        found["breaks"] = dict(sorted(Counter(line["what"] for line in fine).items()))
        found["codes"] = dict(sorted(Counter(line["code"] for line in fine).items()))
    else:
        found["worst relative error"] = max(
            (line.get("error", 0.0) for line in fine if not line.get("overflows")), default=0.0
        )
        found["covered"] = counted(line.get("covers", {}) for line in fine)
    return found


def _claims(failed: list[Line]) -> list[str]:
    return sorted({line["claim"] for line in failed})


def _ranges(seeds: list[int]) -> list[list[int]]:
    """Seeds as first and last of each run of whole numbers."""
    found: list[list[int]] = []
    for seed in seeds:
        if found and found[-1][1] == seed - 1:
            found[-1][1] = seed
        else:
            found.append([seed, seed])
    return found


def _page(found: dict[str, Line]) -> str:
    out = ["# Programs nobody wrote", "", *INTRODUCTION, ""]
    out += ["| kind | programs | failed | overflow | seeds | worst error | hours |", "|---|---|---|---|---|---|---|"]
    for kind, one in found.items():
        seeds = ", ".join(f"{a}-{b}" for a, b in one["seeds"][:4]) + (", ..." if len(one["seeds"]) > 4 else "")
        worst = f"{one['worst relative error']:.1e}" if "worst relative error" in one else ""
        hours = f"{one['seconds'] / 3600:.1f}"
        row = (WORDS[kind], one["programs"], one["failed"], one["overflow"], seeds, worst, hours)
        out.append(f"| {' | '.join(map(str, row))} |")
    for kind, one in found.items():
        for claim, seeds in one["failures"].items():
            out += ["", f"Failed in {WORDS[kind]}, {claim}: seeds {', '.join(map(str, seeds[:40]))}."]
    for kind, tables in (("legal", "covered"), ("layer", "covered")):
        out += ["", f"## In how many {WORDS[kind]}", "", "| | |", "|---|---|"]
        for what, counts in found[kind][tables].items():
            out.append(f"| {what} | {', '.join(f'{name} {n}' for name, n in counts.items())} |")
    out += ["", "## What was broken, and the codes of the refusals", ""]
    out += [", ".join(f"{name} {n}" for name, n in found["illegal"]["breaks"].items()), ""]
    out += [", ".join(f"{name} {n}" for name, n in found["illegal"]["codes"].items()), ""]
    return "\n".join(out)
