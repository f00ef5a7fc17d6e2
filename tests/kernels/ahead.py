"""Compile every kernel for GPUs that are not here, and print what each needs as JSON lines.

    python -m tests.kernels.ahead FAMILY [--capability 80 90] [--width 64] [--chunk 64] [--type bfloat16]

Run without TRITON_INTERPRET, in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product as product_of
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from runtime.kernels.convolution import launch as convolution
from runtime.kernels.gated_norm import launch as gated_norm
from runtime.kernels.linear_memory import launch as memory
from runtime.kernels.linear_memory.form import Form as MemoryForm
from runtime.kernels.operator import Built
from runtime.kernels.shared_product import launch as product
from runtime.kernels.shared_product.form import Form as ProductForm
from runtime.kernels.tiles import SIZES

FLOATS = {"rate_scale", "rate_shift", "keep_shift"}


@dataclass(frozen=True)
class Family:
    """kernels by name; built(kernel, width, chunk, low, capability); the arguments in the type of operands."""

    kernels: dict[str, Any]
    built: Callable[[str, int, int, bool, int], Built]
    half: set[str]


def of_product(kernel: str, K: int, C: int, low: bool, capability: int) -> Built:
    """HOPE's: a key, a value, one row of the rate, one of the retention."""
    if kernel.startswith("read"):
        return product.read_built(kernel, K, K, C, low, capability)
    form = ProductForm(C, 0, K, 2 * K, 2 * K + 1, 1, 1, 0, 1, 1, 1, 2)
    more = {"forward": 1, "chain": 2, "chain, crowded": 3}.get(kernel, 0)
    return product.built(kernel.removesuffix(", crowded"), form, 2 * K + 2, K, low, capability, more)


def of_memory(kernel: str, K: int, C: int, low: bool, capability: int) -> Built:
    """The gated delta rule's, read after the write; in the backward pass."""
    form, again = MemoryForm(C, 0, 1, 1, 0, 1), kernel.removesuffix(" again")
    more = {"prepare": int(kernel != again), "pull": 3}.get(again, 2)
    return memory.built(again, form, K, K, low, capability, more)


def of_convolution(kernel: str, K: int, C: int, low: bool, capability: int) -> Built:
    """Four taps, silu and l2norm of a head, with all gradients."""
    channels = convolution.CHANNELS if kernel == "token" else K
    return convolution.built(kernel, 16 * K, channels, 4, 1, 1, int(kernel != "forward"))


def of_gated_norm(kernel: str, K: int, C: int, low: bool, capability: int) -> Built:
    """Of sixteen heads, with silu."""
    return gated_norm.built(16 * K, 1)


FAMILIES = {
    "convolution": Family(
        {
            "forward": convolution.forward_kernel,
            "slope": convolution.slope_kernel,
            "token": convolution.token_kernel,
        },
        of_convolution,
        set(),
    ),
    "gated_norm": Family(
        {"forward": gated_norm.forward_kernel, "backward": gated_norm.backward_kernel}, of_gated_norm, set()
    ),
    "shared_product": Family(
        {
            "forward": product.forward_kernel,
            "prepare": product.prepare_kernel,
            "chain": product.chain_kernel,
            "chain, crowded": product.chain_kernel,
            "spread": product.spread_kernel,
            "read": product.read_kernel,
            "read gradient": product.read_gradient_kernel,
        },
        of_product,
        {"work_GN8CK", "gram_GNCC", "x_BTHK", "W_HBRK"},
    ),
    "linear_memory": Family(
        {
            "prepare": memory.prepare_kernel,
            "prepare again": memory.prepare_kernel,
            "chain": memory.chain_kernel,
            "read": memory.read_kernel,
            "read gradient": memory.read_gradient_kernel,
            "pull": memory.pull_kernel,
            "spread": memory.spread_kernel,
        },
        of_memory,
        {"k_BTHK", "v_BTHV", "q_BTHK", "seen_GNCK", "lost_GNCK", "known_GNCV", "inverse_GNCC", "U_GNCV"}
        | {"given_U_GNCV", "dU_GNCV", "after_GNVK"},
    ),
}


def compiled(
    family: Family, kernel: str, capability: int, K: int, C: int, low: bool, warps: int = 0, stages: int = 0
) -> dict[str, Any]:
    fn, names = family.kernels[kernel], family.kernels[kernel].arg_names
    built = family.built(kernel, K, C, low, capability)
    fixed = built.constants
    pointers = {n: "*bf16" if low and n in family.half else "*fp32" for n in names}
    kinds = pointers | dict.fromkeys(SIZES, "i32") | dict.fromkeys(FLOATS, "fp32") | dict.fromkeys(fixed, "constexpr")
    kinds = {n: kinds[n] for n in names}
    aligned = {(i,): [["tt.divisibility", 16]] for i, n in enumerate(names) if kinds[n].startswith("*")}
    source = ASTSource(
        fn=fn, signature=kinds, constexprs={(names.index(n),): x for n, x in fixed.items()}, attrs=aligned
    )
    chosen = built.options | ({"num_warps": warps} if warps else {}) | ({"num_stages": stages} if stages else {})
    out = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=chosen)
    ptx = out.asm["ptx"]
    return {
        "kernel": kernel,
        "capability": capability,
        "width": K,
        "chunk": C,
        "type": "bfloat16" if low else "float32",
        "warps": chosen["num_warps"],
        "stages": chosen["num_stages"],
        **assembled(ptx, capability),
        "shared bytes": out.metadata.shared,
        "tensor cores": "wgmma" if "wgmma.mma_async" in ptx else "mma" if "mma.sync" in ptx else "none",
    }


def assembled(ptx: str, capability: int) -> dict[str, int]:
    """Registers and spilled bytes, from the assembler that comes with Triton."""
    ptxas = Path(triton.__file__).parent / "backends/nvidia/bin/ptxas"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.ptx"
        path.write_text(ptx)
        arch = "sm_90a" if capability == 90 else f"sm_{capability}"
        command = [str(ptxas), "-v", f"-arch={arch}", str(path), "-o", str(path.with_suffix(".cubin"))]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    spilled = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", said)
    used = re.search(r"Used (\d+) registers", said)
    assert spilled and used, said
    return {"registers": int(used[1]), "spill bytes": int(spilled[1]) + int(spilled[2])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family", choices=FAMILIES)
    parser.add_argument("--capability", type=int, nargs="+", default=[80, 90])
    parser.add_argument("--width", type=int, nargs="+", default=[64])
    parser.add_argument("--chunk", type=int, nargs="+", default=[64])
    parser.add_argument("--type", nargs="+", choices=["bfloat16", "float32"], default=["bfloat16"])
    parser.add_argument("--kernel", nargs="+", help="some of them")
    parser.add_argument("--warps", type=int, nargs="+", default=[0], help="instead of the table's")
    parser.add_argument("--stages", type=int, nargs="+", default=[0], help="instead of the table's")
    parser.add_argument("--seconds", action="store_true", help="how long each took, which no two machines agree on")
    o = parser.parse_args()
    family = FAMILIES[o.family]
    cases = product_of(o.type, o.width, o.chunk, o.capability, o.kernel or family.kernels, o.warps, o.stages)
    for kind, K, C, capability, kernel, warps, stages in cases:
        began = time.perf_counter()
        row = compiled(family, kernel, capability, K, C, kind == "bfloat16", warps, stages)
        print(json.dumps(row | ({"seconds": round(time.perf_counter() - began, 1)} if o.seconds else {})), flush=True)


if __name__ == "__main__":
    main()
