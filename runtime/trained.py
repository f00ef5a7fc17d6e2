"""What training left -> a model that can be used: a run, one of its checkpoints, or a package and a file of weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from runtime import checkpoint, data, program
from runtime.data.tokens import Bytes, Codec, Tokenizer
from runtime.directory import RunDirectory, no_run
from runtime.errors import USAGE, CheckpointError, DataError, RunError
from runtime.model import LanguageModel
from runtime.resume import put_weights
from runtime.settings import Settings
from runtime.whole import digest

WEIGHTS = "model.safetensors"  # of a checkpoint
Warn = Callable[[str], None]


def quietly(message: str) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Trained:
    """A model with its weights, and what its tokens are."""

    model: LanguageModel
    settings: Settings
    codec: Codec
    package: Path  # the folder of its program
    weights: Path  # the file of its weights
    facts: Mapping[str, Any]  # lock.json of its run; empty for a package

    @property
    def dtype(self) -> torch.dtype:
        return next(self.model.parameters()).dtype

    def identity(self) -> dict[str, Any]:
        """As JSON, what a state of this model depends on."""
        tokenizer = self.codec.digest if isinstance(self.codec, Tokenizer) else None
        return {
            "name": self.settings.name,
            "graph": self.settings.graph,
            "vocab": self.settings.vocab,
            "tokenizer": tokenizer,
            "weights": digest(self.weights),
            "dtype": str(self.dtype).removeprefix("torch."),
        }


def find(
    path: str | Path,
    *,
    weights: str | Path | None = None,
    tokenizer: str | Path | None = None,
    dtype: torch.dtype | None = None,
    warn: Warn = quietly,
) -> Trained:
    """The model of a run, of one of its checkpoints, or of a package.

    A run has its weights and tokenizer; a package needs `weights`, a .safetensors file or a checkpoint, and a
    `tokenizer` unless its tokens are bytes.  Raises RunError (DataError, CheckpointError).
    """
    path = Path(path)
    if path.is_dir() and not (path / "lock.json").exists() and (path / "model.py").is_file():
        return of_package(path, weights, tokenizer, dtype)
    if weights is not None or tokenizer is not None:
        option = "--weights" if weights is not None else "--tokenizer"
        raise RunError(f"{option} is for a package, and '{path}' is none: a run has its own", USAGE)
    return of_run(path, dtype, warn)


def of_run(path: str | Path, dtype: torch.dtype | None = None, warn: Warn = quietly) -> Trained:
    """The model of a run's newest whole checkpoint, or of the checkpoint given."""
    path = Path(path)
    if not path.is_dir():
        raise no_run(path)
    place = path.resolve() if path.name in ("", "..") else path  # a checkpoint may be the folder that one is in
    one = place.name.startswith("step-") and place.parent.name == "checkpoints"
    directory = RunDirectory(place.parent.parent if one else place)
    facts = directory.read_lock()
    place = place if one else checkpoint.newest(directory.checkpoints, warn)
    codec = data.recorded(facts.get("data", {}), directory.path) or Bytes()
    return made(directory.code, place / WEIGHTS, checkpoint.read(place).weights, codec, facts, dtype)


def of_package(
    package: Path, weights: str | Path | None, tokenizer: str | Path | None, dtype: torch.dtype | None
) -> Trained:
    if not (package / "train.py").is_file():
        raise RunError(f"'{package}' is a bare program: it reads streams of vectors, not tokens", USAGE)
    if weights is None:
        raise RunError(f"'{package}' is a package without weights: say --weights FILE.safetensors", USAGE)
    file = Path(weights) / WEIGHTS if Path(weights).is_dir() else Path(weights)
    try:
        found = load_file(file)
    except FileNotFoundError:
        raise DataError(f"'{file}' is not there") from None
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"'{file}' is no file of weights: {error}") from None
    codec = Bytes() if tokenizer is None else Tokenizer(tokenizer)
    return made(package, file, found, codec, {}, dtype)


def made(
    package: Path,
    file: Path,
    weights: Mapping[str, Tensor],
    codec: Codec,
    facts: Mapping[str, Any],
    dtype: torch.dtype | None,
) -> Trained:
    train = program.load(package)
    codec.check(train.settings.vocab)
    with torch.random.fork_rng(devices=[]):
        model = train.build(seed=0)
    put_weights(model, weights, file)
    return Trained(model if dtype is None else model.to(dtype), train.settings, codec, package, file, facts)
