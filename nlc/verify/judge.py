"""Run a case every way it can be run, and compare."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from time import perf_counter
from typing import Any, cast

import torch
from torch import Tensor, nn

from codegen.model import argument
from nlc.compile import Program, compile
from nlc.graph.nodes import Carry, Memory, Output, Tail
from nlc.interpret import Result, interpret
from nlc.spec import load
from nlc.target import Target
from nlc.verify.cases import Case, cases, streams
from nlc.verify.small import CHUNKS, chunk_settings, small_settings

FLOAT64, FLOAT32 = 1e-9, 1e-3
FLOOR = 1e-6  # of the largest norm: below it a tensor counts as this large
State = Mapping[str, Mapping[str, Tensor]]
COUNTS = ("rule.count", "origin")
FIRES = 3  # how often every level must write in the main case


@dataclass(frozen=True)
class Outcome:
    """One comparison: the worst relative error and where it was."""

    case: str
    way: str  # whole, trained (nobody reads the state), streamed, float32
    error: float
    where: str
    tolerance: float

    @property
    def passed(self) -> bool:
        return self.error <= self.tolerance


@dataclass
class Report:
    """What was compared, how often each level fired, and what is wrong."""

    name: str
    outcomes: list[Outcome] = field(default_factory=list)
    fires: dict[str, dict[str, int]] = field(default_factory=dict)  # chunk -> level -> writes of one sequence
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        return not self.faults and all(o.passed for o in self.outcomes)

    def lines(self) -> list[str]:
        out = [f"{self.name}: {'verified' if self.passed else 'FAILED'} in {self.seconds:.0f} s"]
        for chunk, fires in self.fires.items():
            out.append(f"  {chunk}: " + "  ".join(f"{level} fired {n}" for level, n in fires.items()))
        width = max((len(o.case) for o in self.outcomes), default=0)
        for o in self.outcomes:
            mark = "ok  " if o.passed else "FAIL"
            out.append(f"  {mark} {o.case:{width}}  {o.way:8}  {o.error:.1e} of {o.tolerance:.0e}  {o.where}")
        return out + [f"  FAIL {fault}" for fault in self.faults]

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "passed": self.passed,
            "seconds": round(self.seconds, 1),
            "fires": self.fires,
            "faults": self.faults,
            "cases": [asdict(o) for o in self.outcomes],
        }


def verify(
    spec: str,
    set: Mapping[str, str | object] | None = None,
    *,
    chunks: Iterable[int] = CHUNKS,
    seed: int = 0,
    full: bool = True,
    device: str = "cpu",
    compiled: bool = False,
) -> Report:
    """Verify a shipped name or a path at small sizes.  `set` overrides what is made small.

    The first of `chunks` gets every case (with `full`), the others the main one.  The compiled program runs on
    `device`, the interpreter on the processor.  Raises SpecError where the small spec is not legal. `compiled`:
    the main case of the first by torch's compiler, too.
    """
    began = perf_counter()
    given = dict(set or {})
    written = load(spec, given)
    settings = small_settings(written) | given
    report = Report(written.model.name)
    seen: list[dict[str, object]] = []
    for i, chunk in enumerate(chunks):
        chosen = settings | {k: v for k, v in chunk_settings(written, chunk).items() if k not in given}
        if chosen in seen:
            continue
        seen.append(chosen)
        program = compile(load(spec, chosen), target=Target.of(device), starts=False)
        label = "as written" if chosen == settings else f"chunk {chunk}"
        judge(program, label, report, seed, full and i == 0, device, compiled and i == 0)
    report.seconds = perf_counter() - began
    return report


def judge(
    program: Program, label: str, report: Report, seed: int, full: bool, device: str, compiled: bool = False
) -> None:
    """Every case of one program; with `full` not the main one alone."""
    model = perturbed(program.model(seed=seed, dtype=torch.float64), seed)
    graph, there = program.graph, deepcopy(model).to(device)
    for case in streams(graph, seed, full) if graph.bare else cases(graph.sizes["vocab"], seed, full):
        name = f"{label}, {case.name}"
        expected = reference(program, model, case)
        if case.main:
            _check_alive(program, expected, label, report)
        given = case.on(device)
        whole = observed(program, there, given, (case.length,))
        report.outcomes.append(compare(name, "whole", whole, expected, FLOAT64))
        trained = observed(program, there, given, (case.length,), final=True)
        report.outcomes.append(compare(name, "trained", trained, expected, FLOAT64))
        if len(case.pieces) > 1:
            streamed = observed(program, there, given, case.pieces)
            again = reference_in_pieces(program, model, case) if cut_matters(program) else expected
            report.outcomes.append(compare(name, "streamed", streamed, again, FLOAT64))
        if case.main:
            single = program.model(seed=seed).to(device)
            single.load_state_dict(model.state_dict())
            if compiled:
                report.outcomes.append(by_compiler(program, there, given, name, expected, report))
            rounded = observed(program, single, given, (case.length,))
            report.outcomes.append(compare(name, "float32", rounded, expected, FLOAT32))


def by_compiler(program: Program, model: nn.Module, case: Case, name: str, expected: Result, report: Report) -> Outcome:
    """What `nlc train --compile` computes of a case."""
    from nlc.verify.compiled import computed  # torch's compiler takes seconds to import

    try:
        outputs, gradients = computed(program, model, case, lambda outputs: summed(program, case, outputs))
    except RuntimeError as error:
        report.faults.append(f"{name}: {error}")
        return Outcome(name, "compiled", float("inf"), "not compiled", FLOAT64)
    return compare(name, "compiled", Seen(outputs, None, gradients), expected, FLOAT64)


def perturbed(model: nn.Module, seed: int) -> nn.Module:
    """Weights moved off their special starts (zeros, ones), so that no gradient is zero by accident."""
    draw = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=draw, dtype=p.dtype))
    return model


@dataclass(frozen=True)
class Seen:
    """Outputs, state (where the run keeps one) and gradients of one run."""

    outputs: dict[str, Tensor]
    state: State | None
    gradients: dict[str, Tensor]


@dataclass(frozen=True)
class Expected:
    """What a run should have given; an interpreter's Result has the same."""

    nats: Tensor | None
    outputs: Mapping[str, Tensor]
    state: State
    gradients: Mapping[str, Tensor]


