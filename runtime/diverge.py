"""A step that is not finite, run again -> where a number first stops being finite: memory, layer and token, or weight.

Forward: the shortest beginning of the batch after which a state or a loss is not finite ends with the token (any
beginning of a sequence is computed as within the whole), what is not finite there is the memory, and a watch over the
operations of that run names the line.  Backward: the shortest beginning whose gradient is not finite, and the last
layer that turns a finite gradient into another.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from runtime import checkpoint
from runtime.batches import Batch
from runtime.level import Level
from runtime.metrics import is_running
from runtime.ops.forms import Form
from runtime.ops.segment import Learner
from runtime.precision import autocast
from runtime.state import State, short
from runtime.watch import Code, Line, Watch

IGNORED = -100


@dataclass(frozen=True, slots=True)
class Found:
    """What is not finite: `where` says it in words; the rest is None where it does not apply.

    what: weight, state (handed over by the step before), memory, value, loss, or gradient
    tokens: first and last, counted from 0.  sequence: row of the batch.  largest: {memory: largest absolute value} in
        the layer, before the token.  others: memories that share the write, and are no more finite.
    """

    what: str
    level: str | None = None
    memory: str | None = None
    layer: int | None = None
    weight: str | None = None
    sequence: int | None = None
    tokens: tuple[int, int] | None = None
    operation: str | None = None
    equation: str | None = None
    largest: dict[str, float] = field(default_factory=dict)
    others: tuple[str, ...] = ()

    def where(self) -> str:
        layer = "" if self.layer is None else f" of layer {self.layer}"
        names = ", ".join(f"'{name}'" for name in (self.memory, *self.others) if name)
        name = f"{names}{layer}" if names else f"a value{layer}" if layer else ""
        if self.what == "weight":
            return f"weight '{self.weight}'"
        if self.what == "state":
            return f"{name}, before the first token"
        if self.what == "gradient":
            inner = f"weight '{self.weight}'" if self.weight else "the loss"
            name = f"the gradient of {name or inner}"
        elif not name:
            name = "the loss, every memory being finite,"
        return f"{name}, at {self._tokens()}"

    def _tokens(self) -> str:
        first, last = self.tokens or (0, 0)
        span = f"token {first}" if first == last else f"tokens {first} to {last}"
        row = "" if self.sequence is None else f" of sequence {self.sequence}"
        return f"{span} (counted from 0){row}"

    def place(self) -> str:
        """Where, with the level it belongs to."""
        return self.where() + (f"; level {self.level}" if self.level else "")

    def lines(self) -> list[str]:
        """For a person."""
        said = [f"first not finite: {self.place()}"]
        if self.equation:
            said.append(f"in {self.equation}" + (f", by {self.operation}" if self.operation else ""))
        if self.largest:
            sizes = ", ".join(f"{name} {size:.3g}" for name, size in self.largest.items())
            said.append(f"largest absolute value in a state before it: {sizes}")
        return said

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "where": self.where()}


@dataclass(frozen=True, slots=True)
class Step:
    """What a training step is made of.  state: of streams, as the step before left it; random: of the generators."""

    model: nn.Module
    batch: Batch
    state: State | None
    precision: str
    random: dict[str, str]

    def first(self, tokens: int) -> Step:
        """Its beginning."""
        x, y, starts = (x if x is None else x[:, :tokens] for x in self.batch)
        assert x is not None and y is not None
        return Step(self.model, Batch(x, y, starts), self.state, self.precision, self.random)

    @property
    def length(self) -> int:
        return self.batch.tokens.shape[1]

    def nats(self) -> tuple[Tensor, State]:
        """The loss of every token and the state after them; numbers are drawn as in the step, nothing is counted."""
        model: Any = self.model
        fires = dict(getattr(model, "fires", {}))
        checkpoint.restore_random_states(self.random, self.batch.tokens.device)
        with self.autocast():
            nats, state = model.nats(self.batch.tokens, self.batch.targets, self.state, starts=self.batch.starts)
        getattr(model, "fires", {}).update(fires)
        return nats, state

    def autocast(self) -> AbstractContextManager[Any]:
        return autocast(self.precision, self.batch.tokens.device)


def find(step: Step, levels: Sequence[Level] = ()) -> Found | None:
    """The first place; None where everything is finite this time."""
    before = checkpoint.random_states(step.batch.tokens.device)
    try:
        return weight_of(step, levels) or state_of(step) or forward(step) or backward(step, levels)
    finally:
        checkpoint.restore_random_states(before, step.batch.tokens.device)


def weight_of(step: Step, levels: Sequence[Level]) -> Found | None:
    for name, weight in step.model.named_parameters():
        if not weight.isfinite().all():
            return Found("weight", weight=name, level=owner(name, levels))
    return None


def state_of(step: Step) -> Found | None:
    bad = not_finite(step.state or {})
    return named(Found("state", sequence=bad[0].row), bad[0].place, step) if bad else None


# ---- forward ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bad:
    """A part of a register that is not finite, and the first row where."""

    place: str
    part: str
    row: int


@torch.no_grad()
def forward(step: Step) -> Found | None:
    def broken(n: int) -> bool:
        nats, state = step.first(n).nats()
        return not nats.isfinite().all() or bool(not_finite(state))

    if not broken(step.length):
        return None
    n = shortest(broken, step.length)
    beginning = step.first(n)
    with Watch(step.model) as watch:
        nats, state = beginning.nats()
    bad, rows = not_finite(state), (~nats.isfinite()).any(1).nonzero().flatten().tolist()
    origin = watch.origin
    line = origin.line if origin else None
    place = place_of(step, line, bad)
    row = min([*rows, *(b.row for b in bad)], default=None)
    running = dict.fromkeys(b.place for b in bad if is_running(b.part))
    shared = [p for p in running if p != place and line is not None and line.mentions(short(p))]
    found = Found(
        "memory" if place else "value" if line and line.layer is not None else "loss",
        layer=line.layer if line else None,
        sequence=row,
        tokens=(n - 1, n - 1),
        operation=origin.operation if origin else None,
        equation=line.equation or None if line else None,
        others=tuple(short(p) for p in shared if layer_number(p) == layer_number(place)) if place else (),
    )
    return sized(named(found, place, step), step, n)


def place_of(step: Step, line: Line | None, bad: Sequence[Bad]) -> str:
    """The memory, with its layer: what the line reads or writes; otherwise what is not finite.

    States go from the first layer to the last; errors, which periods sum, from the last to the first.
    """
    running = [b.place for b in bad if is_running(b.part)]
    if line is not None and line.layer is not None:
        here = [f"blocks.{line.layer}.{name}" for name in memories(step)]
        mentioned = [place for place in here if line.mentions(short(place))]
        return next((p for p in mentioned if p in running), mentioned[0] if mentioned else "")
    sums = [b.place for b in bad if b.part.startswith(("sum.", "gram.", "kept"))]
    if running:
        return min(running, key=layer_number)
    return max(sums, key=layer_number) if sums else ""


def memories(step: Step) -> list[str]:
    """Names of the memories of a layer, as a state and the weights have them."""
    state = [place for place, parts in start_of(step).items() if any(is_running(p) or p in "kv" for p in parts)]
    weights = [name.partition(".start")[0] for name, _ in step.model.named_parameters() if ".start" in name]
    named, parts = (name.rpartition(".") for name, _ in step.model.named_parameters()), parts_of(step.model)
    deep = [place for place, _, part in named if part in parts]
    return list(dict.fromkeys(short(p) for p in [*state, *weights, *deep] if p.startswith("blocks.")))


def parts_of(model: nn.Module) -> set[str]:
    """What the forms of its program call their parts: W_in, M, or a name of a form of one's own."""
    program = type(model).__init__.__globals__.values()
    forms = (x.form if isinstance(x, Learner) else x for x in program)
    return {"M", "m"}.union(*(form.parts for form in forms if isinstance(form, Form)))


