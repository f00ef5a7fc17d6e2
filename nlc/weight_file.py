"""What a file of weights holds, read from its head alone: names, shapes and kinds of numbers, without torch.

    found(Path("runs/first"))                  the file of a run, of a checkpoint, or the file itself
    tensors(file)                              {"blocks.0.q.linear": Tensor((128, 128), "F32"), ...}

Both raise Unreadable, with the reason.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path

WEIGHTS = "model.safetensors"  # of a checkpoint
LARGEST = 100_000_000  # bytes of a head


class Unreadable(Exception):
    """No file of weights, or none that is whole."""


def found(path: Path) -> Path:
    """A run's newest checkpoint that is whole as far as its sizes tell; a checkpoint's weights; or a file as it is."""
    if path.is_file():
        return path
    if not path.is_dir():
        raise Unreadable("is not there")
    if (path / WEIGHTS).is_file():
        return path / WEIGHTS
    checkpoints = [p for p in (path / "checkpoints").glob("step-*") if p.name.removeprefix("step-").isdecimal()]
    checkpoints.sort(key=lambda p: int(p.name.removeprefix("step-")))
    if not checkpoints:
        raise Unreadable("holds no checkpoint")
    whole = next((p for p in reversed(checkpoints) if _whole(p)), None)
    if whole is None:
        raise Unreadable("holds no whole checkpoint")
    return whole / WEIGHTS


def _whole(checkpoint: Path) -> bool:
    try:
        manifest = json.loads((checkpoint / "manifest.json").read_text(encoding="utf-8"))
        return bool((checkpoint / WEIGHTS).stat().st_size == manifest["files"][WEIGHTS]["bytes"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor's shape, and what its numbers are, as the format has it: F32, BF16, I64."""

    shape: tuple[int, ...]
    kind: str

    @property
    def whole(self) -> bool:
        """Whether its numbers are whole, or truth values: no weights."""
        return self.kind[:1] in ("I", "U") or self.kind == "BOOL"


def tensors(file: Path) -> dict[str, Tensor]:
    """Every tensor of a .safetensors file, by name."""
    try:
        with file.open("rb") as stream:
            head = stream.read(8)
            length = struct.unpack("<Q", head)[0] if len(head) == 8 else LARGEST
            if length >= LARGEST:
                raise Unreadable("is no .safetensors file")
            entries = json.loads(stream.read(length))
        entries.pop("__metadata__", None)
        ends = max((entry["data_offsets"][1] for entry in entries.values()), default=0)
        if file.stat().st_size != 8 + length + ends:
            raise Unreadable("is torn: it is shorter or longer than its head says")
        return {name: Tensor(tuple(entry["shape"]), str(entry["dtype"])) for name, entry in entries.items()}
    except OSError as error:
        raise Unreadable(f"cannot be read: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Unreadable("is no .safetensors file") from None
