"""What a model computes for one token, recorded once and repeated for the tokens after it.

Between two borders every token is read by the same operations on the same weights and states; only the token and the
few registers that move with it (the last inputs of a convolution) differ.  A recording keeps the operations as they
reach torch, and a tape is a Python function of them alone: what leads to them, most of the time of a small product, is
gone.  Where a function can be told where to write it writes to the same place for every token, of which views are taken
once.  It gives the same numbers to the bit, and serves after the next border too, for the registers as they are then.
A model whose operations depend on where a token is (`steady` is False) has no tape, nor has one with an operation that
this module cannot answer for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from runtime.ops.boundaries import unread
from runtime.ops.saving import place
from runtime.state import State

Read = Callable[[Tensor, State], tuple[Tensor, State]]
Place = tuple[str, str]  # of a register, and its part
Repeat = Callable[..., tuple[Tensor, ...]]  # (token, *registers that move) -> (logits, *the same after it)
Bind = Callable[..., Repeat]  # of the registers that stay

SHAPES = frozenset(
    [getattr(Tensor, name) for name in "dim size stride numel __len__ is_contiguous is_floating_point".split()]
    + [getattr(Tensor, name).__get__ for name in "shape dtype device is_cpu nbytes itemsize requires_grad".split()]
)  # functions whose answer is the same for all tokens, though it is no tensor
PRODUCTS = frozenset([torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__])  # by entries: they change nothing
SHAPING = frozenset(
    "view reshape flatten unflatten unsqueeze squeeze transpose permute movedim __getitem__ contiguous detach".split()
)
POINTWISE = frozenset(
    "add sub mul div sigmoid tanh relu gelu silu layer_norm softplus rsqrt add_ sub_ mul_ div_ rsqrt_".split()
)  # of (1, .., 1, n) the same numbers, to the bit, as of (n,)
WRITING = {
    **{name: getattr(torch, name) for name in "add sub mul div dot mv addmv mm bmm sum cat sigmoid tanh".split()},
    **{"gelu": torch._C._nn.gelu, "silu": torch._C._nn.silu, "linalg_vector_norm": torch.linalg.vector_norm},
}  # functions that can be told where to write
SCALED = frozenset("add sub mul div add_ sub_ mul_ div_".split())  # of a tensor and a number, as of a tensor of it
AUGMENTED = frozenset(f"__i{name}__" for name in ("add", "sub", "mul", "truediv", "pow"))  # x += y


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One call, and what came of it: a tensor, or several."""

    function: Callable[..., Any]
    given: tuple[Any, ...]
    named: Mapping[str, Any]
    found: tuple[Tensor, ...]
    several: bool  # in a tuple or a list, of one perhaps

    @property
    def tensors(self) -> list[Tensor]:
        return list(tensors_in((self.given, list(self.named.values()))))

    @property
    def in_place(self) -> bool:
        """Whether it writes over the first of what it is given."""
        name = self.function.__name__
        return name in AUGMENTED or (name.endswith("_") and not name.endswith("__"))

    @property
    def is_view(self) -> bool:
        """Whether what came of it lies where something given does."""
        return set(map(place, self.found)) <= set(map(place, self.tensors))

    @property
    def is_shape(self) -> bool:
        """Whether what came of it is all that was given, in the same order."""
        if self.function.__name__ not in SHAPING or self.several or len(self.tensors) != 1:
            return False
        (x,), (y,) = self.tensors, self.found
        alike = (place(x), x.storage_offset(), x.numel(), x.dtype) == (place(y), y.storage_offset(), y.numel(), y.dtype)
        return alike and x.is_contiguous() and y.is_contiguous()

    @property
    def of_rows(self) -> bool:
        """Whether it does to rows what it does to the numbers in them."""
        if self.function.__name__ not in POINTWISE or any(isinstance(x, tuple) and len(x) > 1 for x in self.given):
            return False
        rows = (x.is_contiguous() and x.shape[-1:].numel() == x.numel() for x in (*self.tensors, *self.found))
        return self.found[0].dim() > 0 and all(rows)


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
            self.steps.append(Step(function, tuple(given), named or {}, tuple(several), several is found))
        elif function not in SHAPES:
            self.whole = False
        return found