def cotangents(program: Program, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(7)
    return {name: torch.randn(y.shape, generator=draw, dtype=torch.float64) for name, y in sorted(outputs.items())}


def reference(program: Program, model: nn.Module, case: Case) -> Result:
    weights = dict(model.state_dict())
    if program.graph.bare:
        plain = interpret(program.graph, weights, inputs=case.inputs)
        return interpret(program.graph, weights, inputs=case.inputs, cotangents=cotangents(program, plain.outputs))
    return interpret(program.graph, weights, case.tokens, case.targets, starts=case.starts, mask=case.mask)


def cut_matters(program: Program) -> bool:
    """Whether it matters where calls end: a lane's state is cut from the graph there, a tail handled."""
    memories = program.graph.of(Memory)
    return any(m.carry is Carry.STREAM or m.tail is not Tail.CARRY for m in memories)


def reference_in_pieces(program: Program, model: nn.Module, case: Case) -> Expected:
    """The interpreter over the case's pieces, the state handed from one to the next."""
    weights = {name: x.detach().double().requires_grad_() for name, x in model.state_dict().items()}
    state: Any = None
    at, parts = 0, []
    for n in case.pieces:
        cut = slice(at, at + n)
        if program.graph.bare:
            inputs = {name: x[:, cut] for name, x in case.inputs.items()}
            result = interpret(program.graph, weights, inputs=inputs, state=state)
        else:
            border = {k: x[:, cut] for k, x in (("starts", case.starts), ("mask", case.mask)) if x is not None}
            result = interpret(
                program.graph, weights, case.tokens[:, cut], case.targets[:, cut], state=state, **cast(Any, border)
            )
        state = result.state
        parts.append(result.outputs if program.graph.bare else {"nats": cast(Tensor, result.nats)})
        at += n
    outputs = {name: torch.cat([p[name] for p in parts], 1) for name in parts[0]}
    scalar, leaves = summed(program, case, outputs), list(weights.values())
    found = torch.autograd.grad(scalar, leaves, allow_unused=True) if scalar.requires_grad else [None] * len(leaves)
    pairs = zip(weights.items(), found, strict=True)
    gradients = {name: torch.zeros_like(w) if g is None else g for (name, w), g in pairs}
    return Expected(outputs.get("nats"), outputs, state, gradients)


def summed(program: Program, case: Case, outputs: Mapping[str, Tensor]) -> Tensor:
    """What gradients are of: the mean loss over taught tokens, or a bare program's outputs times fixed cotangents."""
    if program.graph.bare:
        pull = cotangents(program, outputs)
        return torch.stack([(y * pull[name].to(y)).sum() for name, y in outputs.items()]).sum()
    taught = case.targets != -100 if case.mask is None else (case.targets != -100) & case.mask
    return outputs["nats"].sum() / taught.sum()


def observed(program: Program, model: nn.Module, case: Case, pieces: tuple[int, ...], final: bool = False) -> Seen:
    """The compiled program over `pieces`, the state handed from one to the next.

    `final`: as a model is trained, nobody reads the last state, so there is none.
    """
    model.zero_grad()
    dtype = next((p.dtype for p in model.parameters()), torch.float64)
    state, at, parts = None, 0, []
    for n in pieces:
        cut, last = slice(at, at + n), final and at + n == sum(pieces)
        if program.graph.bare:
            given = {argument(k): x[:, cut].to(dtype) for k, x in case.inputs.items()}
            out, state = model(**given, state=state, final=last)
            parts.append(out if isinstance(out, tuple) else (out,))
        else:
            border: dict[str, Any] = {
                k: x[:, cut] for k, x in (("starts", case.starts), ("mask", case.mask)) if x is not None
            }
            options = {**border, "state": state, "final": last}
            nats, state = cast(Any, model).nats(case.tokens[:, cut], case.targets[:, cut], **options)
            parts.append((nats,))
        at += n
    columns = [torch.cat(column, 1) for column in zip(*parts, strict=True)]
    if program.graph.bare:
        outputs = dict(zip([o.name for o in program.graph.of(Output)], columns, strict=True))
    else:
        outputs = {"nats": columns[0]}
    scalar = summed(program, case, outputs)
    if scalar.requires_grad:
        torch.autograd.backward(scalar)
    gradients = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in model.named_parameters()}
    return Seen(outputs, None if final else state, gradients)


