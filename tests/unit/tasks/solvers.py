"""Each kind of items solved by a plain program that reads the tokens alone: what its targets are by definition.

solve(tokens) -> {place: target}.  None of them knows how items are made.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import permutations
from typing import Any

Targets = dict[int, int]


def associative(k: Any, x: list[int]) -> Targets:
    book = dict(zip(x[0 : 2 * k.pairs : 2], x[1 : 2 * k.pairs : 2], strict=True))
    return {t: book[x[t]] for t in range(2 * k.pairs, len(x)) if x[t]}


def in_context(k: Any, x: list[int]) -> Targets:
    found, book = {}, {}
    for t in range(0, len(x) - 1, 2):
        key, value = x[t : t + 2]
        if key >= 2 * k.keys:
            continue
        if key in book:
            found[t] = book[key]
        book[key] = value
    return found


def fuzzy(k: Any, x: list[int]) -> Targets:
    """Keys are runs of the first letters, values of the others; the last pair may be cut off."""
    found, book = {}, {}
    text = "".join("k" if token < k.letters else "v" for token in x)
    for match in re.finditer("(k+)(v+)(?=k)", text):
        key = tuple(x[match.start(1) : match.end(1)])
        if key in book:
            found |= {t - 1: x[t] for t in range(*match.span(2))}
        book[key] = x[slice(*match.span(2))]
    return found


def copying(k: Any, x: list[int]) -> Targets:
    mark = x.index(k.vocab - 1)
    symbols = [token for token in x[:mark] if token != k.vocab - 2]
    return {mark + 1 + i: symbol for i, symbol in enumerate(symbols)}


def parity(k: Any, x: list[int]) -> Targets:
    return {t: sum(x[: t + 1]) % 2 for t in range(k.after, len(x))}


def permuted(k: Any, x: list[int]) -> Targets:
    every = list(permutations(range(k.of)))
    state, found = tuple(range(k.of)), {}
    for t, token in enumerate(x):
        state = tuple(every[token][i] for i in state)
        if t >= k.after:
            found[t] = every.index(state)
    return found


def shuffle(k: Any, x: list[int]) -> Targets:
    depth, found = [0] * k.kinds, {}
    for t, token in enumerate(x):
        depth[token % k.kinds] += 1 if token < k.kinds else -1
        assert min(depth) >= 0
        found[t] = 2 * k.kinds + sum((d > 0) << i for i, d in enumerate(depth))
    return found


def words(may_follow: Callable[[str], int]) -> Callable[[Any, list[int]], Targets]:
    """Of every word so far, the number of the set of what may follow; the last word may be cut off."""

    def solve(k: Any, x: list[int]) -> Targets:
        found, word = {}, ""
        for t, token in enumerate(x):
            word = word + "abcdefgh"[token - 1] if token else ""
            found[t] = 1 + k.letters + may_follow(word)
        return found

    return solve


def after_aa(word: str) -> int:
    return len(word) % 2


def after_abab(word: str) -> int:
    return 1 if word.endswith("a") else 2 * (word.count("b") % 2)


def after_counters(symbols: int) -> Callable[[str], int]:
    def after(word: str) -> int:
        if not word or "b" not in word:
            return 1 if word else 0
        n, last = word.count("a"), "abcdefgh".index(word[-1])
        return 1 + last + (word.count(word[-1]) == n)

    return after


def needles(k: Any, x: list[int]) -> Targets:
    """Found in the text with patterns; the question stands at its end."""
    text, found = bytes(x).decode("latin-1"), {}
    if k.noun == b"number" and "pass key" in text:
        value = re.search(r"The pass key is (\d+)\. Remember it", text)[1]  # type: ignore[index]
        first = text.rindex("The pass key is ") + len("The pass key is ")
        return {first - 1 + i: ord(c) for i, c in enumerate(value)}
    noun = k.noun.decode()
    hidden = re.findall(rf"\nThe {noun} of (\w+) is (\w+)\.\n", text[: text.rindex(f"The {noun}")] + "\n")
    asked = list(re.finditer(rf"The {noun}s? of (\w+) (?:is|are) ", text))[-k.queries :]
    for match in asked:
        at = match.end()
        for value in [value for key, value in hidden if key == match[1]][: k.values]:
            found |= {at - 1 + i: ord(c) for i, c in enumerate(value)}
            at += len(value) + 2
    return found
