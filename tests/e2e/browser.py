"""A page in Debian's Chromium, driven by Playwright: what it complains of, what overflows, which texts touch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = Path("/usr/bin/chromium")

TEXTS = """() => {
  const clip = (node) => {
    let box = [0, 0, Infinity, Infinity];
    for (let e = node; e && e !== document.documentElement; e = e.parentElement) {
      const style = getComputedStyle(e);
      if (style.overflowX === 'visible' || e.tagName === 'svg' || e === document.body) continue;
      const r = e.getBoundingClientRect();
      box = [Math.max(box[0], r.left), Math.max(box[1], r.top), Math.min(box[2], r.right), Math.min(box[3], r.bottom)];
    }
    return box;
  };
  const colours = (element) => {
    const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
    const svg = element instanceof SVGElement;
    const ink = parse(getComputedStyle(element)[svg ? 'fill' : 'color']);
    let paper = [0, 0, 0, 0];
    for (let e = element; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] > 0) { paper = c; break; }
    }
    return [ink.slice(0, 3), paper.slice(0, 3)];
  };
  const found = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const node = walk.currentNode, parent = node.parentElement;
    if (!node.data.trim() || ['STYLE', 'TITLE', 'title', 'desc', 'style'].includes(parent.tagName)) continue;
    if (!parent.checkVisibility()) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    const limit = clip(parent);
    for (const r of range.getClientRects()) {
      const [left, right] = [Math.max(r.left, limit[0]), Math.min(r.right, limit[2])];
      const [top, bottom] = [Math.max(r.top, limit[1]), Math.min(r.bottom, limit[3])];
      if (right - left < 1 || bottom - top < 1) continue;
      const [ink, paper] = colours(parent);
      found.push({text: node.data.trim(), left, right, top, bottom, ink, paper,
                  graph: !!parent.closest('.graph'), nav: !!parent.closest('nav')});
    }
  }
  return found;
}"""


SQUEEZED = """(least) => {
  const pen = document.createElement('canvas').getContext('2d');
  const found = [];
  for (const cell of document.querySelectorAll('th, td')) {
    if (!cell.checkVisibility() || !cell.textContent.trim()) continue;
    const style = getComputedStyle(cell), range = document.createRange();
    pen.font = style.font;
    range.selectNodeContents(cell);
    const boxes = [...range.getClientRects()].filter((r) => r.width > 1);
    const lines = new Set(boxes.map((r) => Math.round(r.top))).size;
    const written = cell.textContent.trim().split('\\n').length;
    const pixels = Math.max(...boxes.map((r) => r.right)) - Math.min(...boxes.map((r) => r.left));
    const width = pixels / pen.measureText('0').width;
    if (lines > written && width < least) found.push([cell.textContent.trim(), Math.round(10 * width) / 10]);
  }
  return found;
}"""


class Shown:
    """A page as a reader sees it."""

    def __init__(self, page: Any, said: list[str]) -> None:
        self.page, self.said = page, said
        self.texts: list[dict[str, Any]] = page.evaluate(TEXTS)

    def open_all(self) -> None:
        """What a reader can unfold."""
        self.page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
        self.texts = self.page.evaluate(TEXTS)

    def darken(self) -> None:
        """The same for a reader who prefers dark pages."""
        self.page.emulate_media(color_scheme="dark")
        self.texts = self.page.evaluate(TEXTS)

    @property
    def overflow(self) -> int:
        """Pixels that the page is wider than the window."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth"))

    @property
    def paper(self) -> str:
        return str(self.page.evaluate("getComputedStyle(document.body).backgroundColor"))

    def touching(self, room: float = 1.5) -> list[tuple[str, str]]:
        """Pairs of texts that cover one another by more than `room` pixels both ways; ends of lines set apart."""
        texts = sorted((t for t in self.texts if not t["nav"]), key=lambda t: t["top"])
        found = []
        for i, a in enumerate(texts):
            for b in texts[i + 1 :]:
                if b["top"] > a["bottom"] - room:
                    break
                across = min(a["right"], b["right"]) - max(a["left"], b["left"])
                down = min(a["bottom"], b["bottom"]) - max(a["top"], b["top"])
                if across > room and down > 0.35 * min(a["bottom"] - a["top"], b["bottom"] - b["top"]):
                    found.append((a["text"], b["text"]))
        return found

    def squeezed(self, least: float = 12) -> list[tuple[str, float]]:
        """Cells of tables whose text breaks into lines that are all narrower than `least` digits, and their width."""
        return [(text, width) for text, width in self.page.evaluate(SQUEEZED, least)]

    def outside(self) -> list[str]:
        """Texts cut off at the left or right edge of the window."""
        width = self.page.evaluate("window.innerWidth")
        return [t["text"] for t in self.texts if t["left"] < -0.5 or t["right"] > width + 0.5]

    def pale(self, least: float) -> list[tuple[str, float]]:
        """Texts whose contrast with what is behind them is below `least`."""
        ratios = [(t["text"], contrast(t["ink"], t["paper"])) for t in self.texts if not t["graph"]]
        return [(text, round(ratio, 2)) for text, ratio in ratios if ratio < least]


def contrast(a: list[float], b: list[float]) -> float:
    """WCAG 2: (L1 + 0.05) / (L2 + 0.05) of relative luminances."""

    def luminance(colour: list[float]) -> float:
        parts = [c / 255 for c in colour]
        parts = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def browser() -> Iterator[Any]:
    """Chromium; a test that asks for it is skipped, with the reason, where it is not there."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not there")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield opened
        opened.close()


def shown(opened: Any, file: Path, width: int) -> Shown:
    page = opened.new_page(viewport={"width": width, "height": 900}, color_scheme="light")
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith(("file:", "data:")) else said.append(request.url))
    page.goto(file.resolve().as_uri())
    return Shown(page, said)