def start_of(step: Step) -> State:
    model: Any = step.model
    return model.start(1) if hasattr(model, "start") else {}


def sized(found: Found, step: Step, n: int) -> Found:
    """With the sizes of the states of its layer just before its token."""
    if found.layer is None or n < 2:
        return found
    with torch.no_grad():
        _, state = step.first(n - 1).nats()
    sizes: dict[str, float] = {}
    for place, register in state.items():
        running = [x for part, x in register.items() if is_running(part)]
        if place.startswith(f"blocks.{found.layer}.") and running:
            sizes[short(place)] = max(float(x.abs().max()) for x in running)
    return Found(**{**shallow(found), "largest": sizes})


# ---- backward --------------------------------------------------------------------------------------------------------


def backward(step: Step, levels: Sequence[Level]) -> Found | None:
    weights = {name: p for name, p in step.model.named_parameters() if p.requires_grad}
    taught = (step.batch.targets != IGNORED).sum().clamp(min=1)

    def broken(n: int) -> bool:
        return bool(gradients(step.first(n), weights, taught)[1])

    if not broken(step.length):
        return None
    n = shortest(broken, step.length)
    beginning = step.first(n)
    taps, bad = gradients(beginning, weights, taught)
    layer, tokens, row = layer_and_tokens(taps)
    line = forward_line(beginning, weights, taught, layer)
    inside = [name for name in bad if layer is None or name.startswith(f"blocks.{layer}.")]
    found = Found(
        "gradient",
        layer=layer,
        sequence=row,
        tokens=tokens or (n - 1, n - 1),
        weight=inside[-1] if inside else None,
        level=owner(inside[-1], levels) if inside else None,
        equation=line.equation or None if line else None,
    )
    mentioned = [name for name in memories(step) if line is not None and line.mentions(name)]
    place = f"blocks.{layer}.{mentioned[0]}" if mentioned and layer is not None else ""
    return sized(named(found, place, step), step, n)


