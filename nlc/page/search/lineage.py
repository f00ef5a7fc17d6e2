"""Where mutants come from: generations from left to right, a line from each parent, the best lineage marked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from nlc.graph.draw_scene import width_of
from nlc.page.chart import SIZE
from nlc.page.search.facts import SearchFacts
from nlc.variants.journal import Record
from nlc.variants.standings import Estimate
from nlc.variants.table import said

ROW, GAP, TOP = 24.0, 72.0, 34.0


@dataclass(frozen=True, slots=True)
class Node:
    """A variant of the tree.  score: the first rung's, which every variant was given; edit: its own, the last."""

    trial: str
    generation: int
    parents: tuple[str, ...]
    status: str
    score: Estimate | None
    edit: str
    kind: str
    best: bool  # it, or a descendant, is the first of the leaderboard


def lineage(facts: SearchFacts) -> list[Node]:
    """Mutants and all that they come from, in the order they were made; none where there is no mutant."""
    trials = facts.trials
    mutants = [line for line in trials.values() if line["parents"]]
    wanted = {line["trial"] for line in mutants} | {p for line in mutants for p in line["parents"]}
    best = ancestors(facts.board.winner.trial, trials) if facts.board.winner else set()
    return [
        Node(
            trial, line["generation"], tuple(line["parents"]), line["status"], facts.score(trial, 0),
            line["edits"][-1]["edit"] if line["edits"] else "", line["edits"][-1]["kind"] if line["edits"] else "",
            trial in best,
        )
        for trial, line in trials.items() if trial in wanted
    ]  # fmt: skip


def ancestors(trial: str, trials: Mapping[str, Record]) -> set[str]:
    """The trial itself, its parents, theirs, and so on."""
    found: set[str] = set()
    ahead = [trial]
    while ahead:
        one = ahead.pop()
        if one not in found and one in trials:
            found.add(one)
            ahead += trials[one]["parents"]
    return found


def svg(nodes: Sequence[Node], name: str, less: bool) -> tuple[str, float]:
    """The picture, best scores of a generation on top, and its width in pixels."""
    columns: dict[int, list[Node]] = {}
    for node in nodes:
        columns.setdefault(node.generation, []).append(node)
    label = {node.trial: _label(node, name) for node in nodes}
    x, y, left = dict[str, float](), dict[str, float](), 16.0
    heads = []
    for generation in sorted(columns):
        column = sorted(columns[generation], key=lambda node: _order(node, less))
        title = f"generation {generation}" if generation else "made of axes"
        heads.append(f'<text class="tick" x="{_n(left)}" y="16">{title}</text>')
        for i, node in enumerate(column):
            x[node.trial], y[node.trial] = left, TOP + ROW * i + 6
        left += max([width_of(label[n.trial], SIZE) + 14 for n in column] + [width_of(title, SIZE)]) + GAP
    width, height = left - GAP + 16, TOP + ROW * max(map(len, columns.values()))
    parts = [*heads, *_lines(nodes, x, y, label), *(part for n in nodes for part in _node(n, x, y, label))]
    return (
        f'<svg viewBox="0 0 {_n(width)} {_n(height)}" class="plot" role="img" aria-label="Lineage of the mutants"'
        f' style="--w:{_n(width)}px">{"".join(parts)}</svg>',
        width,
    )


def _lines(
    nodes: Sequence[Node], x: Mapping[str, float], y: Mapping[str, float], label: Mapping[str, str]
) -> Iterator[str]:
    for node in sorted(nodes, key=lambda node: node.best):
        for parent in node.parents:
            if parent in x:
                begin, end = x[parent] + width_of(label[parent], SIZE) + 16, x[node.trial] - 8
                middle = (begin + end) / 2
                way = f"M{_n(begin)} {_n(y[parent])}C{_n(middle)} {_n(y[parent])} {_n(middle)} {_n(y[node.trial])}"
                kind = "sc0" if node.best else "pale"
                yield f'<path class="curve {kind}" d="{way} {_n(end)} {_n(y[node.trial])}"/>'


def _node(node: Node, x: Mapping[str, float], y: Mapping[str, float], label: Mapping[str, str]) -> Iterator[str]:
    across, down = x[node.trial], y[node.trial]
    kind = "fc0 mark" if node.best else "hollow" if node.score else "lost"
    note = f"<title>{escape(node.edit or node.trial)}</title>"
    yield f'<circle class="{kind}" cx="{_n(across)}" cy="{_n(down)}" r="4">{note}</circle>'
    name = "name fc0" if node.best else "tick"
    yield f'<text class="{name}" x="{_n(across + 9)}" y="{_n(down + 4)}">{escape(label[node.trial])}{note}</text>'


def _label(node: Node, name: str) -> str:
    """t012  98.1 %; what became of it where it has no score."""
    if node.score is None:
        return f"{node.trial}  {'no score' if node.status == 'ok' else node.status}"
    return f"{node.trial}  {said(Estimate(node.score.mean, None, None, node.score.n), name)}"


def _order(node: Node, less: bool) -> tuple[bool, float, str]:
    score = 0.0 if node.score is None else node.score.mean
    return node.score is None, score if less else -score, node.trial


def _n(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")
