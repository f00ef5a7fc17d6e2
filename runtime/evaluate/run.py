"""A run directory (or one of its checkpoints) -> the validation loss of what it learned."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from runtime import data
from runtime.evaluate.loss import Result, evaluate
from runtime.numerics import flush_subnormals
from runtime.trained import of_run


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
    flush_subnormals()
    trained = of_run(path, warn=warn)
    run = trained.package.parent
    found = data.again(trained.facts.get("data", {}), text, field=field, run=run, note=warn)
    settings = trained.settings
    data.check(found, settings.context, settings.vocab)
    return evaluate(
        trained.model, found.validation, batch=settings.batch, context=settings.context, tokens=tokens, learn=learn
    )
