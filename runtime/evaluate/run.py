"""A run directory (or one of its checkpoints) -> the validation loss of what it learned."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from runtime import checkpoint, data, program
from runtime.directory import RunDirectory
from runtime.errors import USAGE, RunError
from runtime.evaluate.loss import Result, evaluate
from runtime.numerics import subnormals_flushed


def evaluate_run(
    path: str | Path,
    *,
    text: str | Path | None = None,
    field: str | None = None,
    tokens: int = 0,
    learn: bool = True,
    warn: Callable[[str], None] = lambda message: None,
) -> Result:
    """Evaluate a run's newest whole checkpoint, or the checkpoint given, on the data it was trained with or on `text`.

    tokens: about how many to read; 0 is the whole validation part.  Raises RunError (DataError, CheckpointError).
    """
    path = Path(path)
    if not path.is_dir():
        raise RunError(f"no such run directory: '{path}'", USAGE)
    one = path.name.startswith("step-") and path.parent.name == "checkpoints"
    directory = RunDirectory(path.parent.parent if one else path)
    lock = directory.read_lock()
    place = path if one else checkpoint.newest(directory.checkpoints, warn)
    train = program.load(directory.code)
    model = train.build(seed=0)
    model.load_state_dict(checkpoint.read(place).weights)
    found = data.again(lock.get("data", {}), text, field=field, run=directory.path, note=warn)
    settings = train.settings
    data.check(found, settings.context, settings.vocab)
    with subnormals_flushed():
        return evaluate(
            model, found.validation, batch=settings.batch, context=settings.context, tokens=tokens, learn=learn
        )
