"""Data: from what a user names to tokens for training and validation, every input checked before a step is made.

sources (plain, records) -> pieces of documents -> tokens (bytes, tokenizer.json) -> packing -> store (memory, cache)
"""

from runtime.data.loading import again, found, load, recorded
from runtime.data.text import Data, Pack, Text, check
from runtime.data.tokens import Tokenizer

__all__ = ["Data", "Pack", "Text", "Tokenizer", "again", "check", "found", "load", "recorded"]
