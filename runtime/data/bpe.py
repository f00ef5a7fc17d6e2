"""The training part of a text -> a byte-level BPE tokenizer: a token for each byte and for frequent sequences of them.

It depends on the text and the size alone, and has not seen what validation is made of.
"""

from __future__ import annotations

from collections.abc import Iterator

from runtime.data.packing import grouped
from runtime.data.pieces import PARTS, Part, Source, missing
from runtime.data.tokens import END, Tokenizer
from runtime.errors import DataError


def train(source: Source, vocab: int) -> str:
    """The tokenizer.json of at most `vocab` tokens; fewer where no pair is left that occurs twice.

    Raises DataError when the library is missing, or the text is empty or cannot be read.
    """
    try:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    except ModuleNotFoundError:
        raise missing("training a tokenizer", "tokenizers") from None
    for part in PARTS:
        if not any(texts(source, part)):
            raise DataError(f"{source.name} holds no {part} text: nothing to learn from")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        min_frequency=2,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(source, "train"), trainer)
    written: str = tokenizer.to_str(pretty=True)
    return written


def texts(source: Source, part: Part) -> Iterator[str]:
    """The pieces of one part."""
    return (piece.text.decode() for piece in source.pieces(utf8=True) if piece.part == part)


def bytes_per_token(tokenizer: Tokenizer, source: Source) -> float:
    """How much text a token holds, on the first of the validation part."""
    held = (piece for piece in source.pieces(utf8=True) if piece.part == "validation")
    group = [piece.text for piece in next(grouped(held))]
    return sum(map(len, group)) / sum(one.number for one in tokenizer.encode(group, sizes=False))
