"""Pieces of a text: every next byte is asked for, and is known once it has been.

What a memory that learns from the loss learns here it may use: nothing is hidden.  The mean surprise is bits per byte,
and that of the bytes at one place of the context says whether more context helps.
"""

from __future__ import annotations

from dataclasses import dataclass

from runtime.data import Text
from runtime.errors import USAGE, DataError
from runtime.evaluate.tasks.draw import Draw
from runtime.evaluate.tasks.items import Items
from runtime.evaluate.tasks.needle import haystack


@dataclass(frozen=True)
class Prose:
    """An answer is a byte."""

    context: int

    vocab = 256
    choices = range(256)
    chance = 1 / 256

    def items(self, draw: Draw, text: Text | None) -> Items:
        if text is None:
            raise DataError("there is no text to read", USAGE)
        cut_BT1 = haystack(draw, text, self.context + 1)
        return Items.of(cut_BT1[:, :-1].clone(), cut_BT1[:, 1:].clone())