@dataclass(frozen=True, slots=True)
class Bound:
    """A tape with the registers that stay."""

    tape: Tape
    repeat: Repeat

    def read(self, token: Tensor, seen: State) -> tuple[Tensor, State]:
        """Logits of a token, and what the next one sees: ordinary tensors, copied out of a mode that takes less."""
        with torch.inference_mode():
            logits, *moved = self.repeat(token, *(seen[at][part] for at, part in self.tape.moving))
        after = dict(seen)
        for (at, part), x in zip(self.tape.moving, moved, strict=True):
            after[at] = {**after[at], part: x.clone(memory_format=torch.contiguous_format)}
        return logits.clone(), after

    def says(self, token: Tensor, seen: State, found: Iterable[Tensor]) -> bool:
        """Whether it gives what was recorded, to the bit."""
        with torch.inference_mode():
            again = self.repeat(token, *(seen[at][part] for at, part in self.tape.moving))
        return all(map(torch.equal, again, found))


@dataclass(frozen=True, slots=True)
class Tape:
    """What a token goes through, for states of one shape."""

    bind: Bind
    staying: tuple[Place, ...]
    moving: tuple[Place, ...]
    shape: tuple[Any, ...]

    def of(self, seen: State) -> Bound | None:
        """The tape for what is seen from a border on; None where it does not look as what the tape was made of."""
        if shape_of(seen) != self.shape:
            return None
        return Bound(self, self.bind(*(seen[at][part] for at, part in self.staying)))


def shape_of(state: State) -> tuple[Any, ...]:
    """The registers that reads look at: what each is, and which are one tensor."""
    parts = [(at, n, x) for at, register in state.items() for n, x in register.items() if not unread(n)]
    first: dict[int, int] = {}
    return tuple((p, n, x.shape, x.stride(), x.dtype, first.setdefault(id(x), i)) for i, (p, n, x) in enumerate(parts))


def lies(x: Tensor) -> tuple[Any, ...]:
    """Where a tensor is in memory, and how."""
    return place(x), x.storage_offset(), x.shape, x.stride(), x.dtype


def record(read: Read, token: Tensor, seen: State, weights: Iterable[Tensor]) -> tuple[Tensor, State, Bound | None]:
    """What `read` says of a token, and the tape of it; None where another token's could be something else."""
    with Recording() as recording:
        logits, after = read(token, seen)
    if not recording.whole or {p: r.keys() for p, r in after.items()} != {p: r.keys() for p, r in seen.items()}:
        return logits, after, None
    places = [(at, n) for at, register in seen.items() for n in register if not unread(n)]
    moving = tuple((at, n) for at, n in places if lies(after[at][n]) != lies(seen[at][n]))
    staying = tuple(one for one in places if one not in set(moving))
    writer = Writer(
        inputs=[token, *(seen[at][n] for at, n in moving)],
        outputs=[logits, *(after[at][n] for at, n in moving)],
        staying=[seen[at][n] for at, n in staying],
        weights=list(weights),
    )
    if not writer.knows(recording.steps):
        return logits, after, None
    bound = Tape(writer.function(recording.steps), staying, moving, shape_of(seen)).of(seen)
    return logits, after, bound if bound is not None and bound.says(token, seen, writer.found) else None


