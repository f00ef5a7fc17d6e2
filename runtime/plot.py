"""metrics rows -> loss.png: training and validation loss in bits per byte, against tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]
Curve = tuple[list[float], list[float]]

INK, FAINT, TRAIN, VALIDATION = "#1f2933", "#d9dee4", "#8aa4c8", "#c2410c"


def curve(rows: Sequence[Row], name: str, unit: float = 1.0) -> Curve:
    """(tokens, value / unit) of every row that has the metric."""
    found = [(row["tokens"], row[name] / unit) for row in rows if row.get(name) is not None]
    return [x for x, _ in found], [y for _, y in found]


def loss(rows: Sequence[Row], path: Path, title: str, bytes_per_token: float = 1.0, unit: str = "bits/byte") -> bool:
    """Draw a run's loss; False when there is nothing to draw.  Raises ModuleNotFoundError without matplotlib."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    train, (validation, final) = curve(rows, "train/loss", math.log(2) * bytes_per_token), judged(rows)
    if not train[0] and not validation[0]:
        return False
    figure = Figure(figsize=(8, 4.5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot(*train, color=TRAIN, linewidth=1.4, label="training")
    axes.plot(*validation, color=VALIDATION, linewidth=2, marker="o", markersize=4, label="validation")
    if final[0]:
        axes.plot(*final, color=VALIDATION, linestyle="", marker="*", markersize=13, label="validation, more text")
    axes.set_ylim(*window(train[1], [*validation[1], *final[1]]))
    axes.margins(x=0.09)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlabel("tokens", color=INK)
    axes.set_ylabel(unit.replace("/", " per "), color=INK)
    axes.set_title(title, loc="left", color=INK, fontsize=11, pad=12)
    axes.grid(axis="y", color=FAINT, linewidth=0.8)
    axes.tick_params(colors=INK, length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
    axes.set_axisbelow(True)
    for x, y in list(zip(*(final if final[0] else validation), strict=True))[-1:]:
        text = f"{y:.3f}"
        style = {"ha": "left", "va": "center", "color": VALIDATION, "fontweight": "bold"}
        axes.annotate(text, (x, y), xytext=(9, 0), textcoords="offset points", **style)
    axes.legend(frameon=False, labelcolor=INK)
    figure.savefig(path)
    return True


def judged(rows: Sequence[Row]) -> tuple[Curve, Curve]:
    """Validation on the way, always on the same sequences; and the one on more of them at the end, if there is one.

    Of a task, whose tokens are no text: bits of a token that is asked for."""
    name, unit, size = ("val/bits_per_byte", 1.0, "val/tokens")
    if not any(row.get(name) is not None for row in rows):
        name, unit, size = ("val/loss", math.log(2), "val/answers")
    found = [row for row in rows if row.get(name) is not None]
    sizes = [row.get(size, 0) for row in found]
    longer = [row for row, size in zip(found, sizes, strict=True) if size > sizes[0]]
    return curve([row for row in found if row not in longer], name, unit), curve(longer, name, unit)


def window(train: Sequence[float], validation: Sequence[float]) -> tuple[float, float]:
    """Limits that show the descent: everything but the first, steep tenth of training, and all of validation."""
    shown = [*train[len(train) // 10 :], *validation]
    low, high = min(shown), max(shown)
    room = 0.08 * (high - low) or 0.1
    return max(0.0, low - room), high + room
