"""The processes that train one model together, each on its own sequences of every batch.

    torchrun --nproc-per-node 4 train.py

Weights are the same everywhere: every level adds up its gradients over the processes before it fires.  The states of
memories belong to sequences, so nothing about them is shared; each process has those of its own rows, and a checkpoint
holds all rows in the order of the batch, whoever wrote them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from runtime.errors import DATA_MISSING, Lost, RunError
from runtime.state import State, over


@dataclass(frozen=True, slots=True)
class Processes:
    """This process among `count`.  Alone, everything here leaves its arguments as they are."""

    rank: int = 0
    count: int = 1
    joined: bool = False  # a launcher started it

    @classmethod
    def join(cls, device: torch.device | str = "cpu") -> Processes:
        """The processes that a launcher (torchrun) started together, as the environment names them; else this one.

        What lies on a GPU goes by NCCL, the rest by gloo: what the processes ask one another makes no device wait.
        """
        if "WORLD_SIZE" not in os.environ:
            return cls()
        if not dist.is_initialized():
            dist.init_process_group("cpu:gloo,cuda:nccl" if torch.device(device).type == "cuda" else "gloo")
        return cls(dist.get_rank(), dist.get_world_size(), True)

    def leave(self, together: bool = True) -> None:
        """Before this process ends.  Where the others may not, NCCL is left alone: it would wait for them."""
        if self.joined and dist.is_initialized() and (together or "nccl" not in dist.get_backend_config()):
            dist.destroy_process_group()

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and speaks."""
        return self.rank == 0

    def agree(self, text: str) -> str:
        """The first process's text, in all of them."""
        if not self.joined:
            return text
        box = [text]
        together(lambda: dist.broadcast_object_list(box))
        return box[0]

    def led(self, act: Callable[[], str]) -> str:
        """What the first process's `act` gives, in all of them, which wait for it; where it fails there, all do."""
        if not self.joined:
            return act()
        box, error = ["", "", 0], None
        if self.first:
            try:
                box[0] = act()
            except RunError as found:
                error, box = found, ["", str(found), found.status]
            except OSError as found:
                error, box = found, ["", str(found), DATA_MISSING]
        together(lambda: dist.broadcast_object_list(box))
        if error is not None:
            raise error
        if box[2]:
            raise RunError(str(box[1]), int(box[2]))
        return str(box[0])

    def mean(self, tensors: Sequence[Tensor]) -> None:
        """Replace every tensor by its mean over the processes, those of one type in one place in one message."""
        if not self.joined:
            return
        for kind in dict.fromkeys((x.dtype, x.device) for x in tensors):
            some = [x for x in tensors if (x.dtype, x.device) == kind]
            message = torch.cat([x.reshape(-1) for x in some])
            together(lambda message=message: dist.all_reduce(message))
            for x, y in zip(some, message.split([x.numel() for x in some]), strict=True):
                x.copy_(y.view_as(x)).div_(self.count)

    def largest(self, number: int) -> int:
        """The largest of the processes' numbers."""
        if not self.joined:
            return number
        message = torch.tensor(number)
        together(lambda: dist.all_reduce(message, dist.ReduceOp.MAX))
        return int(message)

    def rows(self, state: State) -> State:
        """This process's rows of a state that holds those of all."""
        return over(lambda x: x.chunk(self.count)[self.rank].clone(), state) if self.joined else state

    def all_rows(self, state: State) -> State:
        """The state of all rows, in the order of the batch, from each process's own."""
        return over(self._all_rows, state) if self.joined else state

    def _all_rows(self, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(self.count)]
        together(lambda: dist.all_gather(parts, x.contiguous()))
        return torch.cat(parts)


def together(send: Callable[[], object]) -> None:
    """A message that all processes take part in.  Raises Lost when one of them is no longer there."""
    try:
        send()
    except RuntimeError as error:  # what torch makes of a closed connection or a time out
        reason = str(error).splitlines()[0].rpartition("] ")[2] if "] " in str(error) else str(error)
        raise Lost(f"another process of this run has ended ({reason.partition('. ')[0]})") from None
