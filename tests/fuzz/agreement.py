"""What must hold of a legal program.

check(drawn) -> Verdict     raises Disagreement, which says which claim failed and how

1. it is accepted, and every pass keeps the invariants of the graph;
2. the graph, printed as text and as JSON, reads back equal;
3. the order of levels is that of Definition 2, found by brute force;
4. compiling it again, there in a process of another hash seed, gives the same bytes;
5. interpreter, generated PyTorch, whole, in spans that are run again for their gradient, and in pieces, agree: outputs,
   states, every gradient, 1e-9 in float64.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn

from nlc.compile import Program, compile
from nlc.diagnostics import SpecError
from nlc.graph.dump import from_json, from_text, to_json, to_text
from nlc.graph.graph import Graph
from nlc.graph.nodes import Op
from nlc.passes import build
from nlc.spec import loads
from nlc.verify.cases import Case, vectors
from nlc.verify.judge import FLOAT64, compare, cut_matters, perturbed
from tests.differential.machine import IGNORED, Run, generated, reference
from tests.fuzz.coverage import covered
from tests.fuzz.definition2 import misplaced
from tests.fuzz.program import Fed, Feeding
from tests.fuzz.rounding import Rounded

Digest = Callable[[str], str]  # the digest of what a spec's text compiles to, elsewhere
SQUARED = 1e100  # beyond it products of two numbers are near to overflow, in one order of operations or another
MOVED = 30  # a difference up to so many times what random rounding does to the interpreter says nothing


class Disagreement(AssertionError):
    """A claim that does not hold.  `claim` is one word."""

    def __init__(self, claim: str, message: str, apart: float = 0.0) -> None:
        super().__init__(f"{claim}: {message}")
        self.claim, self.apart = claim, apart


@dataclass(frozen=True)
class Verdict:
    """A program that holds: the worst relative error, what it covers, or that its own numbers overflow, both ways of
    running it, or hang on the last digit of its operations."""

    error: float = 0.0
    overflows: bool = False
    fires: int = 0
    covers: dict[str, list[str]] = field(default_factory=dict)


def check(drawn: Fed, elsewhere: Digest | None = None) -> Verdict:
    """Every claim.  `elsewhere` compiles in another process."""
    program = accepted(drawn.text)
    reads_back(program.graph)
    if faults := misplaced(program.graph):
        raise Disagreement("order", faults[0])
    if elsewhere and elsewhere(drawn.text) != digest(program):
        raise Disagreement("bytes", "another process compiles it to other bytes")
    covers = covered(program.graph)
    return agrees(program, drawn.feeding, covers)


def accepted(text: str) -> Program:
    try:
        spec = loads(text, "drawn.yaml")
        build(spec, check=True)
        return compile(spec)
    except SpecError as error:
        raise Disagreement("refused", str(error)) from error


def digest(program: Program) -> str:
    """Of every file's bytes."""
    return hashlib.sha256(repr(sorted(program.files.items())).encode()).hexdigest()


def reads_back(graph: Graph) -> None:
    if from_text(to_text(graph)) != graph:
        raise Disagreement("text", "the printed graph does not read back equal")
    if from_json(to_json(graph)) != graph:
        raise Disagreement("json", "the graph's JSON does not read back equal")


# ---- all ways of running it -----------------------------------------------------------------------------------------


def agrees(program: Program, feeding: Feeding, covers: dict[str, list[str]]) -> Verdict:
    """Interpreter and generated program: whole, in spans and in pieces."""
    model = perturbed(program.model(seed=feeding.seed, dtype=torch.float64), feeding.seed)
    if any(isinstance(n, Op) and n.op == "dropout" for n in program.graph.nodes.values()):
        model.eval()
    case, whole = case_of(program, feeding), (feeding.length,)
    learn = learning(model, feeding)
    right, worst = reference(program, model, case, whole, learn), 0.0
    for way, pieces in (("whole", whole), *[("spans", whole)] * (not program.graph.bare), ("pieces", feeding.pieces)):
        if way == "pieces" and pieces and (cut_matters(program) or learn is not True):
            right = reference(program, model, case, pieces, learn)
        if not pieces:
            break
        model.span = -(-feeding.length // 3) if way == "spans" else None
        mine = generated(program, model, case, pieces, learn)
        if not finite(right):
            if finite(mine) and largest(mine) < SQUARED:
                raise Disagreement(way, "the interpreter alone gives what is no finite number")
            return Verdict(overflows=True, covers=covers)
        if not finite(mine) and largest(right) >= SQUARED:
            return Verdict(overflows=True, covers=covers)
        try:
            worst = max(worst, compared(way, mine, right))
        except Disagreement as error:
            if isfinite(error.apart) and error.apart <= MOVED * moved(program, model, case, pieces, learn):
                return Verdict(error.apart, overflows=True, covers=covers)
            raise
    return Verdict(worst, covers=covers)


def compared(way: str, mine: Run, right: Run) -> float:
    outcome = compare(way, way, mine, right, FLOAT64)  # type: ignore[arg-type]
    if not outcome.passed:
        raise Disagreement(way, f"relative error {outcome.error:.1e} at {outcome.where}", outcome.error)
    return outcome.error


def moved(program: Program, model: nn.Module, case: Case, pieces: tuple[int, ...], learn: Any) -> float:
    """How far the interpreter's own answer goes when its operations, backward ones too, round at random."""
    right = reference(program, model, case, pieces, learn)
    with Rounded():
        found = reference(program, model, case, pieces, learn)
    error: float = compare("moved", "moved", found, right, FLOAT64).error  # type: ignore[arg-type]
    return error if isfinite(error) else 0.0


def numbers(run: Run) -> list[Tensor]:
    """All of a run; of a share that is kept, whose logarithm may be that of 0, the share."""
    states = [x.exp() if part == "kept" else x for register in run.state.values() for part, x in register.items()]
    return [x.detach() for x in (*run.outputs.values(), *run.gradients.values(), *states)]


def largest(run: Run) -> float:
    return max((float(x.abs().max()) for x in numbers(run) if x.numel()), default=0.0)


def finite(run: Run) -> bool:
    return all(bool(torch.isfinite(x).all()) for x in numbers(run))


def case_of(program: Program, feeding: Feeding) -> Case:
    """Random tokens, one of which teaches nothing, with borders and padding; or a bare program's inputs."""
    draw = torch.Generator().manual_seed(feeding.seed)
    B, T = feeding.batch, feeding.length
    if program.graph.bare:
        none = torch.zeros(B, T, dtype=torch.long)
        return Case("drawn", none, none, inputs=vectors(program.graph, B, T, draw))
    fed = torch.randint(program.graph.sizes["vocab"], (B, T + 1), generator=draw)
    targets = fed[:, 1:].clone()
    targets[0, T // 3] = IGNORED
    starts = marked(feeding.borders, B, T) if feeding.borders else None
    mask = ~marked(feeding.padding, B, T) if feeding.padding else None
    if starts is not None:
        starts[:, 0] = True
    return Case("drawn", fed[:, :-1], targets, starts=starts, mask=mask)


def marked(places: tuple[tuple[int, int], ...], B: int, T: int) -> Tensor:
    found = torch.zeros(B, T, dtype=torch.bool)
    for b, t in places:
        found[b, t] = True
    return found


def learning(model: nn.Module, feeding: Feeding) -> Any:
    """What writes: all, nothing, or some of the levels that write in a call."""
    if isinstance(feeding.learn, bool):
        return feeding.learn
    writing: list[str] = sorted(model.writing)  # type: ignore[arg-type]
    return [writing[i % len(writing)] for i in feeding.learn] if writing else True
