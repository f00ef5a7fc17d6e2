"""The counts of mutants: bench/results/mutations/mutations.json, and the same as a page."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from nlc.codes import CODES
from nlc.variants.edits import KINDS, WAYS

Line = dict[str, Any]


def mutation_report(lines: list[Line], folder: Path) -> int:
    """Write both; the exit status: 3 where something failed."""
    folder.mkdir(parents=True, exist_ok=True)
    found = _counts(lines)
    (folder / "mutations.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (folder / "mutations.md").write_text(_page(found), encoding="utf-8")
    print(f"mutation: {found['programs']} programs, {found['legal']} legal, {found['failed']} failed")
    return 3 if found["failed"] else 0


def _counts(lines: list[Line]) -> Line:
    failed = [line for line in lines if not line["ok"]]
    refused = [line for line in lines if line["ok"] and "code" in line]
    legal = [line for line in lines if line["ok"] and "code" not in line]
    accepted = Counter(kind for line in [*legal, *failed] for kind in line.get("edits", ()))
    accepted += Counter(kind for line in refused for kind in line["edits"][:-1])  # a chain goes on from legal ones
    ended = Counter(line["edits"][-1] for line in refused)
    return {
        "programs": len(lines), "legal": len(legal), "refused": len(refused), "failed": len(failed),
        "edits": accepted.total() + ended.total(), "edits legal": accepted.total(),
        "overflow": sum(bool(line.get("overflows")) for line in legal),
        "worst relative error": max((line["error"] for line in legal if not line.get("overflows")), default=0.0),
        "seconds": round(sum(line.get("seconds", 0) for line in lines)),
        "kinds": {kind: [accepted[kind], ended[kind]] for kind in (*KINDS, *WAYS)},
        "chains": {str(n): _split(lines, n) for n in sorted({len(line.get("edits", ())) for line in lines})},
        "codes": dict(sorted(Counter(line["code"] for line in refused).items())),
        "failures": {claim: sorted(x["seed"] for x in failed if x["claim"] == claim)
                     for claim in sorted({line["claim"] for line in failed})},
    }  # fmt: skip


def _split(lines: list[Line], length: int) -> list[int]:
    """Legal and refused ones of as many edits."""
    these = [line for line in lines if len(line.get("edits", ())) == length]
    refused = sum(line["ok"] and "code" in line for line in these)
    return [len(these) - refused, refused]


def _page(found: Line) -> str:
    total, edits = max(found["programs"], 1), max(found["edits"], 1)
    out = ["# Random mutations of hope", ""]
    out += ["`make long` draws chains of one to ten edits and checks each mutant; a seed is a mutant.", ""]
    out += ["| mutants | legal | refused, with a located error | failed | overflow | worst error | hours |"]
    out += ["|---|---|---|---|---|---|---|"]
    legal, refused = (f"{found[k]} ({100 * found[k] / total:.1f} %)" for k in ("legal", "refused"))
    hours = f"{found['seconds'] / 3600:.1f}"
    worst = f"{found['worst relative error']:.1e}"
    out += [f"| {total} | {legal} | {refused} | {found['failed']} | {found['overflow']} | {worst} | {hours} |", ""]
    share = 100 * found["edits legal"] / edits
    out += [f"Of {found['edits']} single edits {share:.1f} % were legal.", ""]
    out += ["| edit | legal | refused |", "|---|---|---|"]
    out += [f"| {kind} | {fine} | {no} |" for kind, (fine, no) in found["kinds"].items()]
    out += ["", "| edits in the chain | legal | refused |", "|---|---|---|"]
    out += [f"| {n} | {fine} | {no} |" for n, (fine, no) in found["chains"].items()]
    if found["codes"]:
        out += ["", "| refused with | | mutants |", "|---|---|---|"]
        out += [f"| {code} | {CODES[code].title} | {n} |" for code, n in found["codes"].items()]
    for claim, seeds in found["failures"].items():
        out += ["", f"Failed, {claim}: seeds {', '.join(map(str, seeds[:40]))}."]
    return "\n".join(out) + "\n"
