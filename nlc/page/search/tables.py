"""Tables of a search, as text: what the page and the Markdown share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nlc.diff import COSTS, Comparison
from nlc.page.chart import said as number
from nlc.page.search.effects import Effect
from nlc.page.search.facts import SearchFacts
from nlc.page.search.front import points
from nlc.page.search.learning import learning
from nlc.page.search.lineage import Node
from nlc.page.tables import ABSENT, Table, clock
from nlc.report import binary
from nlc.variants import table as leaderboard
from nlc.variants.journal import Record
from nlc.variants.standings import Estimate, Standing
from nlc.variants.table import said

QUARTERS = (0.25, 0.5, 0.75, 1.0)
LONG = 300  # characters of an error that a table shows


def board(facts: SearchFacts) -> Table:
    """The leaderboard, as `nlc search` prints it; why a variant was rejected stands in a table of its own."""
    head, *rows = leaderboard.rows(facts.board, facts.mains)
    ends = [_ended(row) or cells[-1] for row, cells in zip(facts.board.rows, rows, strict=True)]
    table = [(*cells[:-1], end) for cells, end in zip(rows, ends, strict=True)]
    return Table(("place", *head[1:-1], "ended"), tuple(table))


def _ended(row: Standing) -> str:
    return {"rejected": "rejected", "duplicate": f"same as {row.of}"}.get(row.status, "")


def fronts(facts: SearchFacts) -> list[int]:
    """The rungs whose scores have a picture: the last that anybody came to, and the first, which all took part in."""
    reached = max((row.rung for row in facts.board.rows if row.score is not None), default=0)
    return list(dict.fromkeys((reached, 0)))


def front(facts: SearchFacts, rung: int) -> Table:
    """The variants that no other beats, best first."""
    name = facts.rank_by(rung)
    rows = []
    for point in points(facts, rung):
        if point.front:
            row, score = facts.rows[point.trial], facts.score(point.trial, rung)
            rows.append(
                (
                    point.trial,
                    described(facts, row.trial),
                    said(score, name),
                    f"{point.state_bytes:,}",
                    f"{point.flops:,}",
                )
            )
    return Table(("trial", "variant", "score", "state, bytes", "FLOPs"), tuple(rows))


def axis(effect: Effect, name: str, less: bool) -> Table:
    """The values of an axis; `difference` to its first value is over pairs that are equal in all else."""
    rows = []
    for value in effect.values:
        scored, best = len(value.points), ABSENT
        if value.points:
            top = (min if less else max)(score for _, score in value.points)
            best = ", ".join(trial for trial, score in value.points if score == top)
        paired = difference(value.paired, name) if value.paired else ABSENT
        pairs = str(value.paired.n) if value.paired else ABSENT
        mean = said(value.mean, name) or ABSENT
        rows.append((value.label, f"{scored} of {value.tried}", mean, _shorter(best), paired, pairs))
    return Table((effect.axis, "with a score", "mean", "best", "difference", "pairs"), tuple(rows))


def _shorter(names: str) -> str:
    first = names.split(", ")
    return ", ".join(first[:3]) + (f" and {len(first) - 3} more" if len(first) > 3 else "")


def difference(found: Estimate, name: str) -> str:
    """+1.3 (-0.4 to 3.0) points of a share, or +0.0130 (...) of anything else."""
    share = name.rsplit(".", 1)[-1] in leaderboard.SHOWN
    times, digits = (100, 1) if share else (1, 4)
    text = f"{times * found.mean:+.{digits}f}{' points' if share else ''}"
    if found.low is None or found.high is None:
        return text
    return f"{text} ({times * found.low:+.{digits}f} to {times * found.high:+.{digits}f})"


def curves(facts: SearchFacts) -> Table:
    """Each curve at a quarter of its tokens, at half of them, at three quarters and at the end."""
    rows = []
    for one in learning(facts):
        for panel in one.panels:
            for series in panel.series:
                end = series.points[-1][0]
                parts = [[y for x, y in series.points if x <= end * share and y is not None] for share in QUARTERS]
                values = [number(part[-1]) if part else ABSENT for part in parts]
                rows.append((series.label, one.task, f"{panel.title}, {panel.unit}", number(end), *values))
    return Table(("trial", "task", "what", "tokens", *(f"{share:.0%}" for share in QUARTERS)), tuple(rows))


def lineage(nodes: Sequence[Node], name: str) -> Table:
    rows = []
    for node in nodes:
        what = node.edit or "made of axes"
        score = said(node.score, name) or (ABSENT if node.status == "ok" else node.status)
        rows.append((node.trial, str(node.generation), " x ".join(node.parents) or ABSENT, what, score))
    return Table(("trial", "generation", "of", "edit", "score"), tuple(rows))


def rejected(facts: SearchFacts) -> Table:
    """What the compiler refused: the place, and the code that `nlc explain CODE` documents."""
    rows = []
    for trial, line in facts.trials.items():
        if line["status"] == "rejected":
            found: Sequence[Mapping[str, Any]] = line["diagnostics"] or [{"message": line["error"]}]
            rows += [(trial, described(facts, trial), *_diagnostic(one)) for one in found]
    return Table(("trial", "variant", "code", "place", "error", "hint"), tuple(rows))


def _diagnostic(found: Mapping[str, Any]) -> tuple[str, str, str, str]:
    place = ":".join(str(found[key]) for key in ("file", "line", "column") if found.get(key) is not None)
    message, hint = (" ".join(str(found.get(key) or "").split()) for key in ("message", "hint"))
    return str(found.get("code", ABSENT)), place or ABSENT, _cut(message), _cut(hint) or ABSENT


def failed(facts: SearchFacts) -> Table:
    """Variants that the compiler failed on, and runs that came to nothing: each is a recorded outcome."""
    rows = [
        (trial, described(facts, trial), "compiling", line["status"], last_line(line["error"]), ABSENT, ABSENT)
        for trial, line in facts.trials.items()
        if line["status"] not in ("ok", "rejected", "duplicate")
    ]
    for run in facts.of("run"):
        if run["status"] != "ok":
            told = (run["run"], run["status"].replace("_", " "), last_line(run["error"]))
            rows.append((run["trial"], described(facts, run["trial"]), *told, *_used(run)))
    return Table(("trial", "variant", "run", "ended", "with", "after", "memory"), tuple(rows))


def _used(run: Record) -> tuple[str, str]:
    cost = run["cost"]
    return f"{cost['seconds']:,.0f} s", binary(cost["peak_memory"]) if cost["peak_memory"] else ABSENT


def duplicates(facts: SearchFacts) -> Table:
    rows = [
        (trial, described(facts, trial), str(line["of"]), described(facts, str(line["of"])), (line["hash"] or "")[:16])
        for trial, line in facts.trials.items()
        if line["status"] == "duplicate"
    ]
    return Table(("trial", "variant", "is the same as", "which is", "hash of the graph"), tuple(rows))


def keys(found: Comparison | None) -> tuple[tuple[str, str, str], ...]:
    """(path, before, after) of every key that differs; of a program, the lines that do."""
    return tuple((change.path, *change.sides()) for change in (found.keys if found else ()))


def costs(found: Comparison | None) -> Table:
    """What a run of each pays, at the sequences of the task that ranks."""
    rows = [
        (COSTS[name], f"{before:,}", f"{after:,}", f"x {after / before:.2f}" if before else ABSENT)
        for name, before, after in (found.cost if found else ())
    ]
    head = ("", f"base {found.before}", found.after, "ratio") if found else ()
    return Table(head, tuple(rows), numbers=True)


def rescaled(facts: SearchFacts) -> Table:
    """What the budget changed."""
    rows = [(row.trial, described(facts, row.trial), line) for row in facts.board.rows for line in row.rescaled]
    return Table(("trial", "variant", "to keep the budget"), tuple(rows))


def rungs(facts: SearchFacts) -> Table:
    closed = {line["rung"]: line for line in facts.of("rung")}
    rows = []
    for i, rung in enumerate(facts.head["rungs"]):
        long = (
            f"{rung['tokens']:,} tokens" if rung["tokens"] else f"{rung['steps']:,} steps" if rung["steps"] else ABSENT
        )
        keeps = f"{rung['keep']:g}" if rung["keep"] is not None else "all"
        became = (
            f"{len(closed[i]['scores'])} with a score, {len(closed[i]['kept'])} kept" if i in closed else "not over"
        )
        rows.append((str(i + 1), ", ".join(rung["tasks"]), long, str(rung["seeds"]), rung["rank_by"], keeps, became))
    return Table(("rung", "tasks", "of", "seeds", "ranked by", "keeps", "became"), tuple(rows))


def tasks(facts: SearchFacts) -> Table:
    rows = []
    for name, task in facts.head["tasks"].items():
        solved = f"{100 * task['solved']:g} %" if isinstance(task.get("solved"), int | float) else ABSENT
        rows.append((name, str(task.get("name", name)), str(task.get("source", ABSENT)), solved))
    return Table(("task", "is", "from", "solved at"), tuple(rows))


def setup(facts: SearchFacts) -> Table:
    """What was asked for, and with what: the first line of the journal."""
    shown = ("base", "budget", "tune", "sampler", "mutate", "limits", "items", "threads", "seed", "set", "rescale")
    known = ("nlc", "torch", "python", "machine", "digest")
    rows = [(key, text) for key in (*shown, *known) if (text := _flat(facts.head.get(key)))]
    return Table((), tuple(rows), code=True)


def _flat(value: object) -> str:
    """{"steps": 300, "trials": None} -> steps 300"""
    match value:
        case None:
            return ""
        case Mapping():
            return ", ".join(f"{key} {text}" for key, one in value.items() if (text := _flat(one)))
        case list() | tuple():
            return ", ".join(map(_flat, value))
    return str(value)


def figures(facts: SearchFacts) -> Iterator[tuple[str, str, str]]:
    """The few numbers that say how a search went: value, unit, what it is."""
    statuses = [line["status"] for line in facts.trials.values()]
    runs = facts.of("run")
    failed = sum(run["status"] != "ok" for run in runs)
    if (best := facts.board.winner) is not None and best.score is not None:
        name = facts.rank_by(best.rung)
        middle = said(Estimate(best.score.mean, None, None, 1), name)
        yield middle, f"{name} of {best.trial}", "the best"
    yield f"{len(statuses):,}", "trials", f"{statuses.count('ok'):,} trained"
    yield f"{statuses.count('rejected'):,}", "illegal", "refused before anything ran"
    yield f"{statuses.count('duplicate'):,}", "duplicates", "the same as one before"
    yield f"{len(runs):,}", "runs", f"{failed:,} came to nothing"
    yield clock(sum(run["cost"]["seconds"] for run in runs)), "in all", "of all runs together"


def described(facts: SearchFacts, trial: str) -> str:
    """A variant in a few words; "" of one that is not in the journal."""
    row = facts.rows.get(trial)
    return "" if row is None else leaderboard.variant(row, facts.board)


def last_line(error: str) -> str:
    lines = [line.strip() for line in error.splitlines() if line.strip()]
    return _cut(lines[-1]) if lines else ABSENT


def _cut(text: str) -> str:
    return text if len(text) <= LONG else text[: LONG - 1] + "…"
