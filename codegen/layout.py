"""Lines of Python as a formatter would leave them: at most 120 characters, split at a bracket or between terms."""

from __future__ import annotations

import re
from pathlib import PurePath

from nlc.source import Position

WIDTH = 120
UNBROKEN = "\u00a0"  # a space at which no line ends
OPEN, CLOSE = "([{", ")]}"


def fit(text: str, indent: int = 0) -> list[str]:
    """One statement, or one item of a list, as lines, indented by `indent` levels of four spaces."""
    pad = "    " * indent
    if len(pad) + len(text) <= WIDTH:
        return [pad + text]
    head, value = _assigned(text)
    terms = _terms(value)
    group = _last_group(text)
    if group is None or len(terms) > 2:
        return _operators(head, value, terms, indent)
    if len(terms) == 2 and (len(pad) + group[0] >= WIDTH or text.endswith("()")):  # a call follows the group
        return _operators(head, value, terms, indent)
    start, end = group
    opening, inner, tail = text[: start + 1], text[start + 1 : end], text[end:]
    if inner.endswith(","):
        inner = inner[:-1]
    items = _split(inner, ",")
    magic = text[end - 1] == ","
    if len(items) == 1 and not magic and re.search(r"(?<![\w\])])\($", opening):  # brackets around terms: no comma
        return [pad + opening, *_operators("", inner, _terms(inner), indent + 1), *fit_tail(tail, indent)]
    one = "    " * (indent + 1) + ", ".join(items) + ("," if magic and len(items) == 1 else "")
    lines = [pad + opening]
    if len(one) <= WIDTH and not magic and _single_line(inner):
        lines.append(one)
    else:
        for item in items:
            lines += _comma(fit(item, indent + 1))
    return [*lines, *fit_tail(tail, indent)]


def _assigned(text: str) -> tuple[str, str]:
    """`name = ` or `return `, and the value."""
    match = re.match(r"((?:[\w.\[\](), \"]+ = )|return )(.*)$", text)
    return (match.group(1), match.group(2)) if match else ("", text)


def _terms(value: str) -> list[str]:
    """A value cut at its loosest operators, each term with the operator before it; one term where there is none."""
    if value.startswith("lambda "):
        return [value]
    for symbols in ("+-", "*/@"):
        cuts = [i for i, c in _outside(value) if c in symbols and value[i - 1] == " " and value[i + 1] == " "]
        if cuts:
            return [value[a:b].strip() for a, b in zip([0, *cuts], [*cuts, len(value)], strict=True)]
    return [value]


def _outside(text: str) -> list[tuple[int, str]]:
    """The characters outside brackets and quotes."""
    depth, quote, found = 0, "", []
    for i, c in enumerate(text):
        if quote:
            quote = "" if c == quote else quote
        elif c in "\"'":
            quote = c
        elif c in OPEN:
            depth += 1
        elif c in CLOSE:
            depth -= 1
        elif depth == 0:
            found.append((i, c))
    return found


def fit_tail(tail: str, indent: int) -> list[str]:
    return ["    " * indent + tail]


def _single_line(inner: str) -> bool:
    return not inner.startswith("*")


def _comma(lines: list[str]) -> list[str]:
    return [*lines[:-1], lines[-1] + ","]


def _last_group(text: str) -> tuple[int, int] | None:
    """The last bracket pair at depth 0 that has content: (index of the opening, of the closing)."""
    depth, opened, found = 0, 0, None
    quote = ""
    for i, c in enumerate(text):
        if quote:
            quote = "" if c == quote else quote
        elif c in "\"'":
            quote = c
        elif c in OPEN:
            if depth == 0:
                opened = i
            depth += 1
        elif c in CLOSE:
            depth -= 1
            if depth == 0 and i > opened + 1 and len(text) - i <= 40:
                content = text[opened + 1 : i]
                if found is None or len(content) > 8:
                    found = (opened, i)
    return found


def _split(text: str, separator: str) -> list[str]:
    cuts = [i for i, c in _outside(text) if c == separator]
    parts = [text[a + 1 : b].strip() for a, b in zip([-1, *cuts], [*cuts, len(text)], strict=True)]
    return [p for p in parts if p]


def _operators(head: str, value: str, terms: list[str], indent: int) -> list[str]:
    """`name = (`, a term a line, `)`; an item of a list goes without the brackets."""
    pad = "    " * indent
    if not head:
        return [line for term in terms for line in fit(term, indent)] if len(terms) > 1 else [pad + value]
    inside = pad + "    " + value
    lines = [inside] if len(inside) <= WIDTH else [line for term in terms for line in fit(term, indent + 1)]
    return [f"{pad}{head}(", *lines, f"{pad})"]


def cited(at: Position) -> str:
    """hope.yaml:33, or the file alone."""
    name = PurePath(at.file).name
    return f"{name}:{at.line}" if at.line else name


def comment(text: str, place: str, indent: int) -> list[str]:
    """`# text                    place`, the place at the right margin."""
    text, place = one_line(text), one_line(place)
    pad = "    " * indent
    room = WIDTH - len(pad) - len(text) - len(place) - 4
    if room >= 1:
        return [f"{pad}# {text}{' ' * room}  {place}".rstrip()]
    lines = [f"{pad}# {line}" for line in wrapped(text, WIDTH - len(pad) - 2)]
    if place and len(lines[-1]) + len(place) + 2 <= WIDTH:
        return [*lines[:-1], lines[-1].ljust(WIDTH - len(place)) + place]
    return [*lines, f"{pad}#".ljust(WIDTH - len(place)) + place] if place else lines


def one_line(text: str) -> str:
    return " ".join(text.splitlines())


def docstring_text(text: str) -> str:
    """Text that stays inside the quotes of a docstring, whatever is in it."""
    escaped = text.replace("\\", "\\\\")
    return escaped.replace('"', '\\"') if '"""' in text or text.endswith('"') else escaped


def wrapped(text: str, width: int) -> list[str]:
    lines, line = [], ""
    for word in one_line(text).split(" "):
        if line and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    return [line.replace(UNBROKEN, " ") for line in ([*lines, line] if line else lines)]
