"""Blocks of a memory of several layers, for `runtime.ops.memories`: which ones `runtime.ops.deep` writes, and how."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from runtime.ops import naive
from runtime.ops.deep import Task, Written
from runtime.ops.forms import Matrix, Mlp, Swiglu, Tap
from runtime.ops.memory_rows import Tokens
from runtime.ops.recurrence import Block, State, row
from runtime.ops.watch import Watched

Watcher = Callable[[Sequence[Tensor], Sequence[Tensor]], None]


def layered(call: naive.Call) -> bool:
    """Whether its blocks are written by `Written`: gradients at one state, rows that nothing but the state asks for."""
    write = call.write
    return (
        isinstance(write.form, Matrix | Mlp | Swiglu)
        and write.objective in ("l2", "lp", "huber", "dot")
        and not any(isinstance(x, Tensor) for x in call.params)
        and not (write.momentum or write.kept)
        and write.meta == "full"
        and call.seen is None
        and all(when == "chunk" for _, when in call.queries)
    )


@dataclass(frozen=True)
class Done:
    """A part after a block of its tokens.  first: before them."""

    first: State
    now: Tensor
    mark: Callable[[Tensor], Tensor]

    def read_held(self, x: Tensor) -> Tensor:
        """M x at the chunk's first state."""
        return row(x, self.mark(self.first.held))


def written(
    call: naive.Call,
    tokens: Tokens,
    at: Block,
    registers: Mapping[str, State],
    mark: Callable[[Tensor], Tensor],
    watcher: Watcher,
) -> dict[str, Done]:
    """Write one block, whose chunk's first state the registers hold.  watcher: told every layer's inputs and errors,
    (B, H, C, .)."""
    B, H = tokens.rate.shape[:2]

    def of_heads(x: Tensor) -> Tensor:
        """(B, H, ...) as (B H, ...)."""
        return x.expand(B, *x.shape[1:]).reshape(B * H, *x.shape[2:])

    def seen(taps: Sequence[Tap], errors: Sequence[Tensor]) -> None:
        watcher([x.unflatten(0, (B, H)) for x, *_ in taps], [e.unflatten(0, (B, H)) for e in errors])

    kept, first = call.keep is not None, next(iter(registers.values()))
    streams = [tokens.k, tokens.v, tokens.rate, *[tokens.keep] * kept]
    values = [of_heads(at.cut(x).squeeze(2)) for x in streams]
    states = [[s.now for s in registers.values()]]
    states += [[s.held for s in registers.values()]] * at.outside
    starts = [s.start for s in registers.values() if s.start is not None]
    states += [starts] * (first.start is not None)
    task = Task(
        call.write, call.params, kept, at.outside, first.start is not None and kept, seen if Watched.by else None, B,
        {name: s.sums for name, s in registers.items() if s.sums is not None},
    )  # fmt: skip
    if not task.to_start:
        states = states[: 1 + at.outside]
    after = Written.apply(task, *values, *(of_heads(x) for xs in states for x in xs))
    return {name: Done(s, x.unflatten(0, (B, H)), mark) for (name, s), x in zip(registers.items(), after, strict=True)}
