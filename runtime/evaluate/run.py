"""A run directory (or one of its checkpoints) -> the validation loss of what it learned."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from runtime import checkpoint, data, program
from runtime.device import choose
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
    device: str = "auto",
    warn: Callable[[str], None] = lambda message: None,
) -> Result:
    """Evaluate a run's newest whole checkpoint, or the checkpoint given, on the data it was trained with or on `text`.

    tokens: about how many to read; 0 is the whole validation part.  Says so to `warn` where that data has changed.
    Raises RunError (DataError, CheckpointError).
    """
    path = Path(path)
    if not path.is_dir():
        raise RunError(f"no such run directory: '{path}'", USAGE)
    one = path.name.startswith("step-") and path.parent.name == "checkpoints"
    directory = RunDirectory(path.parent.parent if one else path)
    lock = directory.read_lock()
    place = path if one else checkpoint.newest(directory.checkpoints, warn)
    train = program.load(directory.code)
    model = train.build(seed=0).to(choose(device))
    model.load_state_dict(checkpoint.read(place).weights)
    learned = lock.get("data", {})
    found = data.again(learned, text, field=field, run=directory.path, note=warn)
    if text is None and found.digest != learned.get("sha256"):
        now, then = found.digest[:16], str(learned.get("sha256"))[:16]
        warn(f"{found.source} is another text than when the run began: digest {then} -> {now}")
    settings = train.settings
    data.check(found, settings.context, settings.vocab)
    with subnormals_flushed():
        return evaluate(
            model,
            found.validation,
            batch=settings.batch,
            context=settings.context,
            tokens=tokens,
            learn=learn,
            precision=settings.precision,
        )
