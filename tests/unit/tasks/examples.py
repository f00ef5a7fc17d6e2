"""A small item of every kind, and a text to hide needles in."""

from __future__ import annotations

from typing import Any

import torch

from runtime.data import Text

TEXT = Text(torch.tensor(list(b"It was the best of times, it was the worst of times.\n" * 40), dtype=torch.uint8))
ONE = {"keys": 1, "values": 1, "queries": 1}
SMALL: dict[str, tuple[str, dict[str, Any]]] = {
    "associative": ("associative", {"context": 40, "vocab": 32, "pairs": 6, "power": 0.01}),
    "associative, far": ("associative", {"context": 41, "vocab": 13, "pairs": 6, "power": 1.0}),
    "in_context": ("in_context", {"context": 31, "vocab": 12, "noise_vocab": 0, "noise": 0.0}),
    "in_context, noisy": ("in_context", {"context": 32, "vocab": 14, "noise_vocab": 6, "noise": 0.5}),
    "fuzzy": ("fuzzy", {"context": 45, "vocab": 8, "motifs": 5, "key_length": 3, "value_length": 2}),
    "copying": ("copying", {"context": 24, "vocab": 8, "copies": 5}),
    "copying, all": ("copying", {"context": 11, "vocab": 8, "copies": 5}),
    "memorisation": ("memorisation", {"context": 13, "vocab": 12, "facts": 3}),
    "parity": ("parity", {"context": 21, "after": 5}),
    "permutations of 3": ("permutations", {"context": 19, "of": 3, "after": 0}),
    "permutations of 5": ("permutations", {"context": 12, "of": 5, "after": 4}),
    "aa": ("aa", {"context": 40, "shortest": 1, "longest": 12}),
    "abab": ("abab", {"context": 40, "shortest": 4, "longest": 12}),
    "anbn": ("counters", {"context": 40, "shortest": 1, "longest": 12, "symbols": 2}),
    "anbncn": ("counters", {"context": 40, "shortest": 3, "longest": 12, "symbols": 3}),
    "shuffle": ("shuffle", {"context": 20, "kinds": 2}),
    "passkey": ("passkey", {"context": 160, "size": 5, **ONE, "depths": 3}),
    "number": ("number", {"context": 160, "size": 7, **ONE, "depths": 0}),
    "word": ("word", {"context": 161, "size": 5, **ONE, "depths": 5}),
    "multi_key": ("number", {"context": 320, "size": 4, "keys": 4, "values": 1, "queries": 1, "depths": 4}),
    "multi_value": ("number", {"context": 400, "size": 4, "keys": 2, "values": 3, "queries": 1, "depths": 4}),
    "multi_query": ("word", {"context": 400, "size": 4, "keys": 3, "values": 2, "queries": 2, "depths": 0}),
}
