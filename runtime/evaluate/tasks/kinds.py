"""Every kind of items, by the name that task files have for it."""

from __future__ import annotations

from runtime.evaluate.tasks.items import Kind
from runtime.evaluate.tasks.languages import AA, ABAB, Counters
from runtime.evaluate.tasks.needle import Needle, Passkey, Word
from runtime.evaluate.tasks.recall import Associative, Copying, Fuzzy, InContext, Memorisation
from runtime.evaluate.tasks.tracking import Parity, Permutations, Shuffle

KINDS: dict[str, type[Kind]] = {
    "associative": Associative,
    "in_context": InContext,
    "fuzzy": Fuzzy,
    "copying": Copying,
    "memorisation": Memorisation,
    "parity": Parity,
    "permutations": Permutations,
    "aa": AA,
    "abab": ABAB,
    "counters": Counters,
    "shuffle": Shuffle,
    "passkey": Passkey,
    "number": Needle,
    "word": Word,
}
HAYSTACKS = ("passkey", "number", "word")  # kinds that hide something in a text
