"""A run directory (or one of its checkpoints) -> the validation loss of what it learned."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from runtime import data
from runtime.device import choose
from runtime.evaluate.loss import Result, evaluate
from runtime.numerics import subnormals_flushed
from runtime.trained import of_run


def evaluate_run(
    path: str | Path,
    *,
    text: str | Path | None = None,
    field: str | None = None,
    tokens: int = 0,
    learn: bool = True,
    device: str = "auto",
    warn: Callable[[str], None] = lambda message: None,
) -> Result:
    """Evaluate a run's newest whole checkpoint, or the checkpoint given, on the data it was trained with or on `text`.

    tokens: about how many to read; 0 is the whole validation part.  Says so to `warn` where that data has changed.
    Raises RunError (DataError, CheckpointError).
    """
    trained = of_run(path, warn=warn)
    learned, settings = trained.facts.get("data", {}), trained.settings
    found = data.again(learned, text, field=field, run=trained.package.parent, note=warn)
    if text is None and found.digest != learned.get("sha256"):
        now, then = found.digest[:16], str(learned.get("sha256"))[:16]
        warn(f"{found.source} is another text than when the run began: digest {then} -> {now}")
    data.check(found, settings.context, settings.vocab)
    with subnormals_flushed():
        return evaluate(
            trained.model.to(choose(device)),
            found.validation,
            batch=settings.batch,
            context=settings.context,
            tokens=tokens,
            learn=learn,
            precision=settings.precision,
        )
