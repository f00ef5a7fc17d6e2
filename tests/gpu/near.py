"""How near a kernel on the GPU comes to a loop in float64."""

from __future__ import annotations

from typing import Protocol


class Case(Protocol):
    def differences(self, device: str, low: bool) -> dict[str, float]: ...


def check(case: Case, low: bool, tolerance: float) -> None:
    differences = case.differences("cuda", low)
    worst = max(differences, key=lambda name: differences[name])
    assert differences[worst] < tolerance, f"{worst}: {differences[worst]:.1e}"
