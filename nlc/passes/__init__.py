"""The passes, in order.  Each is one module with one public function of the same name, Graph -> Graph.

build(spec) -> Graph                    Spec -> Graph -> every pass
build(spec, after="clocks") -> Graph    the graph as it is after one of them
build(spec, target="cuda") -> Graph     with kernels of that target, chosen by pass place, the last
"""

from __future__ import annotations

from collections.abc import Callable

from nlc.diagnostics import Diagnostic, Reporter, SpecError
from nlc.graph.build import build as first
from nlc.graph.check import check as invariants
from nlc.graph.graph import Graph
from nlc.passes.causality import causality
from nlc.passes.chunks import chunks
from nlc.passes.clocks import clocks
from nlc.passes.cost import cost
from nlc.passes.gradients import gradients
from nlc.passes.heads import heads
from nlc.passes.keep import keep
from nlc.passes.levels import levels
from nlc.passes.names import names
from nlc.passes.owners import owners
from nlc.passes.place import place
from nlc.passes.shapes import shapes
from nlc.passes.share import share
from nlc.passes.still import still
from nlc.source import Position
from nlc.spec import Spec
from nlc.target import Target

PASSES: tuple[tuple[str, Callable[[Graph], Graph], tuple[str, ...]], ...] = (  # name, pass, the passes it needs
    ("names", names, ()),  # one name, one thing
    ("causality", causality, ("names",)),  # nothing depends on itself within a token
    ("shapes", shapes, ("causality",)),  # of every value, weight and state
    ("clocks", clocks, ("names",)),  # periods in the unit they are counted in
    ("owners", owners, ("shapes", "clocks")),  # which level updates each weight
    ("gradients", gradients, ("causality",)),  # every memory and weight is reached
    ("still", still, ("shapes", "clocks", "gradients")),  # what no write changes is never written
    ("levels", levels, ("causality", "clocks")),  # Definition 2
    ("heads", heads, ("owners", "levels", "gradients")),  # one axis of heads
    ("chunks", chunks, ("heads",)),  # the parallel form of each recurrence, with its reason
    ("share", share, ("chunks",)),  # common work once
    ("cost", cost, ("share",)),  # parameters, state, operations, activations
    ("keep", keep, ("cost",)),  # what the backward pass makes again
)


def build(spec: Spec, check: bool = False, after: str = "", target: Target = Target.CPU) -> Graph:
    """The graph after all passes, or after the one named.

    `check`: test the invariants of the graph after each pass.  Raises SpecError: what one pass refuses does not keep
    the passes that do not need it from saying what they refuse."""
    report = Reporter()
    graph, done = first(spec), set[str]()
    if check:
        invariants(graph, "build")
    for name, one, needs in PASSES if after != "build" else ():
        if done.issuperset(needs):
            try:
                graph = one(graph)
                done.add(name)
            except SpecError as error:
                report.take(error)
            if check and not report.found:
                invariants(graph, name)
        if name == after:
            break
    _once(graph, report)
    report.check()
    return graph if after else place(graph, target)


def _once(graph: Graph, report: Reporter) -> None:
    """Say once what is wrong with a memory that several kinds of block have; of one never read, nothing else."""
    unread = {fault.at for fault in report.found if fault.code == "NLC0901"}
    said: dict[tuple[str, Position, str], Diagnostic] = {}
    for fault in report.found:
        message = fault.message
        for kind in graph.blocks:
            message = message.replace(f"'{kind}/", "'")
        if fault.code == "NLC0603" and fault.at in unread:
            continue
        said.setdefault((fault.code, fault.at, message), fault)
    report.found[:] = said.values()