@dataclass
class Tap:
    """A layer's call: the gradients at its input and at its output, where they were asked for."""

    layer: int
    first: int  # token
    at_input: Tensor | None = None
    at_output: Tensor | None = None


def gradients(step: Step, weights: dict[str, nn.Parameter], taught: Tensor) -> tuple[list[Tap], list[str]]:
    """The taps of every layer and the weights whose gradient is not finite."""
    taps: list[Tap] = []
    seen: dict[int, int] = {}

    def tap(layer: int) -> Callable[..., None]:
        def hook(module: nn.Module, given: tuple[Any, ...], out: Any) -> None:
            x, y = given[0], out[0] if isinstance(out, tuple) else out
            here = Tap(layer, seen.get(layer, 0))
            seen[layer] = here.first + x.shape[1]
            taps.append(here)
            for name, value in (("at_input", x), ("at_output", y)):
                if value.requires_grad:
                    value.register_hook(lambda g, name=name: setattr(here, name, g))

        return hook

    hooks = [b.register_forward_hook(tap(i)) for i, b in enumerate(getattr(step.model, "blocks", ()))]
    try:
        nats, _ = step.nats()
    finally:
        for hook in hooks:
            hook.remove()
    found = torch.autograd.grad(nats.sum() / taught, list(weights.values()), allow_unused=True)
    bad = [n for n, g in zip(weights, found, strict=True) if g is not None and not g.isfinite().all()]
    return taps, bad


def layer_and_tokens(taps: Sequence[Tap]) -> tuple[int | None, tuple[int, int] | None, int | None]:
    """The last layer that makes a finite gradient not finite, at which tokens, in which row."""
    for tap in sorted(taps, key=lambda tap: (-tap.layer, -tap.first)):
        if tap.at_input is None or tap.at_input.isfinite().all():
            continue
        if tap.at_output is not None and not tap.at_output.isfinite().all():
            return None, None, None
        where = (~tap.at_input.isfinite()).flatten(2).any(2).nonzero()
        at = where[:, 1] + tap.first
        return tap.layer, (int(at.min()), int(at.max())), int(where[:, 0].min())
    return None, None, None


def forward_line(step: Step, weights: dict[str, nn.Parameter], taught: Tensor, layer: int | None) -> Line | None:
    """The line whose gradient torch's anomaly detection stops at: it keeps where every operation was called."""
    code = Code(step.model)
    with warnings.catch_warnings(record=True) as said, torch.autograd.detect_anomaly(check_nan=True):
        warnings.simplefilter("always")
        try:
            nats, _ = step.nats()
            torch.autograd.grad(nats.sum() / taught, list(weights.values()), allow_unused=True)
        except RuntimeError:
            pass
    calls = [line.strip() for w in said for line in str(w.message).splitlines() if f'File "{code.file}", line ' in line]
    if not calls:
        return None
    inside = [call for call in calls if call.endswith(", in forward") or ", in write_" in call]
    _, number, function = (inside or calls)[-1].removeprefix(f'File "{code.file}"').split(", ", 2)
    return code.at(int(number.removeprefix("line ")), function.removeprefix("in "), layer)


# ---- names -----------------------------------------------------------------------------------------------------------


def shortest(broken: Callable[[int], bool], length: int) -> int:
    """The least n that is broken, `length` being so."""
    good, bad = 0, length
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (good, middle) if broken(middle) else (middle, bad)
    return bad


def not_finite(state: State) -> list[Bad]:
    found = []
    for place, register in state.items():
        for part, x in register.items():
            if x.is_floating_point() and not x.isfinite().all():
                rows = (~x.isfinite()).flatten(1).any(1) if x.dim() > 1 else ~x.isfinite()
                found.append(Bad(place, part, int(rows.nonzero()[0])))
    return found


def named(found: Found, place: str, step: Step) -> Found:
    """With a memory, its layer and level."""
    if not place:
        return found
    memory = short(place)
    return Found(**{**shallow(found), "memory": memory, "layer": layer_number(place), "level": level_of(memory, step)})


def shallow(found: Found) -> dict[str, Any]:
    return {name: getattr(found, name) for name in Found.__slots__}


def layer_number(place: str) -> int:
    return int(place.split(".")[1]) if place.startswith("blocks.") else -1


def level_of(memory: str, step: Step) -> str | None:
    """The level a memory is in: cms.fast is its own, titans.key is in titans."""
    names: Sequence[str] = getattr(step.model, "writing", ())
    fits = [name for name in names if memory == name or memory.startswith(f"{name}.")]
    return max(fits, key=len, default=memory.partition(".")[0])


def owner(weight: str, levels: Sequence[Level]) -> str | None:
    return next((level.name for level in levels if any(w.name == weight for w in level.weights)), None)
