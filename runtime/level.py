"""A level that counts steps: the weights it owns, what its rule remembers of them, and how often it has fired."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from runtime.errors import Diverged
from runtime.ops.inputs import summed
from runtime.ops.remembered import Remembered
from runtime.processes import Processes
from runtime.stacks import Rule, Weight, at_least_float32, matrix, no_gram, stacks

IGNORED = -100  # a target that teaches nothing
DECAY = "weight_decay"  # a rule's parameter of this name is 0 for the weights that do not decay


class Weights:
    """A model's parameters, handed out to levels: the first level that asks for one owns it."""

    def __init__(self, model: nn.Module, decay: Sequence[str] = ()) -> None:
        """`decay`: names of the weights that decay.  In a name `*` stands for any layer, or anything at all."""
        self.left = dict(model.named_parameters())
        self.decays = {name for pattern in decay for name in self._match(pattern)}

    def _match(self, pattern: str) -> list[str]:
        names = [name for name in self.left if fnmatchcase(name, pattern)]
        if not names:
            raise ValueError(f"no weight is called '{pattern}', or a level before this one owns it")
        return names

    def take(self, *patterns: str) -> list[Weight]:
        """The weights of these names that no level has taken yet, in the model's order."""
        taken = {name for pattern in patterns for name in self._match(pattern)}
        mine = [name for name in self.left if name in taken]
        return [Weight(name, self.left.pop(name), name in self.decays) for name in mine]

    def freeze(self, *patterns: str) -> None:
        """Weights that no level writes."""
        for weight in self.take(*patterns):
            weight.value.requires_grad_(False)


