"""The leaderboard's pictures: the interval of each score on one scale."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

from nlc.page.chart import Scale
from nlc.variants.standings import Estimate
from nlc.variants.table import said

WIDTH, HEIGHT = 150.0, 18.0


def pictures(found: Sequence[Estimate | None], name: str) -> list[str]:
    """A mark at each mean and a bar over its interval, on one scale for all; "" without a score."""
    ends = [x for e in found if e is not None for x in (e.mean, e.low, e.high) if x is not None]
    low, high = min(ends, default=0.0), max(ends, default=1.0)
    room = 0.04 * (high - low) or 1.0
    x = Scale(low - room, high + room, 4, WIDTH - 4)
    return ["" if e is None else _picture(e, x, name) for e in found]


def _picture(found: Estimate, x: Scale, name: str) -> str:
    middle, parts = HEIGHT / 2, [f'<rect class="lane" x="0" y="2" width="{WIDTH:g}" height="{HEIGHT - 4:g}" rx="3"/>']
    if found.low is not None and found.high is not None:
        left, right = x(found.low), x(found.high)
        parts.append(f'<rect class="fc0 band" x="{left:.1f}" y="6" width="{max(1, right - left):.1f}" height="6"/>')
    parts.append(f'<circle class="fc0 mark" cx="{x(found.mean):.1f}" cy="{middle:g}" r="4.5"/>')
    words = escape(f"{name} {said(found, name)}", {'"': "&quot;"})
    return (
        f'<svg class="interval" viewBox="0 0 {WIDTH:g} {HEIGHT:g}" style="--w:{WIDTH:g}px" role="img"'
        f' aria-label="{words}">{"".join(parts)}</svg>'
    )
