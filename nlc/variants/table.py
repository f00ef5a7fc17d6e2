"""The leaderboard as text: rows of a Standings, best first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nlc.variants.standings import Estimate, Standing, Standings

SHOWN = ("accuracy", "whole_items")  # shares, in percent


def rows(board: Standings, mains: Sequence[str]) -> list[tuple[str, ...]]:
    """`mains`: the scores that have a column each, that by which variants are ranked first."""
    rungs = any(row.rung for row in board.rows)
    head = ("", "trial", "variant", *(f"{name} (95 %)" for name in mains), "runs", "rates", "params", "state", "FLOPs")
    found = [(*head, "")]
    for row in board.rows:
        cells = [said(row.scores.get(name), name) for name in mains]
        runs = str(row.score.n) if row.score else ""
        last = runs, rates(row), *cost(row), ended(row, rungs)
        found.append((str(row.rank or "-"), row.trial, variant(row, board), *cells, *last))
    return found


def variant(row: Standing, board: Standings) -> str:
    """Its base where there are several, its choices, its last edit."""
    said = [row.base] if len(board.bases) > 1 else []
    said += [f"{short(name, board.axes)}={label}" for name, label in row.settings.items()]
    many = f"{len(row.edits)} edits, last: " if len(row.edits) > 1 else ""
    said += [f"{many}{row.edits[-1]['edit']}"] if row.edits else []
    text = ", ".join(said) or row.base
    return text if len(text) <= 90 else text[:87] + "..."


def short(axis: str, axes: Sequence[str]) -> str:
    """The end of an axis's path that no other has: every, or fast.every beside mid.every."""
    parts = axis.split(".")
    ends = (".".join(parts[i:]) for i in reversed(range(len(parts))))
    return next((end for end in ends if not any(f".{one}".endswith(f".{end}") for one in axes if one != axis)), axis)


def said(found: Estimate | None, name: str) -> str:
    """98.1 % (97.0 to 99.0), or 1.769 (1.75 to 1.79)"""
    if found is None:
        return ""
    if name.rsplit(".", 1)[-1] in SHOWN:
        sure = "" if found.low is None or found.high is None else f" ({100 * found.low:.1f} to {100 * found.high:.1f})"
        return f"{100 * found.mean:.1f} %{sure}"
    sure = "" if found.low is None or found.high is None else f" ({found.low:.4f} to {found.high:.4f})"
    return f"{found.mean:.4f}{sure}"


def rates(row: Standing) -> str:
    """The learning rates by task, once where they are the same."""
    lrs = [f"{told['lr']:g}" for told in row.rates.values() if told["lr"] is not None]
    return "/".join(dict.fromkeys(lrs)) if len(set(lrs)) == 1 else "/".join(lrs)


def cost(row: Standing) -> tuple[str, str, str]:
    first: Mapping[str, int] = next(iter(row.cost.values()), {})
    return tuple(f"{first[name]:,}" if first else "" for name in ("params", "state_bytes", "flops"))  # type: ignore[return-value]


def ended(row: Standing, several: bool) -> str:
    """Why a row is where it is: equal to another, refused, failed; of `several` rungs, how far it came."""
    if row.status == "duplicate":
        return f"the same as {row.of}"
    if row.status == "rejected":
        return f"rejected: {' '.join(row.error.splitlines()[0].split()) if row.error else ''}"
    if row.status != "ok":
        return row.status.replace("_", " ")
    return f"rung {row.rung + 1}" if several else ""


def text(table: Sequence[Sequence[str]]) -> str:
    """In columns: the first three and the last begin together, the others are numbers, which end together."""
    wide = [max(map(len, column)) for column in zip(*table, strict=True)]
    left = (0, 1, 2, len(wide) - 1)
    lines = [
        [c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(r, wide, strict=True))] for r in table
    ]
    return "\n".join("  ".join(line).rstrip() for line in lines)


def markdown(table: Sequence[Sequence[str]]) -> str:
    head, *body = [[cell.replace("|", "\\|") for cell in row] for row in table]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in body)])