def compare(case: str, way: str, seen: Seen, expected: Result | Expected, tolerance: float) -> Outcome:
    """The worst of ||a - b|| / max(||b||, 1e-6 of the largest norm of its kind)."""
    right = {"nats": expected.nats} if expected.nats is not None else expected.outputs
    kinds = {
        "output": [(n, seen.outputs[n], b) for n, b in right.items()],
        "state": [] if seen.state is None else list(_states(seen.state, expected.state)),
        "count": [] if seen.state is None else list(_counts(seen.state, expected.state)),
        "gradient": [(n, seen.gradients[n], b) for n, b in expected.gradients.items()],
    }
    worst, where = 0.0, ""
    for kind, rows in kinds.items():
        rows = [(name, a.detach().double().cpu(), b.detach().double()) for name, a, b in rows]
        largest = max((length(b) for _, _, b in rows), default=0.0)
        for name, a, b in rows:
            if a.numel() != b.numel():
                shapes = f"shape {tuple(a.shape)}, not {tuple(b.shape)}"
                return Outcome(case, way, float("inf"), f"{kind} {name}: {shapes}", tolerance)
            scale = max(length(b), FLOOR * largest, 1e-300)
            error = length(a.reshape(b.shape) - b) / scale
            if not error <= worst:
                worst, where = error if error == error else float("inf"), f"{kind} {name}"
    return Outcome(case, way, worst, where, tolerance)


