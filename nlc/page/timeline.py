"""A graph -> SVG of its levels in time, fastest on top: a mark wherever a level is updated.

One picture shows one training sequence, token by token, the other some steps.  Where marks would stand closer than a
pixel or two they become a band.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from math import prod
from xml.sax.saxutils import escape, quoteattr

from nlc.explain import is_attention
from nlc.graph.draw_levels import said_period
from nlc.graph.draw_scene import shortened, width_of
from nlc.graph.graph import Graph
from nlc.graph.nodes import Carry, Level, Unit
from nlc.page.chart import Scale, said

ROW, BAND, TOP = 50.0, 20.0, 6.0
CLOSEST = 3.0  # pixels between two marks


@dataclass(frozen=True, slots=True)
class Beat:
    """A level of the picture, in units of the axis."""

    level: Level
    every: Fraction  # of its updates; 0 is never
    attends: bool
    chunk: Fraction  # tokens that read one state; 0 where it is one
    restarts: Fraction = Fraction(0)  # the length of a sequence, where its clock begins anew with each; 0: it goes on

    def times(self, length: Fraction) -> tuple[int, int]:
        """Stretches of one clock up to `length`, and updates in each."""
        if not self.every:
            return 1, 0
        span = self.restarts or length
        return max(1, int(length / span)), int(span / self.every)

    def updates(self, length: Fraction) -> Iterator[Fraction]:
        """Where they fall, from 0 up to `length`."""
        stretches, within = self.times(length)
        return (i * self.restarts + n * self.every for i in range(stretches) for n in range(1, within + 1))


def sequence(graph: Graph, width: float) -> str:
    """One training sequence: the axis is its tokens."""
    context = graph.sizes["context"]
    beats = [_beat(graph, level, 1, context) for level in _levels(graph)]
    return _svg(graph, beats, Scale(0, context, 8, width - 8), "token", width, steps=context)


def steps(graph: Graph, width: float) -> str:
    """As many steps as the slowest level needs to be seen twice, but at least four."""
    context = graph.sizes["context"]
    slowest = max([level.period.count for level in graph.levels if level.period.unit is Unit.STEP] + [1])
    count = min(12, max(4, 2 * slowest))
    beats = [_beat(graph, level, Fraction(1, context), 1) for level in _levels(graph)]
    return _svg(graph, beats, Scale(0, count, 8, width - 8), "step", width, steps=1)


def _levels(graph: Graph) -> list[Level]:
    return sorted(graph.levels, key=lambda level: level.index)


def _beat(graph: Graph, level: Level, token: int | Fraction, step: int) -> Beat:
    """Its period in units of the axis, given the length of a token and of a step."""
    memories = [graph[m] for m in level.memories]
    unit = {Unit.TOKEN: Fraction(token), Unit.STEP: Fraction(step), Unit.NEVER: Fraction(0)}
    every = unit.get(level.period.unit, Fraction(step)) * level.period.count
    chunk = max((m.chunk for m in memories), default=1)
    attends = bool(memories) and all(map(is_attention, memories))
    anew = level.period.unit is Unit.TOKEN and any(m.carry is Carry.SEQUENCE for m in memories)
    return Beat(
        level,
        Fraction(token) if attends else every,
        attends,
        Fraction(token) * chunk if chunk > 1 else Fraction(0),
        Fraction(token) * graph.sizes["context"] if anew else Fraction(0),
    )


def _svg(graph: Graph, beats: list[Beat], x: Scale, what: str, width: float, steps: int) -> str:
    bottom = TOP + ROW * len(beats)
    parts = []
    if what == "step":
        parts += [f'<path class="border" d="M{_n(x(i))} {TOP}V{_n(bottom)}"/>' for i in range(int(x.high) + 1)]
    for i, beat in enumerate(beats):
        parts += _row(beat, i, x, TOP + i * ROW, width, what)
    parts.append(f'<path class="axis" d="M{_n(x.start)} {_n(bottom)}H{_n(x.stop)}"/>')
    ticks = [float(i) for i in range(int(x.high) + 1)] if what == "step" else x.ticks(5)
    ticks = ticks if ticks[-1] == x.high else [*[t for t in ticks if x(x.high) - x(t) > 60], x.high]
    for tick in ticks:
        last = tick == ticks[-1]
        text = f"{tick:,.0f}{f' {what}s' if last else ''}"
        anchor = "end" if last else "start" if tick == 0 else "middle"
        place = x.stop if last else x(tick)
        if last or place + 14 < x.stop - width_of(f"{x.high:,.0f} {what}s", 11):
            parts.append(
                f'<text class="tick" x="{_n(place)}" y="{_n(bottom + 17)}" text-anchor="{anchor}">{text}</text>'
            )
    title = "one sequence" if what == "token" else f"{int(x.high)} steps"
    return (
        f'<svg class="plot" viewBox="0 0 {_n(width)} {_n(bottom + 24)}" role="img" style="--w:{_n(width)}px"'
        f" aria-label={quoteattr(f'When each level of {graph.name} is updated, in {title}')}>{''.join(parts)}</svg>"
    )


def _row(beat: Beat, i: int, x: Scale, top: float, width: float, what: str) -> Iterator[str]:
    level, y = beat.level, top + 18
    often = _often(beat, x, what)
    room = width - 16 - width_of(often, 11) - 12
    name = shortened(f"{level.name}", 12, room * 0.6)
    clock = shortened(said_period(level.period, beat.attends), 11, room - width_of(name, 12) - 8)
    beside = f'<tspan class="tick" dx="8">{escape(clock)}</tspan>'
    yield f'<text class="level" x="8" y="{_n(y - 5)}">{escape(name)}{beside}</text>'
    yield f'<text class="tick" x="{_n(width - 8)}" y="{_n(y - 5)}" text-anchor="end">{escape(often)}</text>'
    lane = f'x="{_n(x.start)}" y="{_n(y)}" width="{_n(x.stop - x.start)}" height="{_n(BAND)}" rx="3"'
    yield f'<rect class="lane" {lane}/>'
    gap = float(beat.every) / (x.high - x.low) * (x.stop - x.start)
    colour = f"fc{i % 7}"
    if not beat.every:
        return
    if gap < CLOSEST:
        faint = " faint" if beat.attends else ""
        yield f'<rect class="{colour} band{faint}" {lane}/>'
    else:
        for update in beat.updates(Fraction(x.high)):
            at = min(x(float(update)), x.stop - 1.5)
            yield f'<rect class="{colour}" x="{_n(at - 1.5)}" y="{_n(y)}" width="3" height="{_n(BAND)}" rx="1.5"/>'
    pitch = float(beat.chunk) / (x.high - x.low) * (x.stop - x.start)
    if beat.chunk and pitch > CLOSEST:
        for n in range(1, int(Fraction(x.high) / beat.chunk) + 1):
            yield f'<path class="chunk" d="M{_n(x(float(n * beat.chunk)))} {_n(y)}v{_n(BAND)}"/>'


def _often(beat: Beat, x: Scale, what: str) -> str:
    """512 updates, chunks of 64; none within it."""
    if beat.attends:
        return ""
    if not beat.every:
        return "never"
    count = prod(beat.times(Fraction(x.high)))
    text = f"{said(count, 4)} update{'s' * (count != 1)}" if count else "none within it"
    return text + (f", read every {beat.chunk}" if beat.chunk and what == "token" else "")


def _n(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")
