"""What autograd saves, replaced where its numbers can be found again.

    with Saving([(W, source)]):
        y = W @ a                       keeps a, and a note that source() is W

A source gives the tensor at the beginning of a storage; what is saved may be any view of it, also in another type.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

Source = Callable[[], Tensor]
Found = Sequence[tuple[Tensor, Source]]  # tensors, and how the numbers of each are found again


def place(x: Tensor) -> int:
    """Where its storage is: the same for every view of it."""
    return x.untyped_storage().data_ptr()


@dataclass(frozen=True, slots=True)
class Kept:
    """A tensor that is kept.  Raises RuntimeError if it was changed since."""

    x: Tensor
    version: int

    def tensor(self) -> Tensor:
        if self.x._version != self.version:
            raise RuntimeError(f"a tensor {tuple(self.x.shape)} needed for a gradient was changed in place")
        return self.x


@dataclass(frozen=True, slots=True)
class Note:
    """A tensor that is found again."""

    source: Source
    dtype: torch.dtype
    shape: torch.Size
    stride: tuple[int, ...]
    offset: int

    def tensor(self) -> Tensor:
        with torch.no_grad():
            x = self.source().to(self.dtype)
            if Saving.innermost is not None:
                Saving.innermost.follows(x, self.source)
            return x.as_strided(self.shape, self.stride, self.offset)


class Saving:
    """While it lasts, autograd keeps no tensor whose storage has a source.

    `follows` adds a source on the way; a tensor that was already saved stays saved.
    """

    innermost: ClassVar[Saving | None] = None

    def __init__(self, found: Found = ()) -> None:
        self.sources: dict[int, Source] = {}
        self.kept: set[int] = set()
        self.alive: list[Tensor] = []  # so that no other tensor takes its place
        self.hooks = saved_tensors_hooks(self.pack, _unpack)
        for x, source in found:
            self.follows(x, source)

    def __enter__(self) -> Saving:
        self.outer, Saving.innermost = Saving.innermost, self
        self.hooks.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.hooks.__exit__(*error)
        Saving.innermost = self.outer
        self.sources, self.kept, self.alive = {}, set(), []  # the graph holds on to this object

    def follows(self, x: Tensor, source: Source) -> None:
        """The numbers of `x` are found again by `source`."""
        if place(x) not in self.kept and place(x) not in self.sources:
            self.sources[place(x)] = source
            self.alive.append(x)

    def knows(self, x: Tensor) -> bool:
        return place(x) in self.sources

    def pack(self, x: Tensor) -> Kept | Note:
        source = self.sources.get(place(x))
        if source is None:
            self.kept.add(place(x))
            self.alive.append(x.detach())
            return Kept(x.detach(), x._version)
        return Note(source, x.dtype, x.shape, x.stride(), int(x.storage_offset()))


def _unpack(saved: Kept | Note) -> Tensor:
    return saved.tensor()
