"""A panel -> SVG: axes with units, curves with their names at their ends.  Colours are classes of the page's style."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr
from zlib import crc32

from nlc.graph.draw_scene import shortened, width_of
from nlc.page.curves import COLOURS, Panel, Series
from nlc.page.facts import Points

MOST = 400  # points drawn of one curve
LINE = 14.0  # least distance between the names of two curves
SIZE = 11.0  # of text
BOLD = 11.8  # of the size that text in bold needs as much room as


@dataclass(frozen=True, slots=True)
class Scale:
    """Numbers of an axis -> places on paper."""

    low: float
    high: float
    start: float
    stop: float
    log: bool = False

    def __call__(self, value: float) -> float:
        a, b, v = (math.log10(x) for x in (self.low, self.high, value)) if self.log else (self.low, self.high, value)
        return self.start + (v - a) / ((b - a) or 1) * (self.stop - self.start)

    def ticks(self, about: int) -> list[float]:
        """Round numbers within the axis, about so many."""
        if self.log:
            first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
            every = max(1, math.ceil((last - first + 1) / about))
            return [10.0**n for n in range(first, last + 1, every)]
        return min(self._every(), key=lambda found: (len(found) < 2, abs(len(found) - about)))

    def _every(self) -> list[list[float]]:
        """The multiples within the axis of 1, 2 and 5 times each power of ten that has a few of them."""
        power = 10.0 ** math.floor(math.log10((self.high - self.low) or 1))
        found = []
        for step in (power * m for m in (0.1, 0.2, 0.5, 1, 2, 5)):
            first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
            found.append([float(f"{i * step:.12g}") for i in range(first, last + 1)])
        return found


def svg(panel: Panel, width: float, height: float, about: int = 4) -> str:
    """The panel, `width` by `height` pixels where it is not scaled."""
    ends = [s for s in panel.series if s.label and any(y is not None for _, y in s.points)]
    names = max([width_of(s.label, BOLD) for s in ends] + [0.0])
    alone = len(panel.series) == 1 and not ends
    if alone:
        names = width_of(last_value(panel.series[0]), BOLD)
    right = min(width * 0.42, names + 12) if ends or alone else 14.0
    x, y = scales(panel, (48.0, width - right), (height - 26, 10.0))
    parts = [*axes(x, y, width, about)]
    clip = f"clip{crc32(repr((panel.title, width, x, y)).encode()):x}"
    area = f'x="{_n(x.start)}" y="4" width="{_n(x.stop - x.start + 6)}" height="{_n(y.start - 4)}"'
    parts.append(f'<clipPath id="{clip}"><rect {area}/></clipPath><g clip-path="url(#{clip})">')
    parts += [part for s in panel.series for part in _curve(s, x, y)]
    parts.append("</g>")
    parts += _names(ends, x, y, width)
    if alone:
        parts += _last(panel.series[0], x, y)
    words = f"{panel.title}, {panel.unit}, against tokens"
    return (
        f'<svg class="plot" viewBox="0 0 {_n(width)} {_n(height)}" role="img" aria-label={quoteattr(words)}'
        f' style="--w:{_n(width)}px">{"".join(parts)}</svg>'
    )


def scales(panel: Panel, across: tuple[float, float], down: tuple[float, float]) -> tuple[Scale, Scale]:
    """Axes that hold all that is finite."""
    xs = [x for s in panel.series for x, _ in s.points]
    ys = [v for s in panel.series for v in _shown(s.points, panel.settle)]
    low, high = min(ys, default=0.0), max(ys, default=1.0)
    log = panel.log and low > 0
    if not log:
        room = 0.08 * (high - low) or 0.12 * abs(high) or 1.0
        low, high = (low - room if low < 0 or low - room > 0 else 0.0), high + room
    else:
        low, high = low / 1.5, high * 1.5
    return Scale(0.0, max(xs, default=1) or 1, *across), Scale(low, high, *down, log)


def _shown(points: Points, settle: bool) -> list[float]:
    """The values that set the scale."""
    values = [y for _, y in points if y is not None]
    return values[len(values) // 10 :] if settle and len(values) > 4 else values


def axes(x: Scale, y: Scale, width: float, about: int, across: str = "tokens") -> Iterator[str]:
    """Lines and numbers of both axes; `across` is the unit of x."""
    for value in y.ticks(about):
        at = y(value)
        yield f'<path class="grid" d="M{_n(x.start)} {_n(at)}H{_n(x.stop)}"/>'
        yield f'<text class="tick" x="{_n(x.start - 6)}" y="{_n(at + 4)}" text-anchor="end">{said(value)}</text>'
    yield f'<path class="axis" d="M{_n(x.start)} {_n(y.start)}H{_n(x.stop)}"/>'
    ticks = x.ticks(max(2, min(6, int((x.stop - x.start) / 110))))
    end = f"{said(ticks[-1])} {across}"  # the unit stands after the last number, within the picture
    last = min(x(ticks[-1]) - width_of(said(ticks[-1]), SIZE) / 2, width - 2 - width_of(end, SIZE))
    places = [(x(value), said(value), "middle") for value in ticks[:-1]]
    places = [p for p in places if p[0] + width_of(p[1], SIZE) / 2 + 10 < last]
    for value in ticks:
        yield f'<path class="axis" d="M{_n(x(value))} {_n(y.start)}v4"/>'
    for place, text, anchor in [*places, (last, end, "start")]:
        yield f'<text class="tick" x="{_n(place)}" y="{_n(y.start + 17)}" text-anchor="{anchor}">{text}</text>'


def _curve(series: Series, x: Scale, y: Scale) -> Iterator[str]:
    points = thinned(series.points)
    colour, role = f"c{series.colour % COLOURS}", series.role
    if role != "point":
        path = "".join(_path(points, x, y))
        yield f'<path class="curve {role} s{colour}" d="{path}"/>' if path else ""
    single = [p for p in points if p[1] is not None]
    if role in ("marked", "point") or len(single) == 1:
        radius = 5.0 if role == "point" else 3.2
        for a, b in single:
            if b is not None:
                note = f"<title>{said(b, 4)} at {said(a)} tokens</title>"
                yield f'<circle class="f{colour} mark" cx="{_n(x(a))}" cy="{_n(y(b))}" r="{radius}">{note}</circle>'
    for a, b in points:
        if b is None and not y.log:
            cross = f"M{_n(x(a) - 3)} {_n(y.start - 7)}l6 6m0 -6l-6 6"
            yield f'<path class="lost" d="{cross}"><title>not finite</title></path>'


def _path(points: Points, x: Scale, y: Scale) -> Iterator[str]:
    """M x y L x y ...; a value that is not finite leaves a gap."""
    pen = "M"
    for a, b in points:
        if b is None or (y.log and b <= 0):
            pen = "M"
            continue
        yield f"{pen}{_n(x(a))} {_n(y(b))}"
        pen = "L"


def thinned(points: Points) -> Points:
    """At most about MOST of the points: of every bucket the least and the greatest, in their order."""
    if len(points) <= MOST:
        return points
    size = math.ceil(2 * len(points) / MOST)
    found: Points = []
    for i in range(0, len(points), size):
        bucket = points[i : i + size]
        finite = [p for p in bucket if p[1] is not None]
        ends = [min(finite, key=_height), max(finite, key=_height)] if finite else bucket[:1]
        found += sorted(dict.fromkeys(ends))
    return found


def _height(point: tuple[float, float | None]) -> float:
    return point[1] or 0.0


def _names(series: Sequence[Series], x: Scale, y: Scale, width: float) -> Iterator[str]:
    """The names of the curves, where they end, moved apart until none covers another."""
    ends = [(last_finite(s.points) or 0.0, s) for s in series]
    wanted = [min(max(y(b if not y.log or b > 0 else y.low), y.stop), y.start) for b, _ in ends]
    for place, (value, s) in zip(apart(wanted, y.stop + 4, y.start), ends, strict=True):
        text = shortened(s.label, BOLD, width - x.stop - 8)
        title = f"<title>{escape(s.label)}: {said(value, 4)}</title>"
        yield (
            f'<text class="name fc{s.colour % COLOURS}" x="{_n(x.stop + 7)}" y="{_n(place + 4)}">'
            f"{escape(text)}{title}</text>"
        )


def _last(series: Series, x: Scale, y: Scale) -> Iterator[str]:
    """The last value, beside the end of a curve that is alone."""
    value = last_finite(series.points)
    if value is not None and (not y.log or value > 0):
        at = min(max(y(value), y.stop + 4), y.start)
        colour = f"fc{series.colour % COLOURS}"
        yield f'<text class="name {colour}" x="{_n(x.stop + 7)}" y="{_n(at + 4)}">{last_value(series)}</text>'


def last_finite(points: Points) -> float | None:
    return next((y for _, y in reversed(points) if y is not None), None)


def last_value(series: Series) -> str:
    value = last_finite(series.points)
    return "" if value is None else said(value)


def apart(places: Sequence[float], top: float, bottom: float) -> list[float]:
    """Places moved as little as is needed to stand LINE apart, within top and bottom where there is room."""
    order = sorted(range(len(places)), key=lambda i: places[i])
    found = [0.0] * len(places)
    at = top - LINE
    for i in order:
        at = found[i] = max(places[i], at + LINE)
    at = bottom + LINE
    for i in reversed(order):
        at = found[i] = min(found[i], at - LINE)
    return found


def said(value: float, digits: int = 3) -> str:
    """A number as a person reads it: 0, 0.004, 1.25, 20k, 1.5M."""
    size = abs(value)
    for least, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if size >= least * 0.9995:
            scaled = value / (1e3 if unit == "k" else least)
            return f"{scaled:.{digits}g}{unit}" if abs(scaled) < 10**digits else f"{scaled:,.0f}{unit}"
    if 0 < size < 1e-3:
        mantissa, power = f"{value:.{digits - 1}e}".split("e")
        return f"{mantissa.rstrip('0').rstrip('.') if '.' in mantissa else mantissa}e{int(power)}"
    return f"{value:,.0f}" if size >= 1000 else f"{value:.{digits}g}"


def _n(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")
