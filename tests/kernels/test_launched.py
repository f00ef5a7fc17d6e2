"""A kernel that was launched before is called directly, and only where it would be the same one."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from torch._library.triton import set_wrap_triton_enabled

triton = pytest.importorskip("triton")

from runtime.kernels.gated_norm.kernels import forward_kernel  # noqa: E402
from runtime.kernels.operator import DIRECT, Built  # noqa: E402
from tests.kernels.ahead import FAMILIES, FLOATS  # noqa: E402

GRID = (3, 1, 1)
KERNELS = [(name, kernel) for name, family in FAMILIES.items() for kernel in family.kernels]

pytestmark = pytest.mark.skipif(
    not isinstance(forward_kernel, triton.runtime.JITFunction), reason="this process interprets kernels"
)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What reaches Triton, ("found", ...), and what reaches a compiled kernel, ("compiled", ...)."""
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


def test_every_launch_is_left_to_a_triton_whose_compiled_kernels_are_not_known(calls, monkeypatch):
    monkeypatch.setattr("runtime.kernels.operator.DIRECT", False)
    built, x = Built({"K": 16, "BK": 16, "BN": 4, "ACT": 1}, 4), torch.zeros(64)
    launch(built, x)
    launch(built, x)
    assert [call[0] for call in calls] == ["found"] * 2


@pytest.mark.skipif(not DIRECT, reason="kernels are never called directly")
@pytest.mark.parametrize(("family", "kernel"), KERNELS)
def test_triton_finds_the_same_kernel_whatever_the_sizes_and_calls_it_alike(family, kernel):
    """By Triton's own binder: what it looks at, and what it would hand to the compiled kernel."""
    said = FAMILIES[family]
    function, built = said.kernels[kernel], said.built(kernel, 64, 64, True, 90)
    names = [name for name in function.arg_names if name not in built.constants]
    x = torch.zeros(64, dtype=torch.float32)
    x = x[(-x.data_ptr() // 4) % 4 :]  # aligned
    sizes = [name for name, p in zip(function.arg_names, function.params, strict=True) if p.do_not_specialize]
    looked_at = set()
    for size, scale in ((1, 1.0), (2, 0.5), (16, 0.0), (4096, 3.0)):
        args = [size if name in sizes else scale if name in FLOATS else x for name in names]
        bound, specialization, options = binder(function)(*args, **built.constants, **built.options)
        looked_at.add(str(specialization))
        constants = [built.constants[name] for name in function.arg_names[len(args) :]]
        assert all(a is b or a == b for a, b in zip(bound.values(), [*args, *constants], strict=True))
        assert options == built.options
    assert len(looked_at) == 1


def binder(function: Any) -> Any:
    from triton.backends.compiler import GPUTarget
    from triton.compiler import make_backend
    from triton.runtime.jit import create_function_from_signature

    signature = inspect.signature(function.fn)
    return create_function_from_signature(signature, function.params, make_backend(GPUTarget("cuda", 90, 32)))
