"""Shapes on paper: what a drawing is made of before it is SVG.  Sizes are pixels; y grows downwards.

    scene = Scene()
    scene.text(10, 20, "titans", "name", size=15)
    scene.line([(0, 0), (40, 0), (40, 30)], "query", arrow=True)
    scene.svg("hope")           -> the picture as SVG text, light and dark by the reader's choice

Widths of text are estimated from above, so that what does not overlap here does not overlap in any font.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

NARROW, WIDE = frozenset("ijltfrI.,:;'|!()[] "), frozenset("mwMW@%")

# class -> (light, dark).  Ink is text; the others are flows.
COLOURS: dict[str, tuple[str, str]] = {
    "paper": ("#ffffff", "#0f1420"), "band": ("#f4f6fa", "#171d2b"), "rim": ("#dde3ee", "#29324a"),
    "box": ("#ffffff", "#1f2738"), "edge": ("#9aa7bd", "#56637f"),
    "ink": ("#1b2333", "#e8edf7"), "faint": ("#5c6980", "#9aa6bf"),
    "query": ("#2563eb", "#6ea0ff"), "output": ("#0f172a", "#dbe4f5"), "key": ("#0d9488", "#3fd0c2"),
    "value": ("#c26a00", "#f2a93b"), "rate": ("#9333ea", "#c58bff"), "retain": ("#3f8f1f", "#84d35f"),
    "rule": ("#be185d", "#f783b8"), "objective": ("#0e7490", "#5cc8e6"), "write": ("#475569", "#a9b6cf"),
    "gradient": ("#b91c6c", "#f472b6"), "error": ("#dc2626", "#ff7b7b"), "initialises": ("#94a3b8", "#65738f"),
}  # fmt: skip
SANS = "Inter, system-ui, Segoe UI, Helvetica, Arial, sans-serif"
MONO = "ui-monospace, SFMono-Regular, Menlo, Consolas, monospace"
DASHES = {"error": "7 4", "initialises": "2 4"}


def width_of(text: str, size: float) -> float:
    """An upper estimate of a text's width."""
    ems = sum(0.4 if c in NARROW else 0.98 if c in WIDE else 0.75 if c.isupper() else 0.66 for c in text)
    return ems * size


def shortened(text: str, size: float, room: float) -> str:
    """The text, cut with an ellipsis to fit."""
    if width_of(text, size) <= room:
        return text
    while text and width_of(text + "…", size) > room:
        text = text[:-1]
    return text.rstrip() + "…"


@dataclass(frozen=True, slots=True)
class Text:
    x: float
    y: float  # of the baseline
    text: str
    colour: str = "ink"
    size: float = 12
    anchor: str = "start"  # start | middle | end
    bold: bool = False
    mono: bool = False

    def extent(self) -> tuple[float, float, float, float]:
        """(left, top, right, bottom)."""
        width = width_of(self.text, self.size)
        left = self.x - {"start": 0.0, "middle": width / 2, "end": width}[self.anchor]
        return left, self.y - 0.8 * self.size, left + width, self.y + 0.22 * self.size


@dataclass(frozen=True, slots=True)
class Box:
    x: float
    y: float
    width: float
    height: float
    fill: str = "box"
    stroke: str = "edge"
    radius: float = 8
    stroke_width: float = 1.2


@dataclass(frozen=True, slots=True)
class Line:
    points: tuple[tuple[float, float], ...]
    colour: str
    arrow: bool = False
    thickness: float = 1.6


