"""Which variants no other beats: none has a better score with no more state and no more FLOPs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

from nlc.graph.draw_scene import width_of
from nlc.page.chart import SIZE, Scale, axes, said
from nlc.page.search.facts import SearchFacts, task_ranked_by

COSTS = {"state_bytes": "bytes of state", "flops": "FLOPs of a token"}
WIDE_RANGE = 30.0  # greatest over least, from which an axis counts in powers of ten


@dataclass(frozen=True, slots=True)
class Point:
    """A variant with a score.  front: no other is at least as good in everything and better in something."""

    trial: str
    score: float
    state_bytes: int
    flops: int
    front: bool = False

    def cost(self, name: str) -> int:
        return self.state_bytes if name == "state_bytes" else self.flops


def points(facts: SearchFacts, rung: int) -> list[Point]:
    """Of every trial that a rung gave a score, in the order of the leaderboard; duplicates are the trial they equal."""
    task = task_ranked_by(facts.head, rung)
    found = []
    for row in facts.board.rows:
        score, cost = facts.score(row.trial, rung), row.cost.get(task)
        if row.status != "duplicate" and score is not None and cost and row.rung >= rung:
            found.append(Point(row.trial, score.mean, cost.get("state_bytes", 0), cost.get("flops", 0)))
    less = facts.less(facts.rank_by(rung))
    return [Point(p.trial, p.score, p.state_bytes, p.flops, not any(beats(q, p, less) for q in found)) for p in found]


def beats(a: Point, b: Point, less: bool) -> bool:
    """a is at least as good as b in score, state and FLOPs, and better in one of them."""
    one, other = (((p.score if less else -p.score), p.state_bytes, p.flops) for p in (a, b))
    return one != other and all(x <= y for x, y in zip(one, other, strict=True))


def svg(found: Sequence[Point], cost: str, name: str, less: bool, width: float, height: float) -> str:
    """Score against a cost: a mark for each variant, those of the front filled and named, a line along the best."""
    x, y = _scales(found, cost, (54.0, width - 16), (height - 26, 12.0))
    parts = [*axes(x, y, width, 4, COSTS[cost])]
    if stairs := _stairs(found, cost, less, x, y):
        parts.append(f'<path class="curve faint sc0" d="{stairs}"/>')
    for p in sorted(found, key=lambda p: p.front):
        note = f"{p.trial}: {name} {said(p.score, 4)}, {p.state_bytes:,} bytes of state, {p.flops:,} FLOPs of a token"
        kind, radius = ("fc0 mark", 5) if p.front else ("hollow", 3.6)
        place = f'cx="{_n(x(p.cost(cost)))}" cy="{_n(y(p.score))}"'
        parts.append(f'<circle class="{kind}" {place} r="{radius}"><title>{escape(note)}</title></circle>')
    parts += _names(found, cost, x, y, width)
    words = quoteattr(f"{name} against {COSTS[cost]}")
    return (
        f'<svg class="plot" viewBox="0 0 {_n(width)} {_n(height)}" role="img" aria-label={words}'
        f' style="--w:{_n(width)}px">{"".join(parts)}</svg>'
    )


def _scales(
    found: Sequence[Point], cost: str, across: tuple[float, float], down: tuple[float, float]
) -> tuple[Scale, Scale]:
    costs, scores = [p.cost(cost) for p in found], [p.score for p in found]
    low, high = min(costs), max(costs)
    if low > 0 and high / low > WIDE_RANGE:
        x = Scale(low / 1.5, high * 1.5, *across, log=True)
    else:
        room = 0.08 * (high - low) or 0.5 * high or 1.0
        x = Scale(max(0.0, low - room), high + room, *across)
    room = 0.1 * (max(scores) - min(scores)) or 0.1 * abs(scores[0]) or 0.1
    return x, Scale(min(scores) - room, max(scores) + room, *down)


def _stairs(found: Sequence[Point], cost: str, less: bool, x: Scale, y: Scale) -> str:
    """From the cheapest on, every variant that is better than all that cost less."""
    best: float | None = None
    path = ""
    for p in sorted(found, key=lambda p: (p.cost(cost), p.score if less else -p.score)):
        if best is None or (p.score < best if less else p.score > best):
            path += f"H{_n(x(p.cost(cost)))}V{_n(y(p.score))}" if path else f"M{_n(x(p.cost(cost)))} {_n(y(p.score))}"
            best = p.score
    return f"{path}H{_n(x.stop)}" if path else ""


def _names(found: Sequence[Point], cost: str, x: Scale, y: Scale, width: float) -> Iterator[str]:
    """Beside each point of the front, where no other point or name is; a table names those that find no room."""
    taken = [(x(p.cost(cost)) - 5, y(p.score) - 5, x(p.cost(cost)) + 5, y(p.score) + 5) for p in found]
    for p in (p for p in found if p.front):
        across, down, wide = x(p.cost(cost)), y(p.score), width_of(p.trial, SIZE)
        for dx, dy in ((6, -7), (-6 - wide, -7), (6, 16), (-6 - wide, 16), (9, 4), (-9 - wide, 4)):
            box = (across + dx, down + dy - 10, across + dx + wide, down + dy + 2)
            inside = box[0] > x.start and box[2] < width and box[1] > 0 and box[3] < y.start
            if inside and not any(_meet(box, other) for other in taken):
                taken.append(box)
                yield f'<text class="name halo fc0" x="{_n(across + dx)}" y="{_n(down + dy)}">{escape(p.trial)}</text>'
                break


def _meet(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _n(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")