def length(x: Tensor) -> float:
    """|x|, where squares of its numbers overflow, too."""
    largest = float(x.abs().max()) if x.numel() else 0.0
    return largest * float((x / largest).norm()) if largest else 0.0


def _states(mine: State, right: State) -> Iterable[tuple[str, Tensor, Tensor]]:
    """Every register of numbers: memories' states, held states, rule states, what periods gather, histories.

    A compiled register may leave out a held state that is the running one, and what a period has gathered before its
    first token: zeros in the interpreter's.  `kept` is the logarithm of a share, and may be repeated for every head.
    """
    for place, part, b in _registers(right):
        if part in COUNTS:
            continue
        register = mine.get(place, {})
        a = register.get(part)
        if a is None and part.startswith("held."):
            a = register.get(part.removeprefix("held."))
        if a is None and (part == "kept" or part.startswith(("sum.", "gram.", "rate."))):
            a = torch.zeros_like(b)
        if a is None:
            yield f"{place} {part} (missing)", torch.full_like(b, float("nan")), b
            continue
        if part == "kept":
            a, b = a.cpu().exp(), b.exp()
            b = b.reshape(*b.shape, *(1,) * (a.dim() - b.dim())).expand_as(a) if a.dim() > b.dim() else b
        if part in ("k", "v"):
            n = min(a.shape[1], b.shape[1])
            a, b = a[:, a.shape[1] - n :], b[:, b.shape[1] - n :]
        yield f"{place} {part}", a, b


def _counts(mine: State, right: State) -> Iterable[tuple[str, Tensor, Tensor]]:
    """Tokens since the document began, and the counts in registers (updates, where periods began); 0 if left out.

    Not the tokens of the lane: compiled programs without a stream memory do not count them across documents.
    """
    yield "clock sequence", mine["clock"]["sequence"], right["clock"]["sequence"]
    for place, part, b in _registers(right):
        if part in COUNTS:
            yield f"{place} {part}", mine.get(place, {}).get(part, torch.zeros_like(b)), b


def _registers(state: State) -> Iterable[tuple[str, str, Tensor]]:
    """(place, part, values) of all but the clocks and the token whose target is still to come."""
    for place, register in state.items():
        if place not in ("clock", "unlearned"):
            yield from ((place, part, x) for part, x in register.items())


def _check_alive(program: Program, expected: Result, label: str, report: Report) -> None:
    """Every level fired often enough, and no gradient is identically zero, or not finite."""
    counts: dict[str, int] = {}
    memories = {m.id: m for m in program.graph.of(Memory)}
    for place, rows in expected.fires.items():
        short = place.split(".", 2)[2]
        memory = memories.get(short) or next(m for i, m in memories.items() if i.endswith(short))
        level = program.graph[memory.level].name
        counts[level] = min(counts.get(level, 10**9), *(len(row) for row in rows))
    report.fires[label] = counts
    for level, n in counts.items():
        if n < FIRES:
            report.faults.append(f"{label}: level {level} fired {n} times, fewer than {FIRES}")
    for name, g in expected.gradients.items():
        if not bool(g.any()):
            report.faults.append(f"{label}: the gradient of {name} is identically zero")
    values = {"nats": expected.nats} if expected.nats is not None else dict(expected.outputs)
    values |= {f"the gradient of {name}": g for name, g in expected.gradients.items()}
    lost = [name for name, x in values.items() if not bool(x.isfinite().all())]
    if lost:
        said = f"{lost[0]} is not finite in the interpreter either: as written, the program diverges"
        report.faults.append(f"{label}: {said}")
