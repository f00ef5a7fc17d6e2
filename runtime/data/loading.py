"""What a user names -> data to learn from: find the text, make tokens of it, hold them in memory or in the cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from runtime.data import cache, packing, sources
from runtime.data.pieces import Part, Source
from runtime.data.store import BORDERS, TEXT, Memory, Store, digests
from runtime.data.text import Data, Pack, Text
from runtime.data.tokens import NAME, Bytes, Codec, Tokenizer, codec
from runtime.errors import DataError

Note = Callable[[str], None]

IN_MEMORY = 256 << 20  # bytes of text that are read anew for each run; more, and tokens, are kept in the cache


def quietly(message: str) -> None:
    pass


def load(
    path: str | Path | None = None,
    *,
    field: str | None = None,
    tokenizer: str | Path | None = None,
    pack: Pack | None = None,
    vocab: int | None = None,
    note: Note = quietly,
) -> Data:
    """The built-in corpus, or the text of a file, a folder, a pattern, lines of JSON or a saved dataset.

    field: of records ("text"); tokenizer: a tokenizer.json, bytes otherwise; pack: whether documents are one running
    text or each begins anew ("text" for files, "documents" for records); vocab: of the spec, compared first.
    Raises DataError, with the file and the line where there is one, for anything that is wrong with them.
    """
    made = codec(tokenizer)
    if vocab is not None:
        made.check(vocab)
    source = sources.find(path, field)
    store, found = packed(source, made, note)
    if not all(store.size(name) for name in TEXT):
        size = sum(store.size(name) for name in TEXT) // made.dtype.itemsize
        raise DataError(f"{source.name} holds {size} {made.unit}: too little for a training and a validation part")
    pack = pack or ("documents" if source.documents else "text")
    return Data(
        train=text(store, "train", made, pack),
        validation=text(store, "validation", made, pack),
        source=source.name,
        digest=found[(BORDERS if pack == "documents" else TEXT)[-1]],
        codec=made,
        pack=pack,
        path=None if path is None else Path(path),
        field=field,
    )


def found(path: str | Path | None, field: str | None, tokenizer: str | Path | None, vocab: int) -> tuple[str, bool]:
    """The name of the text that `load` would read, and whether reading it would fill the cache.  Raises DataError."""
    made = codec(tokenizer)
    made.check(vocab)
    source = sources.find(path, field)
    return source.name, cached(source, made)


def again(
    facts: Mapping[str, Any],
    path: str | Path | None = None,
    *,
    field: str | None = None,
    run: Path | None = None,
    note: Note = quietly,
) -> Data:
    """The data that the `facts` of an earlier run describe, or the text of another path in the same tokens.

    Raises DataError when they are gone, or the tokenizer is no longer what it was."""
    tokenizer, pack = recorded(facts, run), None
    file = None if tokenizer is None else tokenizer.path
    if path is None:
        path, field, pack = facts.get("path"), facts.get("field"), facts.get("pack")
    return load(path, field=field, tokenizer=file, pack=pack, note=note)


def recorded(facts: Mapping[str, Any], run: Path | None = None) -> Tokenizer | None:
    """The tokenizer that the `facts` of a run name: the copy in its folder, or where it was.

    Raises DataError when it is gone, or another one than it was."""
    told = facts.get("tokenizer")
    if not told:
        return None
    copy = run / NAME if run is not None else None
    found = Tokenizer(copy if copy is not None and copy.exists() else told["file"])
    if found.digest != told["sha256"]:
        raise DataError(f"'{found.path}' is not the tokenizer that it was when the run began")
    return found


def cached(source: Source, codec: Codec) -> bool:
    """Whether its tokens are kept in the cache, and not made anew for each run."""
    return not isinstance(codec, Bytes) or source.size is None or source.size > IN_MEMORY


def packed(source: Source, codec: Codec, note: Note) -> tuple[Store, dict[str, str]]:
    """Tokens and borders, and their digests."""
    if not cached(source, codec):
        store = Memory()
        packing.pack(source, codec, store, note)
        return store, digests(store)
    return cache.packed(source, codec, note)


def text(store: Store, part: Part, codec: Codec, pack: Pack) -> Text:
    sized = store.size(f"{part}.sizes") > 0
    return Text(
        store.tensor(f"{part}.tokens", codec.dtype),
        store.tensor(f"{part}.begins", torch.int64) if pack == "documents" else None,
        store.tensor(f"{part}.sizes", torch.int32) if sized else None,
    )
