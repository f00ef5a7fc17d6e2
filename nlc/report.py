"""The text of `nlc explain SPEC`: an Explanation laid out in aligned columns, plain enough for a pipe."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from nlc.explain import CostFacts, Explanation, plural

WIDTH = 110  # columns of running text
COLUMNS = 64  # of a drawn sequence


def report(e: Explanation) -> str:
    sections = [_head(e), levels_text(e)]
    if picture := timeline(e):
        sections.append(picture)
    if e.memories:
        sections.append(_memories(e))
    if e.momenta:
        sections.append(_momenta(e))
    if e.recurrences or e.fused:
        sections.append(_recurrences(e))
    if e.notes:
        sections.append("Worth knowing\n\n" + "\n".join(_wrapped("- ", note) for note in e.notes))
    if e.cost:
        sections.append(_cost(e.cost))
    return "\n\n".join(sections) + "\n"


def _head(e: Explanation) -> str:
    lines = [f"{e.name}: {' '.join(e.doc.split())}" if e.doc else e.name]
    lines.append(f"{e.file}   {', '.join(f'{name} {size}' for name, size in e.sizes)}")
    if e.tokens_per_step:
        batch = e.tokens_per_step // e.context
        lines.append(f"one step is {batch:,} sequences x {e.context:,} tokens = {e.tokens_per_step:,} tokens")
    return "\n".join(lines)


def levels_text(e: Explanation) -> str:
    """The levels as a table."""
    rows = [["", "level", "every", "per step", "per sequence", "learns from", "rule"]]
    for level in e.levels:
        often = [level.period, level.per_step, level.per_sequence]
        rows.append([str(level.index), level.name, *often, level.learns_from, level.rule])
    title, counted = "Levels, fastest first, and how often each is updated", ""
    if any(level.fires for level in e.levels):
        counted = "  per sequence: as `levels fired` of a run counts them; none of its tokens reads one after the last"
    return f"{title}\n\n{table(rows, right={0, 3, 4})}" + (f"\n\n{counted}" if counted else "")


def timeline(e: Explanation) -> str:
    """The levels drawn: one row each, one sequence from left to right, a mark where an update falls."""
    rows = []
    for level in e.levels:
        match level.period.split():
            case [count, "token" | "tokens"] if count != "0":
                row = "".join(_mark(column, int(count), e.context) for column in range(COLUMNS))
            case [count, "step" | "steps"]:
                row = " " * COLUMNS + ("|" if count == "1" else f"| every {_ordinal(int(count))} step")
            case _:
                continue
        rows.append([level.name, row])
    if not e.context or not any(row[-1].strip() and not row[-1].startswith(" " * COLUMNS) for row in rows):
        return ""
    scale = f"one sequence of {e.context:,} tokens, left to right; each | is at least one update"
    return f"  {scale}\n\n" + table(rows)


def _mark(column: int, period: int, context: int) -> str:
    """Whether an update falls into this part of the sequence: after tokens period, 2 period, ... and the last."""
    first, last = column * context // COLUMNS, (column + 1) * context // COLUMNS
    return "|" if last // period > first // period else " "


def _ordinal(n: int) -> str:
    return {2: "second", 3: "third"}.get(n, f"{n}th")


def _memories(e: Explanation) -> str:
    rows = [["memory", "form", "start", "carry", "read", "meta"]]
    rows += [[m.name, m.form, m.start, m.carry, m.reads, m.meta] for m in e.memories]
    return "Memories, one of each per layer that reads it\n\n" + table(rows)


def _momenta(e: Explanation) -> str:
    rows = [["of", "rule", "memories", "every"]]
    rows += [[m.of, m.rule, ", ".join(m.names), m.every] for m in e.momenta]
    return "Memories of gradients, which the rules write\n\n" + table(rows)


def _recurrences(e: Explanation) -> str:
    parts = []
    for r in e.recurrences:
        lengths = [f"chunk {r.chunk}"] if r.chunk > 1 else []
        lengths += [f"blocks of {plural(r.block_length, 'token')}"] if r.block_length else []
        how = r.lowering + (f" ({', '.join(lengths)})" if lengths else "")
        title = f"{how}: {', '.join(r.members)}"
        parts += [_wrapped("  ", title), *(_wrapped("      ", why) for why in (r.reason, r.kept, r.placed) if why)]
    for f in e.fused:
        parts += [_wrapped("  ", f"{f.value}: {', '.join(f.members)}"), _wrapped("      ", f.placed)]
    return "How each is computed, and why\n\n" + "\n".join(parts)


def _cost(cost: CostFacts) -> str:
    rows = [
        ["parameters", f"{cost.parameters:,}", ""],
        ["state", binary(cost.state_bytes), "per sequence, float32"],
        ["forward", f"{decimal(cost.flops)}FLOP", "per token"],
        ["activations", binary(cost.activation_bytes), "saved for backward, per token"],
    ]
    if cost.activation_bytes_per_step:
        rows.append(["", binary(cost.activation_bytes_per_step), "saved for backward, per step"])
    if cost.span:
        rows.append(
            [
                "",
                f"{cost.span:,} tokens",
                "at a time: of the others they are made again, all do not fit into run.memory",
            ]
        )
    return "Cost\n\n" + table(rows, right={1})


def table(rows: Sequence[Sequence[str]], right: set[int] | None = None) -> str:
    """Rows in columns two spaces apart; the columns in `right` end together, the others begin together."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if i in (right or ()) else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(("  " + "  ".join(cells)).rstrip())
    return "\n".join(lines)


def binary(count: int) -> str:
    """Bytes: 1.5 MiB."""
    value, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:,.1f} {unit}" if unit != "B" else f"{count} B"


def decimal(count: int) -> str:
    """A count with a metric prefix, ready for its unit: '6.9 M'."""
    value, prefix = float(count), ""
    for larger in ("k", "M", "G", "T"):
        if value < 1000:
            break
        value, prefix = value / 1000, larger
    return f"{value:,.1f} {prefix}" if prefix else f"{count} "


def _wrapped(indent: str, text: str) -> str:
    hang = " " * len(indent)
    return textwrap.fill(text, WIDTH, initial_indent=indent, subsequent_indent=hang + ("  " if indent == "  " else ""))
