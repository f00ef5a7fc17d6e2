"""A stand-in that needs no file: every label is a made-up name with made-up words of its own, which its texts contain.

    gofiru tadeno bile zuko nabo tadeno -> rovi

Which words belong to which name is all there is to learn, so what is forgotten is known to have been learned.
"""

from __future__ import annotations

import torch

from runtime.evaluate.tasks.draw import Draw, key_of
from runtime.evaluate.tasks.needle import word

Pairs = list[tuple[str, str]]
LETTERS = 4  # of a word
FILLERS = 32  # words that any text may have


def made(labels: int, words: int, length: int, shots: int, tests: int) -> tuple[list[str], Pairs, Pairs]:
    """Labels, training texts and test texts.  No word stands for two things, and no text is in both parts.

    words: that belong to a label; length: words of a text, two of them its label's; shots, tests: texts of a label.
    """
    names = vocabulary(labels * (1 + words) + FILLERS)
    label, own, filler = names[:labels], names[labels : labels * (1 + words)], names[labels * (1 + words) :]
    draw = Draw(torch.tensor([key_of(f"topics {labels} {words} {length}")]))
    train: Pairs = []
    test: Pairs = []
    for i, name in enumerate(label):
        mine, seen = own[i * words : (i + 1) * words], set[str]()
        while len(seen) < shots + tests:
            order = draw.order(length)[0].tolist()
            picked = [mine[k] for k in draw.whole(words, 2)[0].tolist()]
            picked += [filler[k] for k in draw.whole(FILLERS, length - 2)[0].tolist()]
            text = " ".join(picked[k] for k in order)
            if text not in seen:
                (test if len(seen) < tests else train).append((text, name))
                seen.add(text)
    return label, train, test


def vocabulary(count: int) -> list[str]:
    """Different words that can be pronounced, always the same."""
    draw, found = Draw(torch.tensor([key_of("topics")])), dict[str, None]()
    while len(found) < count:
        found[bytes(word(draw, LETTERS)[0].tolist()).decode()] = None
    return list(found)
