"""Going on with a run: what must be the same, and everything a checkpoint gives back.

Interrupted and resumed equals uninterrupted, to the bit where the threads are as many: weights, what the update rules
remember, gradients of a period not yet full, states of streams, counters, random numbers and rows of metrics.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from runtime import checkpoint, device
from runtime.checkpoint import Checkpoint
from runtime.data import Data
from runtime.directory import PACKAGE, RunDirectory
from runtime.errors import USAGE, CheckpointError, RunError
from runtime.level import Level
from runtime.settings import Settings

if TYPE_CHECKING:
    from runtime.exercise import Exercise

MATTER = (  # of lock.json: they change the result
    *("graph", "seed", "steps", "batch", "context", "code"),
    *("data.sha256", "data.pack", "data.tokenizer.sha256"),
)


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that the run was begun with and that is another thing now."""

    what: str
    before: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.what}: {shown(self.before)} -> {shown(self.now)}"


def facts(
    settings: Settings, directory: RunDirectory, package: Path, where: torch.device, text: Data | Exercise
) -> dict[str, Any]:
    """What lock.json says of a run, besides the machine."""
    s = settings
    return {
        "name": s.name,
        "spec": {"file": s.spec, "sha256": digest(directory.spec)},
        "graph": s.graph,
        "seed": s.seed,
        "steps": s.steps,
        "batch": s.batch,
        "context": s.context,
        "device": device.name_of(where),
        "data": text.facts(),
        "code": {name: digest(package / name) for name in PACKAGE if (package / name).exists()},
    }


def digest(path: Path) -> str | None:
    """SHA-256 of a file, None where there is none."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None


def differences(before: Mapping[str, Any], now: Mapping[str, Any], what: Sequence[str] = MATTER) -> list[Difference]:
    """Where two locks differ in what changes a result."""
    old, new = dict(leaves(before)), dict(leaves(now))
    names = [n for n in dict.fromkeys([*old, *new]) if any(n == w or n.startswith(f"{w}.") for w in what)]
    return [Difference(n, old.get(n), new.get(n)) for n in names if old.get(n) != new.get(n)]


def leaves(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """data.sha256: "6bc5f7..." for every value that is not itself a mapping."""
    for name, value in tree.items():
        path = f"{above}{name}"
        if isinstance(value, Mapping):
            yield from leaves(value, f"{path}.")
        else:
            yield path, value


def shown(value: Any) -> str:
    """A hash by its beginning; nothing as nothing."""
    if value is None:
        return "nothing"
    return value[:16] if isinstance(value, str) and len(value) == 64 else str(value)


def refuse(path: Path, found: Sequence[Difference]) -> None:
    """Raises RunError that names every difference."""
    if found:
        lines = "\n".join(f"  {difference}" for difference in found)
        raise RunError(
            f"'{path}' was begun with something else:\n{lines}\nnothing was changed; --allow goes on all the same",
            USAGE,
        )


def newest(directory: RunDirectory, warn: Callable[[str], None]) -> Path | None:
    """The newest whole checkpoint of a run that this process has claimed; None where none was written yet.

    What a kill left half written is put right or removed.  Raises CheckpointError where none is whole, or all are gone.
    """
    directory.sweep()
    if checkpoint.steps(directory.checkpoints):
        return checkpoint.newest(directory.checkpoints, warn)
    saved = directory.read_lock().get("saved")
    if saved is None and not (directory.checkpoints / checkpoint.LATEST).exists():
        return None
    when = "" if saved is None else f", the first of them after step {saved}"
    lost = f"checkpoints were written to '{directory.checkpoints}'{when}, and none is there"
    raise CheckpointError(f"{lost}; nothing was changed: put them back, or begin another run")


def restore(found: Checkpoint, place: Path, model: nn.Module, levels: Sequence[Level]) -> None:
    """Weights, levels and counters of a model as they were.  Raises CheckpointError where they do not fit."""
    put_weights(model, found.weights, place)
    for level in levels:
        try:
            last = found.scalars.get("levels", {}).get(level.name)
            level.restore(found.scalars["updates"][level.name], found.optimiser, last)
        except KeyError as error:
            message = f"'{place}' holds nothing of {error.args[0]!r}, which level '{level.name}' needs"
            raise CheckpointError(message, USAGE) from None
    counts: dict[str, int] = getattr(model, "fires", {})
    counts.update({name: n for name, n in found.scalars["fires"].items() if name in counts})
    checkpoint.restore_random_states(found.scalars, next(model.parameters()).device)


def put_weights(model: nn.Module, weights: Mapping[str, Tensor], place: Path) -> None:
    """The weights that `place` holds into the model.  Raises CheckpointError that names those that do not fit."""
    mine = {name: tuple(x.shape) for name, x in model.state_dict().items()}
    theirs = {name: tuple(x.shape) for name, x in weights.items()}
    if mine != theirs:
        wrong = [Difference(n, theirs.get(n), mine.get(n)) for n in dict.fromkeys([*mine, *theirs])
                 if theirs.get(n) != mine.get(n)]  # fmt: skip
        more = f"\n  and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        lines = "\n".join(f"  weight {difference}" for difference in wrong[:5])
        raise CheckpointError(f"'{place}' does not fit this model:\n{lines}{more}", USAGE)
    model.load_state_dict(weights)


def finite(values: Sequence[float]) -> list[float]:
    """Losses of the steps since the last row of metrics, as JSON can hold them."""
    return [value for value in values if math.isfinite(value)]
