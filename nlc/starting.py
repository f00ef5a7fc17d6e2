"""A shipped spec as the beginning of one's own."""

from __future__ import annotations

import re
from pathlib import Path

from nlc.show import written_text
from nlc.spec import load

SCHEMA = "# yaml-language-server: $schema={}\n"


def copied(source: str, name: str) -> str:
    """The text of a shipped spec under another name, its comments kept."""
    text = written_text(load(source)).rstrip("\n") + "\n"
    text = re.sub(r"\A# yaml-language-server:.*\n", "", text)
    return modeline() + re.sub(r"(?m)^name:.*$", f"name: {called(name)}", text, count=1)


def extending(source: str, name: str) -> str:
    """A spec that says only what it changes."""
    spec = load(source)
    sizes = spec.model.sizes
    size = next((name for name in ("width", *sizes) if name in sizes), None)
    return (
        f"{modeline()}nlc: 1\nname: {called(name)}\nextends: {source}\n"
        f"doc: {' '.join((spec.model.doc or '').split())}\n\n"
        f"# What is said here replaces what {source} says: mappings merge, levels merge by name.\n"
        f"# `nlc show {source} --resolved` prints every key it has.\n"
        f"sizes: {{{f'{size}: {sizes[size]}' if size else ''}}}\n"
    )


def called(name: str) -> str:
    """A file's name as a name of a spec: quoted where YAML would read a number or a word of its own."""
    word = re.sub(r"\W", "_", name, flags=re.ASCII)
    plain = re.fullmatch(r"[A-Za-z_]\w*", word, re.ASCII) and word.lower() not in ("null", "true", "false")
    return word if plain else f'"{word}"'


def modeline() -> str:
    """Where editors find the JSON Schema that this installation checks with."""
    import specs

    return SCHEMA.format((Path(specs.__path__[0]) / "architecture.schema.json").as_uri())