@dataclass
class Scene:
    """Boxes under lines under text."""

    boxes: list[Box] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    chips: list[Box] = field(default_factory=list)
    texts: list[Text] = field(default_factory=list)

    def text(self, x: float, y: float, text: str, colour: str = "ink", **more: object) -> Text:
        made = Text(x, y, text, colour, **more)  # type: ignore[arg-type]
        if text:
            self.texts.append(made)
        return made

    def box(self, x: float, y: float, width: float, height: float, **more: object) -> None:
        self.boxes.append(Box(x, y, width, height, **more))  # type: ignore[arg-type]

    def line(
        self, points: Sequence[tuple[float, float]], colour: str, arrow: bool = False, thickness: float = 1.6
    ) -> None:
        self.lines.append(Line(tuple(points), colour, arrow, thickness))

    def chip(self, x: float, y: float, text: str, colour: str) -> float:
        """A rounded label centred on (x, y); returns its width."""
        width = width_of(text, 11) + 14
        self.chips.append(Box(x - width / 2, y - 9, width, 18, fill="box", stroke=colour, radius=9))
        self.text(x, y + 4, text, colour, size=11, anchor="middle", bold=True)
        return width

    def size(self) -> tuple[float, float]:
        right = max([b.x + b.width for b in (*self.boxes, *self.chips)] + [t.extent()[2] for t in self.texts])
        bottom = max([b.y + b.height for b in (*self.boxes, *self.chips)] + [t.extent()[3] for t in self.texts])
        return right, bottom

    # ---- as SVG -----------------------------------------------------------------------------------------------

    def svg(self, title: str, description: str = "", margin: float = 24, top: float = 0) -> str:
        """The picture, from `top` on.  Colours follow the reader's light or dark scheme."""
        right, bottom = self.size()
        size, down = (_n(right + margin), _n(bottom + margin - top)), f'y="{_n(top)}" ' if top else ""
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 {_n(top)} {size[0]} {size[1]}" width="{size[0]}"'
            f' height="{size[1]}" role="img" font-family="{SANS}">',
            f"<title>{escape(title)}</title>",
            *([f"<desc>{escape(description)}</desc>"] if description else []),
            f"<style>{_style()}</style>",
            f"<defs>{''.join(_arrowhead(c) for c in sorted({x.colour for x in self.lines if x.arrow}))}</defs>",
            f'<rect class="f-paper" {down}width="{size[0]}" height="{size[1]}"/>',
            *map(_box, self.boxes), *map(_line, self.lines), *map(_box, self.chips), *map(_text, self.texts),
            "</svg>",
        ]  # fmt: skip
        return "\n".join(parts) + "\n"


def _n(number: float) -> str:
    return f"{number:.1f}".rstrip("0").rstrip(".")


def _style() -> str:
    """Fill (f-) and stroke (s-) of every colour, light; then dark."""
    rules = [
        "".join(f".f-{name}{{fill:{pair[i]}}}.s-{name}{{stroke:{pair[i]}}}" for name, pair in COLOURS.items())
        for i in (0, 1)
    ]
    return f"{rules[0]}@media (prefers-color-scheme:dark){{{rules[1]}}}"


def _arrowhead(colour: str) -> str:
    return (
        f'<marker id="to-{colour}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto"'
        f' markerUnits="userSpaceOnUse"><path class="f-{colour}" d="M0 0.6 8 4 0 7.4z"/></marker>'
    )


def _box(box: Box) -> str:
    place = f'x="{_n(box.x)}" y="{_n(box.y)}" width="{_n(box.width)}" height="{_n(box.height)}" rx="{_n(box.radius)}"'
    return f'<rect class="f-{box.fill} s-{box.stroke}" {place} stroke-width="{_n(box.stroke_width)}"/>'


def _line(line: Line) -> str:
    (x, y), *rest = line.points
    path = f"M{_n(x)} {_n(y)}" + "".join(f"L{_n(a)} {_n(b)}" for a, b in rest)
    style = f'fill="none" stroke-width="{_n(line.thickness)}" stroke-linejoin="round"'
    dash = f' stroke-dasharray="{DASHES[line.colour]}"' if line.colour in DASHES else ""
    head = f' marker-end="url(#to-{line.colour})"' if line.arrow else ""
    return f'<path class="s-{line.colour}" d="{path}" {style}{dash}{head}/>'


def _text(text: Text) -> str:
    anchor = f' text-anchor="{text.anchor}"' if text.anchor != "start" else ""
    weight = ' font-weight="600"' if text.bold else ""
    family = f' font-family="{MONO}"' if text.mono else ""
    style = f'class="f-{text.colour}" font-size="{_n(text.size)}"{anchor}{weight}{family}'
    return f'<text x="{_n(text.x)}" y="{_n(text.y)}" {style}>{escape(text.text)}</text>'