class Writer:
    """Steps -> the text of `bind`, in which views of what stays are taken once, and of `repeat` inside."""

    def __init__(
        self, inputs: list[Tensor], outputs: list[Tensor], staying: list[Tensor], weights: list[Tensor]
    ) -> None:
        self.found = self.outputs = outputs
        self.still = {id(x) for x in (*staying, *weights)}  # the same for every token
        self.places = {place(x) for x in (*staying, *weights)}
        self.arguments = [f"x{i}" for i in range(len(inputs))]
        self.given = [f"s{i}" for i in range(len(staying))]
        self.names = dict(zip(map(id, (*inputs, *staying)), (*self.arguments, *self.given), strict=True))
        self.apart = not self.still & {id(x) for x in inputs} and len({id(x) for x in inputs}) == len(inputs)
        self.globals: dict[str, Any] = {}
        self.free: list[str] = []  # names of tensors that no later step reads
        self.count = 0

    def knows(self, steps: list[Step]) -> bool:
        """Whether every tensor is an input, stays, or came of a step, no input is two of these, and none of what comes
        out is what stays: a register that takes the value of another does so once, where a chunk ends."""
        known = self.still | self.names.keys()
        for step in steps:
            if any(id(x) not in known for x in step.tensors):
                return False
            known |= set(map(id, step.found))
        return self.apart and all(id(x) in known and place(x) not in self.places for x in self.outputs)

    def function(self, steps: list[Step]) -> Bind:
        steps = self._shaped(steps)
        views = list(self._still(steps))
        lines = [f"def bind({', '.join(self.given)}):", *(f"    {self._line(step)}" for step in views)]
        lines.append(f"    def repeat({', '.join(self.arguments)}):")
        used = {id(x) for step in steps for x in step.tensors} | set(map(id, self.outputs))
        steps = [step for step in steps if step not in views and (used & set(map(id, step.found)) or not step.is_view)]
        last = {id(x): i for i, step in enumerate(steps) for x in step.tensors if id(x) not in self.still}
        last |= dict.fromkeys(map(id, self.outputs), len(steps))
        buffers = Buffers(steps, self.outputs)
        for i, step in enumerate(steps):
            ended = {id(x) for x in step.tensors if last.get(id(x)) == i}
            lines += [f"        {line}" for line in self._lines(step, buffers, ended, last)]
            buffers.ended(i)
        lines += [f"        return {', '.join(map(self._text, self.outputs))},", "    return repeat"]
        exec(compile("\n".join(lines), "<tape>", "exec"), self.globals)
        bind: Bind = self.globals["bind"]
        return bind

    def _lines(self, step: Step, buffers: Buffers, ended: set[int], last: Mapping[int, int]) -> Iterator[str]:
        """What is left of a step: nothing of a view of buffers, which is taken here."""
        dtype = step.found[0].dtype
        if step.function.__name__ in SCALED and dtype in (torch.float32, torch.float64):  # every call makes it a tensor
            given = (torch.tensor(x, dtype=dtype) if type(x) in (int, float) else x for x in step.given)
            step = replace(step, given=tuple(given))
        at = {id(x): buffers.at[id(x)] for x in step.tensors if id(x) in buffers.at}
        ended -= buffers.at.keys()
        if step.is_view and at.keys() == set(map(id, step.tensors)) and at.keys().isdisjoint(map(id, step.found)):
            found = step.function(*swapped(step.given, at), **{n: swapped(x, at) for n, x in step.named.items()})
            for x, view in zip(step.found, found if step.several else (found,), strict=True):
                buffers.at[id(x)] = view
                self.names[id(x)] = self._constant(view)
        else:
            if (written := buffers.written(step)) is not None:
                step, x = written, step.found[0]
                self.names[id(x)] = self._constant(buffers.at[id(x)])
            yield self._line(step, ended, last)

    def _shaped(self, steps: list[Step]) -> list[Step]:
        """The same with one view where a shape matters, and none where it does not: rows are (n,) to `of_rows`."""
        roots: dict[int, Tensor] = {}  # of a tensor that is another one in another shape
        forms: dict[tuple[int, torch.Size], Tensor] = {}
        made: list[Step] = []

        def form(x: Tensor, flat: bool) -> Tensor:
            root, shape = roots.get(id(x), x), torch.Size([x.numel()]) if flat and x.dim() else x.shape
            if root.shape == shape:
                return root
            if (id(root), shape) not in forms:
                forms[id(root), shape] = root.view(shape)
                made.append(Step(Tensor.view, (root, shape), {}, (forms[id(root), shape],), False))
            return forms[id(root), shape]

        for step in steps:
            if step.is_shape:
                roots[id(step.found[0])] = roots.get(id(step.tensors[0]), step.tensors[0])
                continue
            flat = step.of_rows
            given = {id(x): form(x, flat) for x in step.tensors}
            new = {id(x): x.view(-1) if flat else x for x in step.found if id(x) not in given}
            roots |= new
            found, named = (
                tuple((given | new)[id(x)] for x in step.found),
                {n: swapped(x, given) for n, x in step.named.items()},
            )
            made.append(Step(step.function, swapped(step.given, given), named, found, step.several))
        self.outputs = [form(x, False) for x in self.outputs]
        return made

    def _still(self, steps: list[Step]) -> Iterator[Step]:
        """Views and products of what stays that somebody uses, and nobody writes over."""
        used = {id(x) for step in steps for x in step.tensors}
        changed = {place(step.given[0]) for step in steps if step.in_place}
        for step in steps:
            once = step.is_view or (step.function in PRODUCTS and changed.isdisjoint(map(place, step.found)))
            if once and self.still.issuperset(map(id, step.tensors)) and used & set(map(id, step.found)):
                self.still |= set(map(id, step.found))
                yield step

    def _line(self, step: Step, ended: Iterable[int] = (), last: Mapping[int, int] | None = None) -> str:
        """One call.  ended: tensors that no later step reads; last: those that some step does, or all."""
        named = [f"{name}={self._text(x)}" for name, x in step.named.items()]
        call = f"{self._constant(step.function)}({', '.join([*map(self._text, step.given), *named])})"
        self.free += [self.names[n] for n in ended]
        if all(id(x) in self.names or (last is not None and id(x) not in last) for x in step.found):
            return call  # changes what it was given, or is called for its effect
        for x in step.found:
            if id(x) not in self.names:
                self.count += not self.free
                self.names[id(x)] = self.free.pop() if self.free else f"v{self.count}"
        names = [self.names[id(x)] for x in step.found]
        return f"[{', '.join(names)}] = {call}" if step.several else f"{names[0]} = {call}"

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


