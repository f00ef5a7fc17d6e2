"""A run of `nlc bench`: every measurement that was asked for, one after another."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence

from nlc.bench.place import place
from nlc.bench.record import Record, Result
from nlc.bench.rows import Missing, Row, Scale, measurement, together
from nlc.bench.sweep import lines
from runtime.allocator import keep_freed_memory


def run(
    rows: Sequence[Row],
    sweeps: Sequence[str],
    scale: Scale,
    kind: str,
    left_out: Collection[str] = (),
    say: Callable[[str], None] = lambda _: None,
    keep: Callable[[Record], None] = lambda _: None,
) -> Record:
    """Measure, with freed memory kept as in a run of `nlc train`; rows in the order given.

    left_out: ids of rows that this kind of run only names.  `say` hears what begins; `keep` is given what there is so
    far whenever there is more.

    A row that needs what is not here, or whose measurement fails, says so and has no number; the others go on.
    """
    keep_freed_memory()
    record, began = Record(place(), kind, scale.by), time.monotonic()
    mine = {row.id: row for row in rows}
    why = dict.fromkeys(left_out, "the full run does")
    found = {row.id: Result(row, missing=why.get(row.id, "the run was stopped before")) for row in rows}

    def kept() -> None:
        record.results, record.seconds = list(found.values()), time.monotonic() - began
        keep(record)

    for by, ids in together([row for row in rows if row.id not in left_out]).items():
        say(", ".join(id for id in mine if id in ids))
        try:
            found |= {id: Result(mine[id], reading) for id, reading in measurement(by)(scale, ids).items()}
        except Missing as missing:
            found |= {id: Result(mine[id], missing=str(missing)) for id in ids}
        except (ArithmeticError, MemoryError, OSError, RuntimeError) as error:
            found |= {id: Result(mine[id], failed=f"{type(error).__name__}: {error}") for id in ids}
        kept()
    for id in sweeps:
        record.sweeps[id] = []
        for line in lines(id, scale):
            say(f"{id}: batch {line['batch']}, {line['tokens']:,} tokens, {line['pass']}")
            record.sweeps[id].append(line)
            kept()
    kept()
    return record
