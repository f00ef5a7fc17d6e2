"""The kinds of items that a task may have: their knobs, what each may be, and what knobs must have in common.

The runtime makes the items (runtime.evaluate.tasks); a test holds its knobs and these together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import comb

Number = int | float
Knobs = Mapping[str, Number]


@dataclass(frozen=True, slots=True)
class Knob:
    """within: an interval, as a rule has them."""

    doc: str
    within: str
    whole: bool = True


@dataclass(frozen=True, slots=True)
class ItemKind:
    """needs: why these knobs, each legal by itself, cannot be together; "" where they can."""

    doc: str
    knobs: Mapping[str, Knob]
    needs: Callable[[Knobs], str]

    @property
    def ordered(self) -> bool:
        """Several tasks, learned one after another: what is trained on is a course, as long as it is."""
        return "order" in self.knobs

    @property
    def in_bits(self) -> bool:
        """What is learned are texts: its scores are bits per byte."""
        return "domains" in self.knobs


CONTEXT = Knob("tokens of an item", "[2, 1000000]")
VOCAB = Knob("different tokens", "[4, 1000000]")
AFTER = Knob("only tokens from there on are asked about", "[0, inf)")


def beyond(k: Knobs) -> str:
    return "" if k["after"] < k["context"] else f"nothing is asked: after is {k['after']}, context {k['context']}"


def associative(k: Knobs) -> str:
    keys = (k["vocab"] - 1) // 2
    if k["pairs"] > keys:
        return f"{k['pairs']} different keys, and a vocabulary of {k['vocab']} has {keys}"
    need = 4 * k["pairs"]
    return "" if need <= k["context"] else f"{k['pairs']} pairs and their queries take {need} tokens of {k['context']}"


def in_context(k: Knobs) -> str:
    if k["vocab"] - k["noise_vocab"] < 4:
        return f"a vocabulary of {k['vocab']} with {k['noise_vocab']} of noise has fewer than two keys and two values"
    if k["noise"] and not k["noise_vocab"]:
        return "noise has no tokens: noise_vocab is 0"
    return "" if k["context"] >= 4 else "two pairs take 4 tokens"


def fuzzy(k: Knobs) -> str:
    need = 2 * (k["key_length"] + k["value_length"])
    return "" if k["context"] >= need else f"two of the longest pairs take {need} tokens of {k['context']}"


def copying(k: Knobs) -> str:
    need = 2 * k["copies"] + 1
    return "" if k["context"] >= need else f"{k['copies']} symbols, a mark and a copy take {need} tokens"


def words(unit: Callable[[Knobs], Number]) -> Callable[[Knobs], str]:
    def needs(k: Knobs) -> str:
        if -(-k["shortest"] // unit(k)) > k["longest"] // unit(k):
            return f"no multiple of {unit(k)} lies from shortest {k['shortest']} to longest {k['longest']}"
        need = k["longest"] + 1
        return "" if need <= k["context"] else f"the longest word and its border take {need} tokens of {k['context']}"

    return needs


def needle(k: Knobs) -> str:
    if k["queries"] > k["keys"]:
        return f"{k['queries']} keys are asked for, and there are {k['keys']}"
    hidden, asked = k["keys"] * k["values"] * (27 + k["size"]), k["queries"] * (28 + k["values"] * (2 + k["size"]))
    need = 32 + hidden + asked
    return "" if need <= k["context"] else f"what is hidden and what is asked take {need} bytes of {k['context']}"


def passkey(k: Knobs) -> str:
    one = all(k[name] == 1 for name in ("keys", "values", "queries"))
    return needle(k) if one else "a pass key has no name: keys, values and queries are 1"


def topics(k: Knobs) -> str:
    labels, words = k["tasks"] * k["classes"], 70 * 70  # that can be spelt
    if labels * (1 + k["words"]) + 32 > words // 2:
        return (
            f"{labels} labels with {k['words']} words each, their names and 32 more are over half of all {words} words"
        )
    if not k["shots"]:
        return "texts are made, so shots says how many"
    length, wanted = int(k["length"]), k["shots"] + 32  # for tests
    if wanted > (texts := comb(length, 2) * k["words"] ** 2 * 32 ** (length - 2)):
        return f"a label has {texts} different texts, and shots {k['shots']} and 32 for tests are {wanted}"
    need = 5 * k["length"] + 5
    return "" if need <= k["context"] else f"{k['length']} words, a tab and a label take {need} bytes of {k['context']}"


def published(labels: int) -> Callable[[Knobs], str]:
    def needs(k: Knobs) -> str:
        asked = k["tasks"] * k["classes"]
        return "" if asked <= labels else f"{k['tasks']} tasks of {k['classes']} labels are {asked}; there are {labels}"

    return needs


WORDS = {
    "context": CONTEXT,
    "shortest": Knob("letters of the shortest word", "[1, inf)"),
    "longest": Knob("letters of the longest word", "[1, inf)"),
}
HIDDEN = {
    "context": Knob("bytes of the haystack, the needles and the question", "[64, 1000000]"),
    "size": Knob("bytes of a value", "[1, 64]"),
    "keys": Knob("keys that are hidden", "[1, 4096]"),
    "values": Knob("values of each key", "[1, 64]"),
    "queries": Knob("keys that are asked for", "[1, 64]"),
    "depths": Knob("places that a needle may be at, evenly spread; 0 is any", "[0, 1024]"),
}
IN_ORDER = {  # of several tasks that are learned one after another
    "passes": Knob("over a task while it is learned", "[1, 1000]"),
    "replay": Knob("{} that are kept and read again in later tasks; 0 is none", "[0, inf)"),
    "mixed": Knob("1: all tasks at once, in any order (joint training)", "[0, 1]"),
    "order": Knob("seed of the order", "[0, inf)"),
}
CLASSES = {
    "context": Knob("bytes of a text, a tab and a label", "[8, 1000000]"),
    "tasks": Knob("that are learned one after another", "[1, 1000]"),
    "classes": Knob("labels of a task", "[1, 1000]"),
    "shots": Knob("training texts of a label; 0 is all there are", "[0, inf)"),
    "passes": IN_ORDER["passes"],
    "replay": replace(IN_ORDER["replay"], doc=IN_ORDER["replay"].doc.format("texts of a label")),
    "mixed": IN_ORDER["mixed"],
    "whole": Knob("0: the loss is that of the label alone; 1: of the text too", "[0, 1]"),
    "order": IN_ORDER["order"],
}
CLINC150 = CLASSES | {"by_domain": Knob("1: the labels of a task are those of one domain", "[0, 1]")}
KINDS: dict[str, ItemKind] = {
    "associative": ItemKind(
        "pairs of keys and values, then every key once, at some distance",
        {
            "context": CONTEXT,
            "vocab": VOCAB,
            "pairs": Knob("keys with a value, each asked for once", "[1, inf)"),
            "power": Knob("how far away a query is: p(d) ~ d^(power - 1)", "(0, 16]", whole=False),
        },
        associative,
    ),
    "in_context": ItemKind(
        "pairs all along; one whose key was there before is asked for",
        {
            "context": CONTEXT,
            "vocab": VOCAB,
            "noise_vocab": Knob("tokens of the vocabulary that are only noise", "[0, inf)"),
            "noise": Knob("share of the pairs that are noise", "[0, 1)", whole=False),
        },
        in_context,
    ),
    "fuzzy": ItemKind(
        "pairs whose keys and values are one token to several",
        {
            "context": CONTEXT,
            "vocab": VOCAB,
            "motifs": Knob("pairs that a sequence is written with", "[1, 65536]"),
            "key_length": Knob("tokens of the longest key", "[1, 16]"),
            "value_length": Knob("tokens of the longest value", "[1, 16]"),
        },
        fuzzy,
    ),
    "copying": ItemKind(
        "symbols among blanks, to be written in order after a mark",
        {"context": CONTEXT, "vocab": VOCAB, "copies": Knob("symbols", "[1, inf)")},
        copying,
    ),
    "memorisation": ItemKind(
        "values of keys that are the same in every sequence",
        {
            "context": CONTEXT,
            "vocab": Knob("different tokens", "[5, 1000000]"),
            "facts": Knob("another number, other facts", "[0, inf)"),
        },
        lambda k: "",
    ),
    "parity": ItemKind("the number of ones so far, modulo 2", {"context": CONTEXT, "after": AFTER}, beyond),
    "permutations": ItemKind(
        "the product so far of permutations",
        {"context": CONTEXT, "of": Knob("things that are permuted", "[2, 5]"), "after": AFTER},
        beyond,
    ),
    "aa": ItemKind("words of (aa)*", WORDS, words(lambda k: 2)),
    "abab": ItemKind("words of (abab)*", WORDS, words(lambda k: 4)),
    "counters": ItemKind(
        "words a^n b^n, or with more letters a^n b^n c^n",
        {**WORDS, "symbols": Knob("different letters", "[2, 8]")},
        words(lambda k: k["symbols"]),
    ),
    "shuffle": ItemKind(
        "brackets of several kinds, each well nested for itself",
        {"context": CONTEXT, "kinds": Knob("kinds of brackets", "[1, 8]")},
        lambda k: "",
    ),
    "passkey": ItemKind("one number hidden in a text", HIDDEN, passkey),
    "number": ItemKind("numbers that have names, hidden in a text", HIDDEN, needle),
    "word": ItemKind("words that have names, hidden in a text", HIDDEN, needle),
    "text": ItemKind("pieces of a text, every next byte asked for", {"context": CONTEXT}, lambda k: ""),
    "topics": ItemKind(
        "texts of made-up words and their labels, task after task",
        {
            **CLASSES,
            "words": Knob("words that belong to a label", "[1, 16]"),
            "length": Knob("words of a text, two of them its label's", "[3, 64]"),
        },
        topics,
    ),
    "clinc150": ItemKind("CLINC150's texts and their intents, task after task", CLINC150, published(150)),
    "banking77": ItemKind("Banking77's texts and their intents, task after task", CLASSES, published(77)),
    "dbpedia70": ItemKind("first sentences of articles and their classes, task after task", CLASSES, published(70)),
    "domains": ItemKind(
        "texts of several domains, one after another",
        {
            "context": CONTEXT,
            "domains": Knob("that are learned one after another", "[1, 1000]"),
            "sequences": Knob("of each domain that are learned", "[1, inf)"),
            **IN_ORDER,
            "replay": replace(IN_ORDER["replay"], doc=IN_ORDER["replay"].doc.format("sequences of a domain")),
        },
        lambda k: "",
    ),
}