class Level:
    """Weights with one update frequency.  Between two updates their gradients add up in `.grad`."""

    def __init__(
        self,
        name: str,
        weights: Sequence[Weight],
        state: Sequence[str] = (),
        entrywise: bool = False,
        layers: Sequence[str] | None = None,
        remembered: Sequence[Remembered] = (),
    ) -> None:
        """`state`: what the rule keeps per weight, float32 at least: zero at first; `start` is the weight itself.

        `entrywise`: the rule treats every entry alike, whatever matrix it stands in.  `layers`: names of the weights
        whose layer's inputs the rule looks at, through `gram`; that of any other is 0.  None: it does not look.
        `remembered`: the rule's own memories."""
        self.name, self.weights, self.entrywise = name, list(weights), entrywise
        self.count = 0  # updates so far
        self.norm: Tensor | None = None  # of the last update's gradient, before clipping
        self.watched = False  # the next update is to be measured
        self.change: Tensor | None = None  # |W_after - W_before|, over all it owns, of the last one measured
        self.rate: float | None = None  # of the last update: the rule's lr, schedule included
        self.processes = Processes()  # that add up their gradients
        patterns = layers or ()
        self.layers = [w for w in self.weights if any(fnmatchcase(w.name, pattern) for pattern in patterns)]
        for weight in self.weights:
            if layers is not None:
                weight.gram = no_gram(weight)
            for memory in remembered:
                first = matrix(weight.value.detach()).to(at_least_float32(weight.value.dtype))
                weight.state |= {name: x.clone() for name, x in memory.begin(first).items()}
            for part in state:
                first = weight.value.detach().to(at_least_float32(weight.value.dtype), copy=True)
                weight.state[part] = first if part == "start" else torch.zeros_like(first)

    @torch.no_grad()
    def update(self, rule: Rule, *, lr: float, clip: float = 0.0, **params: Any) -> None:
        """W <- W + delta for every weight with a gradient, delta by `rule`; then the gradients are gone.

        A rule's gradient is the sum over the period and the mean over the processes, scaled so that the norm of all the
        level's gradients is at most `clip` (0 is any).  Without any gradient there is no update.  Raises Diverged,
        before any weight has changed, if that norm is not finite.
        """
        owned = self.gathered()
        if not owned:
            return
        share = (clip / (self.norm + 1e-6)).clamp(max=1.0) if clip and self.norm is not None else None
        self.rate, measured = lr, self.watched
        before = [weight.value.detach().clone() for weight in owned] if measured else []
        for stack in stacks(owned, self.entrywise):
            own = {**params, DECAY: 0.0} if DECAY in params and not stack.decays else params
            stack.update(rule, share, lr=lr, count=self.count, retain=1.0, **own)
        for weight in owned:
            weight.value.grad = None
            weight.gram = None if weight.gram is None else torch.zeros_like(weight.gram)
        if measured:
            moved = [weight.value.detach() - old for weight, old in zip(owned, before, strict=True)]
            self.change, self.watched = torch.nn.utils.get_total_norm(moved), False

    def gathered(self) -> list[Weight]:
        """Begin an update: the weights with a gradient, which is the same in all processes, and its norm."""
        owned = [weight for weight in self.weights if weight.value.grad is not None]
        grads = [weight.value.grad for weight in owned if weight.value.grad is not None]
        self.processes.mean([*grads, *self.grams()])
        if not owned:  # every step of the period was skipped
            return []
        self.norm = torch.nn.utils.get_total_norm(grads)
        if self.norm.device.type == "cpu" and not math.isfinite(self.norm):
            raise Diverged(f"level {self.name}: the gradient of {first_not_finite(owned)} is not finite")
        self.count += 1
        return owned

    @contextmanager
    def inputs(self, targets: Tensor) -> Iterator[None]:
        """While a step's loss is computed: sum x x^T over the inputs of the level's layers, weighed as the loss weighs.

        gram W = 1 / taught sum_t x_t x_t^T, taught the number of targets that are not ignored.
        """
        with summed([weight.value for weight in self.layers]) as sums:
            yield
        taught = (targets != IGNORED).sum().clamp(min=1)
        for weight in self.layers:
            weight.step = sums[id(weight.value)] / taught

    def grams(self) -> list[Tensor]:
        """What has been added up so far of the layers' inputs."""
        return [weight.gram for weight in self.layers if weight.gram is not None]

    def forget_inputs(self) -> None:
        """A step does not count."""
        for weight in self.layers:
            weight.step = None

    def seen(self) -> dict[str, float]:
        """Metrics of the last update: norm of its gradient, of the change it made where that was measured, its rate."""
        found = {f"grad/{self.name}/norm": self.norm, f"level/{self.name}/update": self.change}
        found |= {f"level/{self.name}/rate": self.rate}
        return {name: float(value) for name, value in found.items() if value is not None}

    def last(self) -> dict[str, Any]:
        """The same for a checkpoint: a row after it says what one without it would."""
        norms = {"norm": self.norm, "change": self.change}
        return {name: None if x is None else float(x) for name, x in norms.items()} | {
            "rate": self.rate,
            "watched": self.watched,
        }

    def gradients(self) -> list[Tensor]:
        """What has been added up so far, and what a step's layers were given."""
        steps = [weight.step for weight in self.layers if weight.step is not None]
        return [weight.value.grad for weight in self.weights if weight.value.grad is not None] + steps

    def put_aside(self) -> list[Tensor | None]:
        """The gradients added up so far, weight by weight; then they are gone from the weights."""
        grads = [weight.value.grad for weight in self.weights]
        for weight in self.weights:
            weight.value.grad = None
        return grads

    def put_back(self, grads: Sequence[Tensor | None]) -> None:
        """Add gradients that were put aside to those that are there; the step counts."""
        for weight in self.layers:
            if weight.step is not None and weight.gram is not None:
                weight.gram, weight.step = weight.gram.add_(weight.step), None
        for weight, grad in zip(self.weights, grads, strict=True):
            if grad is not None:
                weight.value.grad = grad if weight.value.grad is None else weight.value.grad.add_(grad)

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint keeps of the level: every rule state, and the gradients of a period not yet full.

        Those are made the same in all processes first, so that any number of them can go on from here.
        """
        self.processes.mean([*self.gradients(), *self.grams()])
        return self.own_tensors()

    def own_tensors(self) -> dict[str, Tensor]:
        """`tensors` of this process, the others not asked."""
        found = {}
        for weight in self.weights:
            found |= {f"{self.name}/{part}/{weight.name}": value for part, value in weight.state.items()}
            if weight.value.grad is not None:
                found[f"{self.name}/grad/{weight.name}"] = weight.value.grad
        found |= {f"{self.name}/gram/{w.name}": w.gram for w in self.layers if w.gram is not None}
        return found

    def restore(self, count: int, tensors: dict[str, Tensor], last: Mapping[str, Any] | None = None) -> None:
        """The inverse of `tensors`, which must hold every rule state of this level, and of `last`."""
        self.count, last = count, last or {}
        norms = (None if last.get(name) is None else torch.tensor(last[name]) for name in ("norm", "change"))
        self.norm, self.change = norms
        self.rate, self.watched = last.get("rate"), bool(last.get("watched"))
        for weight in self.weights:
            for part, value in weight.state.items():
                value.copy_(tensors[f"{self.name}/{part}/{weight.name}"])
            if (gram := tensors.get(f"{self.name}/gram/{weight.name}")) is not None and weight.gram is not None:
                weight.gram.copy_(gram)
            grad = tensors.get(f"{self.name}/grad/{weight.name}")
            weight.value.grad = None if grad is None else grad.to(weight.value.device, weight.value.dtype, copy=True)


def first_not_finite(weights: Sequence[Weight]) -> str:
    for weight in weights:
        if weight.value.grad is not None and not weight.value.grad.isfinite().all():
            return f"'{weight.name}'"
    return "all weights together"
