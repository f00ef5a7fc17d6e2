"""The names of scores: a task of the search, a test set in brackets unless it is the first, learning off, a metric.

task_of("parity[256 bits].off.loss", tasks)      "parity"
scores(tasks)                                    every score that a run of these tasks can have
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice, product
from typing import Any

from nlc.spec import TaskSpec
from nlc.spec.task_kinds import KINDS

TEXT = "text"  # the items of a task that are pieces of a text
ANSWERS = ("accuracy", "loss", "whole_items")
ENDS, WAY = ("accuracy", "final"), ("average", "learning")  # of tasks in order: at the end, and after each
ACROSS = ("forgetting", "backward_transfer", "forward_transfer")  # from one to another
IN_ORDER = (*ENDS, *WAY, *ACROSS)

BITS = ("final", "average", "learning")  # of these, bits per byte where what is learned in order are texts
LESS = ("loss", "bits_per_byte", "forgetting")  # metrics of which less is better


def task_of(score: str, tasks: Iterable[str]) -> str | None:
    """The task that a score is of."""
    return next((name for name in tasks if score.startswith((f"{name}.", f"{name}["))), None)


def less_is_better(score: str, tasks: Mapping[str, Mapping[str, Any]]) -> bool:
    """tasks: by name, as the runtime takes them."""
    metric, items = score.rsplit(".", 1)[-1], tasks.get(task_of(score, tasks) or "", {}).get("items")
    return metric in LESS or (metric in BITS and items is not None and KINDS[items].in_bits)


def ordered(facts: Mapping[str, Any]) -> bool:
    """Whether a task, as the runtime takes it, is several that are learned one after another."""
    return "items" in facts and KINDS[facts["items"]].ordered


def in_order(task: TaskSpec) -> bool:
    """The same, of a task as it is written."""
    return KINDS[task.items].ordered


def measures(task: TaskSpec) -> tuple[str, ...]:
    """What can be told of tasks in order: nothing on the way where they are mixed, nothing across of a single one."""
    if task.knobs.get("tasks", task.knobs.get("domains")) == 1:
        return (*ENDS, *WAY)
    return ENDS if task.knobs["mixed"] else IN_ORDER


def scores(tasks: Mapping[str, TaskSpec]) -> Iterator[str]:
    """Of tasks that are learned in order there is one test set, and their measures."""
    for name, task in tasks.items():
        several = in_order(task)
        metrics = measures(task) if several else (*ANSWERS, "bits_per_byte") if task.items == TEXT else ANSWERS
        tests = ["", *(f"[{test}]" for test in islice(task.tests, 1, 1 if several else None))]
        yield from (f"{name}{test}{learn}.{metric}" for test, learn, metric in product(tests, ("", ".off"), metrics))
