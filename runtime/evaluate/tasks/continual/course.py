"""Which sequence comes when: task after task, each in whole batches; mixed; or with some of the earlier ones again.

    naive      1 1 1 1 | 2 2 2 2 | 3 3 3 3      one task after another, and nothing of an earlier one
    replay     1 1 1 1 | 2 1 2 1 | 3 2 3 1      every second sequence is a kept one of an earlier task
    joint      2 1 3 3   1 2 3 1   2 1 2 3      the same as naive in any order: no task is ever over

All three read equally many sequences.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, cycle, islice

Groups = Sequence[Sequence[int]]  # of one task: sequences by number; so many of each group are kept for replay


@dataclass(frozen=True, slots=True)
class Course:
    """numbers: of the sequences, batch after batch; ends: the step after which each task is over."""

    numbers: tuple[int, ...]
    ends: tuple[int, ...]

    @property
    def steps(self) -> int:
        return self.ends[-1]


def course(
    tasks: Sequence[Groups], batch: int, *, passes: int, replay: int, mixed: bool, rank: Callable[[int, int], str]
) -> Course:
    """passes: over each task; replay: sequences of every group that are kept; rank: (sequence, pass) -> its place."""
    parts: list[list[int]] = []
    for t, groups in enumerate(tasks):
        own = list(chain(*groups))
        fresh = [n for p in range(passes) for n in sorted(own, key=lambda n, p=p: rank(n, p))]  # type: ignore[misc]
        places = -(-len(fresh) // batch) * batch
        kept = [n for earlier in tasks[:t] for group in earlier for n in group[:replay]]
        if kept:
            kept.sort(key=lambda n, t=t: hashlib.sha256(f"replay {t} {rank(n, 0)}".encode()).hexdigest())  # type: ignore[misc]
            pairs = zip(cycle(fresh), cycle(kept), strict=False)
            parts.append(list(islice(chain.from_iterable(pairs), places)))
        else:
            parts.append(list(islice(cycle(fresh), places)))
    numbers = list(chain(*parts))
    if mixed:
        keyed = [hashlib.sha256(f"joint {i} {rank(n, 0)}".encode()).hexdigest() for i, n in enumerate(numbers)]
        numbers = [n for _, n in sorted(zip(keyed, numbers, strict=True))]
        return Course(tuple(numbers), (len(numbers) // batch,))
    ends, done = [], 0
    for part in parts:
        done += len(part) // batch
        ends.append(done)
    return Course(tuple(numbers), tuple(ends))
