"""Steps compiled by torch's inductor, a region at a time.

The first step is recorded (`runtime.compiled.tape`), cut into regions, and each that differs from the others is
compiled.  Then the compiled step is run on the same numbers: where it does not give what the recorded one gave, steps
are run as always.  What cannot be compiled, or is there but once, is run operation by operation, and said.
"""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch._inductor
from torch import Tensor
from torch._guards import TracingContext, tracing
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from runtime.compiled.recorded import proven, recorded, undirected
from runtime.compiled.regions import Region, cut, graph_of, key_of
from runtime.compiled.tape import Made, Tape, functional
from runtime.recordings import Recordings

OPERATIONS = 2000  # different ones that are compiled: more take minutes
SMALL = 8  # operations of a region that is worth a call
Call = Callable[..., Any]


class Compiled(Recordings):
    """Compiled steps of one model.  `note` hears what is compiled, `say` what is not; `most` operations at most."""

    name = "--compile"

    def __init__(
        self,
        say: Callable[[str], None],
        note: Callable[[str], None] = lambda line: None,
        most: int = OPERATIONS,
        apart: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self.compiler = Compiler(self.once, note, most)
        super().__init__(say, self.compiler, apart)


def refusal() -> str:
    """Why nothing can be compiled here; "" where it can."""
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        return "--compile needs a C++ compiler, and there is none: install g++, or name one in the variable CXX"
    return ""


class Compiler:
    """A `Recorder` whose replays are compiled.  regions: what was compiled, for all patterns of a model."""

    def __init__(self, say: Callable[[str], None], note: Callable[[str], None], most: int) -> None:
        self.say, self.note, self.most = say, note, most
        self.regions: dict[Any, Call] = {}
        self.refused: set[Any] = set()  # by inductor

    def __call__(self, run: Callable[[], Made]) -> tuple[Made, Callable[[], None]]:
        """Raises RuntimeError for what cannot be recorded, or gives something else once it is compiled."""
        made, tape = recorded(run)

        def prepare() -> Callable[[], Made]:
            functional(tape)
            return Program(tape, self).run

        return proven(made, prepare, "what was compiled")

    @property
    def made(self) -> int:
        """How many regions were compiled."""
        return len(self.regions) - len(self.refused)

    def compile(self, key: Any, region: Region, given: list[Tensor]) -> Call:
        """A region as a function; one that inductor refuses, as its operations."""
        if key not in self.regions:
            graph: Call = graph_of(region)
            self.regions[key] = graph
            try:
                with warnings.catch_warnings(), kept():
                    warnings.simplefilter("ignore")
                    self.regions[key] = torch._inductor.compile(graph, given)  # type: ignore[arg-type]
            except Exception as error:
                self.refused.add(key)
                line = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
                self.say(f"{len(region.steps)} operations are run one by one: they cannot be compiled ({line})")
        return self.regions[key]


class Program:
    """A tape as calls of its regions, of which those that are there most often are compiled."""

    def __init__(self, tape: Tape, compiler: Compiler) -> None:
        self.tape, self.compiler = tape, compiler
        self.regions = cut(tape)
        self.keys = [key_of(tape, region) for region in self.regions]
        self.chosen = chosen(self.keys, self.regions, compiler.most)
        self.calls: list[Call] = []  # made by the first run
        self.done = read_last(tape, self.regions)

    def run(self) -> Made:
        first = time.perf_counter() if not self.calls else 0.0
        values = {at: x.detach() for at, x in self.tape.outside.items()}
        with torch.no_grad(), undirected():
            for i, region in enumerate(self.regions):
                given = [values[at] for at in region.reads]
                if first:
                    self.calls.append(self.call(i, given))
                found = self.calls[i](*given)
                if self.keys[i] in self.chosen:
                    found = [as_recorded(x, self.tape.looks[at]) for at, x in zip(region.makes, found, strict=True)]
                values.update(zip(region.makes, found, strict=True))
                for at in self.done[i]:
                    del values[at]
        if first:
            self.compiler.note(self.told(time.perf_counter() - first))
        return [None if at is None else values[at] for at in self.tape.made]

    def call(self, i: int, given: list[Tensor]) -> Call:
        if self.keys[i] in self.chosen:
            return self.compiler.compile(self.keys[i], self.regions[i], given)
        return graph_of(self.regions[i])

    def told(self, seconds: float) -> str:
        operations, done = sum(len(region.steps) for region in self.regions), self.chosen - self.compiler.refused
        compiled = sum(len(region.steps) for region, key in zip(self.regions, self.keys, strict=True)
                       if key in done)  # fmt: skip
        what = f"{compiled:,} of the {operations:,} operations of a step are compiled"
        return f"{what}, as {len(done)} different regions, in {seconds:.0f} s; the others run one by one"


def chosen(keys: list[Any], regions: list[Region], most: int) -> set[Any]:
    """The regions to compile: those that are there most often first, `most` operations of them."""
    uses, size = Counter(keys), dict(zip(keys, (len(region.steps) for region in regions), strict=True))
    found, operations = set(), 0
    for key in sorted(size, key=lambda key: -uses[key]):
        if SMALL <= size[key] <= most - operations:
            found.add(key)
            operations += size[key]
    return found


def read_last(tape: Tape, regions: list[Region]) -> list[list[int]]:
    """Of each region, the slots that nothing after it reads."""
    last = {at: i for i, region in enumerate(regions) for at in (*region.reads, *region.makes)}
    for at in (*tape.outside, *tape.made):
        last.pop(at, None)  # type: ignore[call-overload]
    found: list[list[int]] = [[] for _ in regions]
    for at, i in last.items():
        found[i].append(at)
    return found


def as_recorded(x: Tensor, look: tuple[Any, ...]) -> Tensor:
    """A result that lies in memory as the recorded one did: what reads it was made for that."""
    shape, strides, _, dtype, _ = look
    if x.stride() == strides:
        return x
    return torch.empty_strided(shape, strides, dtype=dtype, device=x.device).copy_(x)


def kept() -> AbstractContextManager[Any]:
    """In here, what inductor compiles is kept on the disk for later runs: it asks for a context to do so."""
    shapes = ShapeEnv(assume_static_by_default=True)
    return tracing(TracingContext(FakeTensorMode(shape_env=shapes)))  # type: ignore[no-untyped-call]
