"""Where a model computes: the word a user gives (auto, cpu, cuda, cuda:1) -> a device that is there.

What a clock counts stays with the processor, whatever the device: the shape of a computation follows from it, and a
step that asked the device for it would wait for everything before.
"""

from __future__ import annotations

import os
import re
import sys

import torch
from torch import Tensor

from runtime.batches import Batch
from runtime.errors import DATA_MISSING, USAGE, RunError
from runtime.state import State

WORDS = "auto, cpu, cuda or cuda:N"


def choose(word: str = "auto") -> torch.device:
    """The device of this process.  `auto` is a GPU where there is one; `cuda` is each process's own, by its local rank.

    Raises RunError: status 4 for a device that is not there, 2 for a word that names none.
    """
    rank, processes = int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", word):
        raise RunError(f"unknown device '{word}': {WORDS}", USAGE)
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if word == "cpu" or (word == "auto" and not there):
        return torch.device("cpu")
    _, colon, number = word.partition(":")
    if colon and processes > 1:
        raise RunError(f"device '{word}' is one and {processes} processes want one each: --device cuda", DATA_MISSING)
    index = int(number) if colon else rank
    if index >= there:
        built = "" if torch.version.cuda else f" (torch {torch.__version__} is built without CUDA)"
        said = f"this machine has {there or 'none'}" + (f", cuda:0 to cuda:{there - 1}" if there else built)
        raise RunError(f"no device 'cuda:{index}': {said}", DATA_MISSING)
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def chosen(word: str) -> torch.device:
    """`choose` for a program's command line: a device that is not there ends it, as a wrong option does."""
    try:
        return choose(word)
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.status)


def name_of(device: torch.device) -> str:
    """cpu, or cuda:0 with the name its maker gave it."""
    return f"{device} {torch.cuda.get_device_name(device)}" if device.type == "cuda" else str(device)


def moved(state: State, device: torch.device | str, dtype: torch.dtype | None = None) -> State:
    """A state on another device, numbers in `dtype`; what counts tokens stays where it is."""

    def there(part: str, x: Tensor) -> Tensor:
        return x if part == "origin" else x.to(device, dtype if x.is_floating_point() else None)

    return {
        place: register if place == "clock" else {part: there(part, x) for part, x in register.items()}
        for place, register in state.items()
    }


def sent(batch: Batch, device: torch.device) -> Batch:
    """A batch on the device; where documents begin is for the host."""
    tokens, targets, starts = batch
    return Batch(tokens.to(device, non_blocking=True), targets.to(device, non_blocking=True), starts)
