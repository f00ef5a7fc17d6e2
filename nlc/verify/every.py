"""Many specs and rules, each verified in a process of its own, several at a time.

    for report in every(["hope", "adamw"], {}, jobs=2): ...          in the order given

One thread a process: interpreting is one token at a time, and gains nothing from more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch

from nlc.report import table
from nlc.spec.rulebook import find_rule
from nlc.verify.judge import FLOAT32, Report, verify
from nlc.verify.rules import verify_rule
from nlc.verify.small import CHUNKS


def one(
    name: str,
    set: Mapping[str, str | object],
    chunks: Sequence[int] = CHUNKS,
    device: str = "cpu",
    compiled: bool = False,
) -> Report:
    """A spec or a rule, by path or shipped name.  Raises SpecError where it is not legal at small sizes."""
    rule = find_rule(name)
    if rule is not None:
        return verify_rule(rule, device=device)
    return verify(name, set, chunks=chunks, device=device, compiled=compiled)


def every(
    names: Sequence[str],
    set: Mapping[str, str | object],
    chunks: Sequence[int] = CHUNKS,
    device: str = "cpu",
    jobs: int = 1,
    compiled: bool = False,
) -> Iterator[Report]:
    """The report of each name, in the order given; `jobs` processes where that is above 1.

    `compiled`: by torch's compiler, too.

    Raises what verifying one raises; what has not begun by then is not begun.
    """
    if jobs == 1 or len(names) == 1:
        yield from (one(name, set, chunks, device, compiled) for name in names)
        return
    pool = ProcessPoolExecutor(
        min(jobs, len(names)), mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
    )
    try:
        running = [pool.submit(one, name, set, chunks, device, compiled) for name in names]
        yield from (run.result() for run in running)
    finally:
        pool.shutdown(cancel_futures=True)


def summary(reports: Sequence[Report]) -> str:
    """One row a report: how many comparisons, the worst of each precision, and how long it took."""
    rows = [["", "verified", "comparisons", "float64", "float32", "seconds"]]
    for report in reports:
        wide = [o.error for o in report.outcomes if o.tolerance < FLOAT32]
        single = [o.error for o in report.outcomes if o.tolerance >= FLOAT32]
        worst = [f"{max(errors):.1e}" if errors else "-" for errors in (wide, single)]
        rows.append(
            [report.name, "yes" if report.passed else "NO", str(len(report.outcomes)), *worst, f"{report.seconds:.0f}"]
        )
    return table(rows, right={2, 3, 4, 5})