class Buffers:
    """Where results are written, token after token, and views of it: at most one storage for what lives at a time."""

    def __init__(self, steps: list[Step], outputs: list[Tensor]) -> None:
        self.at: dict[int, Tensor] = {}  # of a tensor of the recording
        self.last = {place(x): i for i, step in enumerate(steps) for x in (*step.tensors, *step.found)}
        self.last |= {place(x): len(steps) for x in outputs}
        self.held: dict[int, Tensor] = {}  # by the place of what is in it
        self.free: list[Tensor] = []

    def written(self, step: Step) -> Step | None:
        """The step that writes to a buffer what this one makes; None where nothing does."""
        function, (x, *_) = WRITING.get(step.function.__name__), step.found
        if function is None or step.several or step.is_view or step.in_place or place(x) in self.held:
            return None
        size = x.untyped_storage().nbytes()
        found = next((i for i, one in enumerate(self.free) if len(one) == size), None)
        block = torch.empty(size, dtype=torch.uint8) if found is None else self.free.pop(found)
        at = block.view(x.dtype).as_strided(x.shape, x.stride(), x.storage_offset())
        named = {name: y for name, y in step.named.items() if name != "inplace"}  # which is False, or it were a view
        try:
            function(*step.given, **named, out=at)
        except (TypeError, RuntimeError):
            self.free.append(block)
            return None
        self.held[place(x)] = block
        self.at[id(x)] = at
        return replace(step, function=function, named={**named, "out": x})

    def ended(self, i: int) -> None:
        """What no step after this one looks at is free."""
        self.free += [self.held.pop(at) for at in list(self.held) if self.last[at] == i]


def swapped(x: Any, by: Mapping[int, Tensor]) -> Any:
    """The same with other tensors."""
    if isinstance(x, tuple | list) and any(True for _ in tensors_in(x)):
        return type(x)(swapped(y, by) for y in x)
    return by.get(id(x), x)


def tensors_in(x: Any) -> Iterator[Tensor]:
    if isinstance(x, Tensor):
        yield x
    elif isinstance(x, tuple | list):
        for y in x:
            yield from tensors_in(y)
