"""Weights that begin as a checkpoint's (`start: from(checkpoint:path)`): the compiler put them beside train.py."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from runtime.errors import CheckpointError

STARTS = "start.safetensors"


def inherited(model: nn.Module, file: str | Path) -> nn.Module:
    """The model with the weights of `STARTS` beside `file`, those of other names as they are.

    Raises CheckpointError where they cannot be read, or do not fit.
    """
    path = Path(file).resolve().with_name(STARTS)
    try:
        unknown = model.load_state_dict(load_file(path), strict=False).unexpected_keys
    except FileNotFoundError:
        raise CheckpointError(f"'{path}' is not there: compile the program again") from None
    except (OSError, SafetensorError, RuntimeError) as error:
        raise CheckpointError(f"'{path}' does not fit this model: {error}") from None
    if unknown:
        raise CheckpointError(f"'{path}' does not fit this model, which has no weight {unknown[0]}")
    return model
