"""Steps that are the operations of a recorded one and nothing else: `nlc train --tape`.

What leads to an operation, Python code, autograd and autocast, is most of the time of a small one.  It is left out: a
tape (`runtime.compiled.tape`) becomes a Python function of one line for each operation, which frees what no later line
reads.  An operation that only gives a tensor another name is none, and equal views of a tensor are taken once.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from runtime.compiled.recorded import proven, recorded, undirected
from runtime.compiled.tape import FIXED, Made, Slot, Step, Tape, Unrecordable, needed, renamed
from runtime.recordings import Recordings

MOST = 400_000  # operations of a step: 300,000 took over two minutes to record
WRITTEN = (bool, int, type(None))  # what stands in a line as it is; other constants have names
NAMES = frozenset(("aten::detach", "aten::alias"))  # give a tensor another name


class Repeated(Recordings):
    """Repeated steps of one model.  `note` hears what is repeated, `say` why a step is not."""

    name = "--tape"

    def __init__(
        self,
        say: Callable[[str], None],
        note: Callable[[str], None] = lambda line: None,
        apart: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self.note = note
        super().__init__(say, self.repeated, apart)

    def repeated(self, run: Callable[[], Made]) -> tuple[Made, Callable[[], None]]:
        """Raises RuntimeError for what cannot be recorded, or gives something else once it is repeated."""
        began = time.perf_counter()
        made, tape = recorded(run)

        def prepare() -> Callable[[], Made]:
            program = Program(tape)
            seconds = time.perf_counter() - began
            self.note(f"a step is {program.count:,} operations, which are repeated from now on ({seconds:.0f} s once)")
            return program.run

        return proven(made, prepare, "what is repeated")


class Program:
    """A tape as a function.  count: its operations.  Raises Unrecordable where they are too many."""

    def __init__(self, tape: Tape) -> None:
        self.outside = tape.outside
        steps, self.same = distinct(tape)
        self.count = len(steps)
        if self.count > MOST:
            raise Unrecordable(f"its {self.count:,} operations are more than {MOST:,}")
        self.globals: dict[str, Any] = {}
        self.constants: dict[Any, str] = {}
        self.made = [None if at is None else self.same.get(at, at) for at in tape.made]
        lines = ["def step(given):", *(f"    v{at} = given[{at}]" for at in tape.outside), *self.lines(steps)]
        lines.append(f"    return [{', '.join('None' if at is None else f'v{at}' for at in self.made)}]")
        exec(compile("\n".join(lines), "<tape>", "exec"), self.globals)
        self.step: Callable[[dict[int, torch.Tensor]], Made] = self.globals["step"]

    def run(self) -> Made:
        with torch.no_grad(), undirected():
            return self.step({at: x.detach() for at, x in self.outside.items()})

    def lines(self, steps: list[Step]) -> Iterator[str]:
        """Of every operation, and of what ends with it."""
        last = {self.same.get(at, at): i for i, step in enumerate(steps)
                for at in (*step.reads, *step.made) if at is not None}  # fmt: skip
        ended, kept = defaultdict[int, list[int]](list), {*self.outside, *self.made}
        for at, i in last.items():
            if at not in kept:
                ended[i].append(at)
        for i, step in enumerate(steps):
            given = [*map(self.text, step.given), *(f"{name}={self.text(x)}" for name, x in step.named)]
            names = ["_" if at is None else self.text(Slot(at)) for at in step.made]
            left = f"[{', '.join(names)}]" if step.several else names[0]
            yield f"    {left} = {self.constant(step.operation)}({', '.join(given)})"
            if ended[i]:
                yield f"    {' = '.join(f'v{at}' for at in ended[i])} = None"

    def text(self, tree: Any) -> str:
        if isinstance(tree, Slot):
            return f"v{self.same.get(tree.at, tree.at)}"
        if isinstance(tree, tuple):
            return f"[{', '.join(map(self.text, tree))}]"
        return repr(tree) if isinstance(tree, WRITTEN) else self.constant(tree)

    def constant(self, x: Any) -> str:
        key = (type(x), repr(x)) if isinstance(x, FIXED) else x
        name = self.constants.setdefault(key, f"c{len(self.constants)}")
        self.globals[name] = x
        return name


def distinct(tape: Tape) -> tuple[list[Step], dict[int, int]]:
    """The steps that what is made depends on, and the slots that are another one: other names, and equal views."""
    found, same = list[Step](), dict[int, int]()
    views: dict[Any, int] = {}
    for step in needed(tape):
        if step.operation._schema.name in NAMES and step.made[0] is not None:
            same[step.made[0]] = same.get(step.reads[0], step.reads[0])
            continue
        at = step.made[0] if is_view(step) else None
        if at is not None:
            known = views.setdefault((step.operation, renamed(step.given, same), step.named), at)
            if known != at:
                same[at] = known
                continue
        found.append(step)
    return found, same


def is_view(step: Step) -> bool:
    """Whether it makes one tensor, which lies where the one that it reads does, and changes nothing."""
    returns = step.operation._schema.returns
    one = returns[0].alias_info if len(returns) == 1 and not step.several else None
    return one is not None and not one.is_write
