"""A legal spec with something broken in it is legal still, or refused at a place; nothing else ever happens."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from nlc.diagnostics import SpecError
from nlc.passes import build
from nlc.spec import loads, shipped
from nlc.spec.rule import SHIPPED

PIECES = [
    *"xhkqv10,()[]{}:=.\n'\"#&*|~ ",
    *(
        "-1",
        "4x",
        "1e999",
        "never",
        "token",
        "steps",
        "rest",
        "true",
        "null",
        "after",
        "carry: model",
        "chunk:",
        "every:",
    ),
    *("matrix", "mlp(hidden=4x)", "linear", "heads", "merge", "head", "width", "prev(x)"),
]


def broken(text: str, choose: random.Random) -> str:
    """The text with a piece cut, put in, swapped, or a line dropped or repeated."""
    at = choose.randrange(len(text))
    match choose.randrange(4):
        case 0:
            return text[:at] + text[at + choose.randint(1, 6) :]
        case 1:
            return text[:at] + choose.choice(PIECES) + text[at:]
        case 2:
            words = list(re.finditer(r"\w+", text))
            old, new = choose.choice(words), choose.choice(words)
            return text[: old.start()] + new.group() + text[old.end() :]
    lines = text.split("\n")
    line = lines.pop(choose.randrange(len(lines)))
    if choose.random() < 0.4:
        lines[choose.randrange(len(lines)) : 0] = [line, line]
    return "\n".join(lines)


@pytest.mark.parametrize("name", shipped())
def test_broken_specs_are_refused_at_a_place(name: str) -> None:
    text = Path(SHIPPED / "architectures" / f"{name}.yaml").read_text(encoding="utf-8")
    choose = random.Random(name)
    for _ in range(60):
        changed = broken(broken(text, choose), choose) if choose.random() < 0.5 else broken(text, choose)
        try:
            spec = loads(changed, "broken.yaml")
            spec.resolved()
            build(spec, check=True)
        except SpecError as error:
            assert "error:" in str(error)
            assert all((d.at.file == "broken.yaml" and d.at.column > 0) or d.at.line == 0 for d in error.diagnostics), (
                changed
            )
