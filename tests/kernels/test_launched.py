"""A kernel that was launched before is called directly, and only where it would be the same one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch._library.triton import set_wrap_triton_enabled

triton = pytest.importorskip("triton")

from runtime.kernels.gated_norm.kernels import forward_kernel  # noqa: E402
from runtime.kernels.operator import Built  # noqa: E402

GRID = (3, 1, 1)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What reaches Triton, ("found", ...), and what reaches a compiled kernel, ("compiled", ...)."""
    if not isinstance(forward_kernel, triton.runtime.JITFunction):
        pytest.skip("this process interprets kernels")
    seen: list[tuple[Any, ...]] = []

    class Compiled:
        def __getitem__(self, grid: tuple[int, ...]) -> Any:
            return lambda *args: seen.append(("compiled", grid, len(args)))

    def found(self: Any, grid: tuple[int, ...]) -> Any:
        def run(*args: Any, **options: Any) -> Compiled:
            seen.append(("found", grid, sorted(options)))
            return Compiled()

        return run

    monkeypatch.setattr(triton.runtime.JITFunction, "__getitem__", found)
    return seen


def launch(built: Built, x: torch.Tensor) -> None:
    with set_wrap_triton_enabled(False):
        built.launch(forward_kernel, GRID, x, x, x, x, 5)


def test_the_second_launch_is_direct_and_takes_the_constants_in_order(calls):
    built, x = Built({"ACT": 1, "BN": 4, "BK": 16, "K": 16}, 4), torch.zeros(64)
    launch(built, x)
    launch(built, x + 1)
    assert [call[0] for call in calls] == ["found", "compiled"]
    assert calls[0][2] == ["ACT", "BK", "BN", "K", "num_stages", "num_warps"]
    assert calls[1][1:] == (GRID, 5 + 4)
    ((_, constants),) = built.found.values()
    assert constants == [16, 16, 4, 1], "as the signature has them"


def test_another_type_or_alignment_is_left_to_triton(calls):
    built, x = Built({"K": 16, "BK": 16, "BN": 4, "ACT": 1}, 4), torch.zeros(65)
    for y in (x[:64], x[:64].double(), x[1:], x[1:]):
        launch(built, y)
    assert [call[0] for call in calls] == ["found"] * 4
    launch(built, x[:64])
    assert calls[-1][0] == "compiled"
