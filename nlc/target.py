"""What a program is compiled for."""

from __future__ import annotations

from enum import StrEnum


class Target(StrEnum):
    """cpu: PyTorch alone.  cuda: kernels where pass place proves that one fits; it runs on a cpu too, without them."""

    CPU = "cpu"
    CUDA = "cuda"

    @classmethod
    def of(cls, device: str) -> Target:
        """That of a program for a device: cuda:1 is of cuda."""
        return cls(device.partition(":")[0])
