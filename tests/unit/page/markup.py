"""HTML read by a parser that is strict about what is open."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "link", "br", "hr", "img", "input"}


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    inside: list[Element | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All text within, words apart by one space."""
        return " ".join(" ".join(x if isinstance(x, str) else x.text for x in self.inside).split())

    def all(self, tag: str = "", **attributes: str) -> list[Element]:
        """Every element within that has this tag and these attributes; `class_` is one of its classes."""
        own = [x for x in self.inside if isinstance(x, Element)]
        return [y for x in own for y in ([x] * x.fits(tag, attributes) + x.all(tag, **attributes))]

    def fits(self, tag: str, attributes: dict[str, str]) -> bool:
        wanted = dict(attributes)
        classes = self.attributes.get("class", "").split()
        if (one := wanted.pop("class_", None)) and one not in classes:
            return False
        return (not tag or tag == self.tag) and all(self.attributes.get(k) == v for k, v in wanted.items())

    def one(self, tag: str = "", **attributes: str) -> Element:
        (found,) = self.all(tag, **attributes)
        return found


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open = [Element("", {})]

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        made = Element(tag, {k: v or "" for k, v in attributes})
        self.open[-1].inside.append(made)
        if tag not in VOID:
            self.open.append(made)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.open[-1].inside.append(Element(tag, {k: v or "" for k, v in attributes}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].inside.append(data)


def read(html: str) -> Element:
    """The document; everything that was opened is closed, in order."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    assert len(reader.open) == 1, f"<{reader.open[-1].tag}> is never closed"
    return reader.open[0]
