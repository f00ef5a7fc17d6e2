"""`nlc tokenizer`: train a tokenizer, look at one.  Torch and tokenizers are imported when they do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nlc.cli.common import JsonOption, Stop, calm_threads, note, say, say_json, say_or_write
from nlc.cli.runs import DataOption, FieldOption

if TYPE_CHECKING:
    from runtime.data import Tokenizer

tokenizer = typer.Typer(
    help="Train a byte-level BPE tokenizer, or look at a tokenizer.json.\n\nExample: nlc tokenizer train --vocab 1024",
    rich_markup_mode=None,
)


def register(app: typer.Typer) -> None:
    app.add_typer(tokenizer, name="tokenizer")


@tokenizer.command()
def train(
    vocab: Annotated[
        int, typer.Option("--vocab", min=257, help="Tokens: the bytes, one between documents, and pairs.")
    ],
    data: DataOption = None,
    field: FieldOption = None,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FILE", help="Where to write.")] = Path("tokenizer.json"),
    json_: JsonOption = False,
) -> None:
    """Train a byte-level BPE tokenizer on the training part of a text.

    Example: nlc tokenizer train --vocab 1024 -o build/tokenizer.json
    """
    calm_threads()
    from runtime.data import bpe, sources
    from runtime.errors import RunError

    try:
        source = sources.find(data, field)
        written = bpe.train(source, vocab)
        say_or_write(written, out)
        made = opened(out)
        size = bpe.bytes_per_token(made, source)
    except RunError as error:
        raise Stop(error.status, str(error)) from None
    if made.vocab < vocab:
        note(f"no pair is left that occurs twice: {made.vocab:,} tokens, {vocab - made.vocab:,} fewer than asked for")
    if json_:
        say_json({"file": str(out), "vocab": made.vocab, "sha256": made.digest, "bytes_per_token": size})
        return
    say(f"{out}: {made.vocab:,} tokens, {size:.2f} bytes of validation text each, from {source.name}")
    say(f"nlc train hope --tokenizer {out} --set sizes.vocab={made.vocab} learns with them")


@tokenizer.command()
def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A tokenizer.json.")],
    text: Annotated[
        str, typer.Option("--text", help="Show this text as tokens.")
    ] = "The quick brown fox jumps over the lazy dog.",
    json_: JsonOption = False,
) -> None:
    """Show what a tokenizer.json is, and a text as its tokens.

    Example: nlc tokenizer inspect build/tokenizer.json --text hello
    """
    from runtime.errors import RunError

    try:
        found = opened(file)
    except RunError as error:
        raise Stop(error.status, str(error)) from None
    facts = described(found, text)
    if json_:
        say_json(facts)
        return
    between = facts["between_documents"] or "a newline"
    say(f"{file}: {facts['kind']}, {found.vocab:,} tokens (sizes.vocab), {between} between documents")
    say(f"sha256 {found.digest}")
    same = "gives the text back" if facts["gives_back"] else "does not give the text back"
    say(f"{len(text.encode())} bytes are {len(facts['ids'])} tokens, and reading them {same}:")
    say(" ".join(json.dumps(piece, ensure_ascii=False) for piece in facts["pieces"]))


# ---- steps the commands share ---------------------------------------------------------------------------------------


def opened(file: Path) -> Tokenizer:
    from runtime.data import Tokenizer

    return Tokenizer(file)


def described(found: Tokenizer, text: str) -> dict[str, Any]:
    ids = found.ids(text)
    return {
        "file": str(found.path),
        "kind": found.kind,
        "vocab": found.vocab,
        "sha256": found.digest,
        "between_documents": found.end,
        "text": text,
        "ids": ids,
        "pieces": [found.text([one]) for one in ids],
        "gives_back": found.text(ids) == text,
    }
