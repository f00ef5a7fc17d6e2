"""The loss and the gradient of a step are looked at before any weight takes them in: `--on-nan stop | skip | clip`.

    stop   the run ends: nothing has changed, and what the step was made of is kept for `nlc replay`
    skip   no level gets anything of the step; a level in the middle of its period keeps what it had
    clip   gradients that are not finite count as 0, entry by entry; the rest is clipped and used as always

Either way states of streams that the step left not finite are dropped: they go on from where they were before it, and
its loss counts in no mean.  In several processes a step is what it is in the worst of them.  The look is one sum of
squares and one wait for the device a step.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from runtime import checkpoint
from runtime.checkpoint import Checkpoint
from runtime.errors import Diverged
from runtime.level import Level, first_not_finite
from runtime.processes import Processes
from runtime.state import State

PATIENCE = 10  # such steps in a row end the run whatever it was told


class Guard:
    """Counts the steps that were not finite.

    bad: the last one was; lost: so were its streams' states; said: what of it
    """

    def __init__(self, policy: str, processes: Processes) -> None:
        self.policy, self.processes = policy, processes
        self.count = self.row = 0
        self.bad = self.lost = False
        self.said = ""

    def backward(self, loss: Tensor, levels: Sequence[Level], state: State | None = None) -> None:
        """`loss.backward()`, and what the policy asks for.  `state`: of streams, as the step left it.

        Raises Diverged under `stop`, and after ten such steps in a row.
        """
        before = [level.put_aside() for level in levels]
        loss.backward()
        states = floats(state or {})
        numbers = [loss.detach(), *states, *(grad for level in levels for grad in level.gradients())]
        self.bad, rank = self._agree(not all_finite(numbers))
        self.lost = self.bad and not all_finite(states)
        self.row = self.row + 1 if self.bad else 0
        if self.bad:
            here = rank == self.processes.rank
            self.said = said(loss, levels) if here else f"what process {rank} computed is not finite"
            self.count += 1
            self._mend(levels)
        for level, grads in zip(levels, before, strict=True):
            level.put_back(grads)
        if self.bad and (self.policy == "stop" or self.row == PATIENCE):
            raise Diverged(self.said + f", {PATIENCE} steps in a row" * (self.policy != "stop"), rank)

    def _mend(self, levels: Sequence[Level]) -> None:
        for level in levels:
            if self.policy == "clip":
                for grad in level.gradients():
                    grad.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
            else:
                level.put_aside()
                level.forget_inputs()

    def _agree(self, bad: bool) -> tuple[bool, int]:
        """Whether any process found something, and the first that did."""
        count, rank = self.processes.count, self.processes.rank
        found = self.processes.largest(count - rank if bad else 0)
        return found > 0, count - found


def said(loss: Tensor, levels: Sequence[Level]) -> str:
    """level train: the gradient of 'blocks.0.q.linear' is not finite"""
    for level in levels:
        if not all_finite(level.gradients()):
            return f"level {level.name}: the gradient of {first_not_finite(level.weights)} is not finite"
    return "a state is not finite" if bool(loss.isfinite()) else "the loss is not finite"


def all_finite(tensors: Sequence[Tensor]) -> bool:
    """Whether every number is; a sum of squares that overflows is looked at again, one tensor after the other."""
    return bool(torch.nn.utils.get_total_norm(tensors).isfinite()) or all(bool(x.isfinite().all()) for x in tensors)


def not_finite(found: Checkpoint) -> str:
    """The name of the first tensor of a checkpoint that is not finite, or ""."""
    groups = {"weight": found.weights, "optimiser state": found.optimiser, "state": checkpoint.flat(found.state)}
    for what, tensors in groups.items():
        numbers = {name: x for name, x in tensors.items() if x.is_floating_point()}
        if not all_finite(list(numbers.values())):
            return next(f"{what} '{name}'" for name, x in numbers.items() if not x.isfinite().all())
    return ""


def floats(state: State) -> list[Tensor]:
    return [x.detach() for register in state.values() for x in register.values() if x.is_floating_point()]
