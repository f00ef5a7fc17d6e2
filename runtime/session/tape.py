"""What a model computes for one token, recorded once and repeated for the tokens after it.

Between two borders every token is read by the same operations on the same weights and states; only the token and the
few registers that move with it (the last inputs of a convolution) differ.  A recording keeps the operations as they
reach torch, and a tape is a Python function of them alone: what leads to them, most of the time of a small product, is
gone.  It gives the same numbers to the bit.  A model whose operations depend on where a token is (`steady` is False)
has no tape, nor has one with an operation that this module cannot answer for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

from runtime.state import State

Read = Callable[[Tensor, State], tuple[Tensor, State]]
Place = tuple[str, str]  # of a register, and its part

SHAPES = frozenset(
    [getattr(Tensor, name) for name in "dim size stride numel __len__ is_contiguous is_floating_point".split()]
    + [getattr(Tensor, name).__get__ for name in "shape dtype device is_cpu nbytes itemsize requires_grad".split()]
)  # functions whose answer is the same for all tokens, though it is no tensor


@dataclass(frozen=True, slots=True)
class Step:
    """One call, and what came of it: a tensor, or several."""

    function: Callable[..., Any]
    given: tuple[Any, ...]
    named: Mapping[str, Any]
    found: tuple[Tensor, ...]

    @property
    def tensors(self) -> list[Tensor]:
        return list(tensors_in((self.given, list(self.named.values()))))

    @property
    def is_view(self) -> bool:
        """Whether what came of it lies where something given does."""
        places = {x.untyped_storage().data_ptr() for x in self.tensors}
        return all(x.untyped_storage().data_ptr() in places for x in self.found)


class Recording(TorchFunctionMode):
    """While it lasts, every call of torch is a step.  whole: no number was taken out of a tensor on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Step] = []
        self.whole = True

    def __torch_function__(self, function: Any, types: Any, given: Any = (), named: Any = None) -> Any:
        found = function(*given, **(named or {}))
        several = (found,) if isinstance(found, Tensor) else found
        if isinstance(several, tuple | list) and several and all(isinstance(x, Tensor) for x in several):
            self.steps.append(Step(function, tuple(given), named or {}, tuple(several)))
        elif function not in SHAPES:
            self.whole = False
        return found


@dataclass(frozen=True, slots=True)
class Tape:
    """repeat(token, *registers that move) -> (logits, *the same registers after it)."""

    repeat: Callable[..., tuple[Tensor, ...]]
    moving: tuple[Place, ...]

    def read(self, token: Tensor, seen: State) -> tuple[Tensor, State]:
        """Logits of a token, and what the next one sees."""
        logits, *moved = self.repeat(token, *(seen[place][part] for place, part in self.moving))
        after = dict(seen)
        for (place, part), x in zip(self.moving, moved, strict=True):
            after[place] = {**after[place], part: x.contiguous()}
        return logits, after


def record(read: Read, token: Tensor, seen: State, weights: Iterable[Tensor]) -> tuple[Tensor, State, Tape | None]:
    """What `read` says of a token, and the tape of it; None where another token's could be something else."""
    with Recording() as recording:
        logits, after = read(token, seen)
    if not recording.whole or {p: r.keys() for p, r in after.items()} != {p: r.keys() for p, r in seen.items()}:
        return logits, after, None
    moving = [(place, n) for place, r in after.items() for n, x in r.items() if x is not seen[place][n]]
    inputs = [token, *(seen[place][part] for place, part in moving)]
    outputs = [logits, *(after[place][part] for place, part in moving)]
    still = [x for place, r in seen.items() for n, x in r.items() if (place, n) not in set(moving)]
    writer = Writer(inputs, outputs, [*weights, *still])
    return (
        logits,
        after,
        Tape(writer.function(recording.steps), tuple(moving)) if writer.knows(recording.steps) else None,
    )


class Writer:
    """Steps -> a function of the inputs alone.  Views of constants are constants."""

    def __init__(self, inputs: list[Tensor], outputs: list[Tensor], constants: list[Tensor]) -> None:
        self.inputs, self.outputs = inputs, outputs
        self.constants = {id(x) for x in constants}
        self.names = {id(x): f"x{i}" for i, x in enumerate(inputs)}
        self.globals: dict[str, Any] = {}
        self.free: list[str] = []  # names of tensors that no later step reads
        self.count = 0

    def knows(self, steps: list[Step]) -> bool:
        """Whether every tensor is an input, a constant or came of a step, and none of them is two of these."""
        known = self.constants | self.names.keys()
        if len(self.names) < len(self.inputs) or self.constants & self.names.keys():
            return False
        for step in steps:
            if any(id(x) not in known for x in step.tensors):
                return False
            known |= set(map(id, step.found))
        return all(id(x) in known - self.constants for x in self.outputs)

    def function(self, steps: list[Step]) -> Callable[..., tuple[Tensor, ...]]:
        steps = list(self._moving(steps))
        last = {id(x): i for i, step in enumerate(steps) for x in step.tensors}
        last |= dict.fromkeys(map(id, self.outputs), len(steps))
        lines = [f"def repeat({', '.join(self.names.values())}):"]
        for i, step in enumerate(steps):
            named = [f"{name}={self._text(x)}" for name, x in step.named.items()]
            call = f"{self._constant(step.function)}({', '.join([*map(self._text, step.given), *named])})"
            self.free += [self.names[n] for n in {id(x) for x in step.tensors} if last[n] == i and n in self.names]
            lines.append(f"    {self._targets(step, last)}{call}")
        lines.append(f"    return {', '.join(map(self._text, self.outputs))},")
        exec(compile("\n".join(lines), "<tape>", "exec"), self.globals)
        return self.globals["repeat"]  # type: ignore[no-any-return]

    def _moving(self, steps: list[Step]) -> Iterator[Step]:
        """All but the views of constants that are used."""
        used = {id(x) for step in steps for x in step.tensors}
        for step in steps:
            if step.is_view and self.constants.issuperset(map(id, step.tensors)) and used & set(map(id, step.found)):
                self.constants |= set(map(id, step.found))
            else:
                yield step

    def _targets(self, step: Step, last: Mapping[int, int]) -> str:
        """Names for what comes of a step; none where it is what was given, changed, or nobody reads it."""
        if all(id(x) in self.names or id(x) not in last for x in step.found):
            return ""
        for x in step.found:
            if id(x) not in self.names:
                self.count += not self.free
                self.names[id(x)] = self.free.pop() if self.free else f"v{self.count}"
        return "".join(f"{self.names[id(x)]}, " for x in step.found).removesuffix(", " * (len(step.found) == 1)) + " = "

    def _text(self, x: Any) -> str:
        if isinstance(x, Tensor) and id(x) in self.names:
            return self.names[id(x)]
        if isinstance(x, tuple | list) and any(True for _ in tensors_in(x)):
            inside = "".join(f"{self._text(y)}, " for y in x)
            return f"({inside})" if isinstance(x, tuple) else f"[{inside}]"
        return self._constant(x)

    def _constant(self, x: Any) -> str:
        name = f"c{len(self.globals)}"
        self.globals[name] = x
        return name


def tensors_in(x: Any) -> Iterator[Tensor]:
    if isinstance(x, Tensor):
        yield x
    elif isinstance(x, tuple | list):
        for y in x:
            yield from tensors_in(y)
