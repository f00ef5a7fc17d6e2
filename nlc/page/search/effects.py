"""What the values of each axis do: the scores of all variants with a value, and pairs in which all else is equal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

from nlc.graph.draw_scene import shortened, width_of
from nlc.page.chart import SIZE, Scale, said
from nlc.page.search.facts import SearchFacts
from nlc.variants.axes import BASE
from nlc.variants.journal import Record
from nlc.variants.standings import SHARES, Estimate, mean
from nlc.variants.table import said as said_score

ROW, BAND, TOP = 44.0, 16.0, 6.0


@dataclass(frozen=True, slots=True)
class Value:
    """tried: architectures with this value, duplicates once; points: (trial, score) of those with a score.

    mean: of these, with Student's interval.  paired: the mean difference to the first value of the axis, over variants
    that are equal in all other axes; None for the first, and where there is no such pair.
    """

    label: str
    tried: int
    points: tuple[tuple[str, float], ...]
    mean: Estimate | None
    paired: Estimate | None


@dataclass(frozen=True, slots=True)
class Effect:
    axis: str
    values: tuple[Value, ...]


def effects(facts: SearchFacts) -> list[Effect]:
    """Of every axis, by the first rung's score, which every variant was given; mutants do not count."""
    scores: dict[str, float] = {}
    chosen: dict[str, Mapping[str, str]] = {}
    for trial, line in facts.trials.items():
        if not line["edits"]:
            chosen[trial] = _choices(line)
            if (found := facts.score(trial, 0)) is not None:
                scores[trial] = found.mean
    same = {trial: line["of"] or trial for trial, line in facts.trials.items()}
    share = facts.rank_by(0).rsplit(".", 1)[-1] in SHARES
    return [
        Effect(axis, tuple(_value(axis, label, labels[0], chosen, scores, same, share) for label in labels))
        for axis, labels in facts.head["axes"].items()
        if labels
    ]


def _choices(line: Record) -> dict[str, str]:
    return {BASE: line["base"], **line["settings"]}


def _value(
    axis: str, label: str, first: str, chosen: Mapping[str, Mapping[str, str]], scores: Mapping[str, float],
    same: Mapping[str, str], share: bool,
) -> Value:  # fmt: skip
    mine = [trial for trial, labels in chosen.items() if labels.get(axis) == label]
    distinct = {same[trial]: trial for trial in reversed(mine)}  # one architecture is one observation
    points = tuple((trial, scores[trial]) for trial in mine if distinct[same[trial]] == trial and trial in scores)
    others = {_rest(labels, axis): trial for trial, labels in chosen.items() if labels.get(axis) == first}
    pairs = [(trial, others.get(_rest(chosen[trial], axis))) for trial in mine]
    gained = {(same[a], same[b]): scores[a] - scores[b] for a, b in pairs if b and a in scores and b in scores}
    return Value(
        label, len(distinct), points, mean([score for _, score in points], share=share) if points else None,
        mean(list(gained.values())) if gained and label != first else None,
    )  # fmt: skip


def _rest(labels: Mapping[str, str], axis: str) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, label) for name, label in labels.items() if name != axis))


def svg(effect: Effect, name: str, low: float, high: float, width: float) -> str:
    """A lane for each value: a mark for each variant, a line at their mean, its interval as a band."""
    room = 0.05 * (high - low) or 0.1 * abs(high) or 0.1
    x = Scale(low - room, high + room, 8, width - 8)
    bottom = TOP + ROW * len(effect.values)
    parts = [part for i, value in enumerate(effect.values) for part in _lane(value, i, x, name, width)]
    parts.append(f'<path class="axis" d="M{_n(x.start)} {_n(bottom)}H{_n(x.stop)}"/>')
    for tick in x.ticks(4):
        place, half = x(tick), width_of(said(tick), SIZE) / 2
        at = min(max(place, half + 2), width - half - 2)
        parts.append(f'<path class="axis" d="M{_n(place)} {_n(bottom)}v4"/>')
        parts.append(f'<text class="tick" x="{_n(at)}" y="{_n(bottom + 17)}" text-anchor="middle">{said(tick)}</text>')
    words = quoteattr(f"{name} of all variants by {effect.axis}")
    return (
        f'<svg class="plot" viewBox="0 0 {_n(width)} {_n(bottom + 24)}" role="img" aria-label={words}'
        f' style="--w:{_n(width)}px">{"".join(parts)}</svg>'
    )


def _lane(value: Value, i: int, x: Scale, name: str, width: float) -> Iterator[str]:
    y = TOP + i * ROW + 18
    told = f"{said_score(value.mean, name)}" if value.mean else "no score"
    beside = f"{told}, n = {len(value.points)}" if value.mean else told
    label = shortened(value.label, 12, width - 16 - width_of(beside, SIZE) - 12)
    yield f'<text class="level" x="8" y="{_n(y - 5)}">{escape(label)}<title>{escape(value.label)}</title></text>'
    yield f'<text class="tick" x="{_n(width - 8)}" y="{_n(y - 5)}" text-anchor="end">{escape(beside)}</text>'
    tall = f'y="{_n(y)}" height="{_n(BAND)}"'
    yield f'<rect class="lane" x="{_n(x.start)}" width="{_n(x.stop - x.start)}" {tall} rx="3"/>'
    if value.mean is None:
        return
    if value.mean.low is not None and value.mean.high is not None:
        left, right = (min(max(x(end), x.start), x.stop) for end in (value.mean.low, value.mean.high))
        yield f'<rect class="fc0 band faint" x="{_n(left)}" width="{_n(right - left)}" {tall}/>'
    yield f'<rect class="fc0" x="{_n(x(value.mean.mean) - 1.5)}" width="3" {tall} rx="1.5"/>'
    for trial, score in value.points:
        note = f"<title>{escape(trial)}: {said(score, 4)}</title>"
        yield f'<circle class="hollow" cx="{_n(x(score))}" cy="{_n(y + BAND / 2)}" r="3.6">{note}</circle>'


def bounds(found: Sequence[Effect]) -> tuple[float, float]:
    """Least and greatest score of any variant: one scale for all axes."""
    scores = [score for effect in found for value in effect.values for _, score in value.points]
    return min(scores, default=0.0), max(scores, default=1.0)


def _n(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")
