"""`nlc replay`: a training step run once more, to see where a number stops being finite."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from nlc.cli.common import DeviceOption, JsonOption, Stop, calm_threads, say, say_json


class Dtype(StrEnum):
    float32 = "float32"
    bfloat16 = "bfloat16"
    float64 = "float64"


def register(app: typer.Typer) -> None:
    app.command()(replay)


def replay(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run, its diverged folder, or one of its checkpoints.")],
    step: Annotated[
        int | None, typer.Option("--step", min=0, help="The step after this checkpoint, not the one that was kept.")
    ] = None,
    dtype: Annotated[
        Dtype | None, typer.Option("--dtype", help="Compute in this; float64 tells whether precision is the cause.")
    ] = None,
    device: DeviceOption = "auto",
    json_: JsonOption = False,
) -> None:
    """Run a training step again: the one a run stopped at, or the one after a checkpoint.

    Says the loss, the gradient's norm at every level, and where a number first stops being finite: level, memory,
    layer and token.

    Example: nlc replay runs/first --dtype float64
    """
    calm_threads()
    from runtime.errors import RunError
    from runtime.replay import replay as again

    try:
        found = again(run, step=step, dtype=dtype and dtype.value, where=device)
    except RunError as error:
        raise Stop(error.status, str(error)) from None
    if json_:
        say_json(found.as_dict())
    else:
        say(str(found))
