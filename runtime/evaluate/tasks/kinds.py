"""Every kind of items, by the name that task files have for it."""

from __future__ import annotations

from runtime.evaluate.tasks.continual.classes import Banking77, Clinc150, Dbpedia70, Topics
from runtime.evaluate.tasks.continual.domains import Domains
from runtime.evaluate.tasks.items import Kind
from runtime.evaluate.tasks.languages import AA, ABAB, Counters
from runtime.evaluate.tasks.needle import Needle, Passkey, Word
from runtime.evaluate.tasks.prose import Prose
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
    "text": Prose,
    "topics": Topics,
    "clinc150": Clinc150,
    "banking77": Banking77,
    "dbpedia70": Dbpedia70,
    "domains": Domains,
}
HAYSTACKS = ("passkey", "number", "word", "text")  # kinds that are made from a text
TOLD = ("text", "domains")  # kinds whose every target is the next token, which is known once it has been asked for
READ = (*HAYSTACKS, "clinc150", "banking77", "dbpedia70", "domains")  # kinds that --data may be for
ORDERED = ("topics", "clinc150", "banking77", "dbpedia70", "domains")  # kinds that are learned one task after another
