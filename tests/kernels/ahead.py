"""Compile every kernel of the shared product for GPUs that are not here, and print what each needs as JSON lines.

    python -m tests.kernels.ahead [--capability 80 90] [--width 64] [--chunk 64] [--type bfloat16]

Run without TRITON_INTERPRET, in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from runtime.kernels.shared_product import backward, forward, read
from runtime.kernels.shared_product.configurations import warps
from runtime.kernels.shared_product.form import Form
from runtime.kernels.shared_product.launch import constants, read_constants

KERNELS = {
    "forward": forward.forward_kernel,
    "prepare": backward.prepare_kernel,
    "chain": backward.chain_kernel,
    "spread": backward.spread_kernel,
    "read": read.read_kernel,
    "read gradient": read.read_gradient_kernel,
}
HALF = {f"{name}_GNCK" for name in ("k", "v", "Y", "L", "M", "dkey", "dvalue", "dY")} | {
    "gram_GNCC",
    "x_BTHK",
    "W_HBRK",
}
COUNTS = {"T", "N", "H", "B", "per", "share"}
FLOATS = {"rate_scale", "rate_shift", "keep_shift"}


def form(chunk: int, K: int) -> Form:
    """HOPE's: a key, a value, one row of the rate, one of the retention."""
    return Form(chunk, 0, K, 2 * K, 2 * K + 1, 1, 1, 0, 1, 1, 1, 2)


def signature(names: list[str], fixed: dict[str, Any], low: bool) -> dict[str, str]:
    half = "*bf16" if low else "*fp32"
    kinds = {**dict.fromkeys(COUNTS, "i32"), **dict.fromkeys(FLOATS, "fp32"), **dict.fromkeys(HALF, half)}
    return {n: "constexpr" if n in fixed else kinds.get(n, "*fp32") for n in names}


def compiled(kernel: str, capability: int, K: int, C: int, low: bool, num_warps: int | None = None) -> dict[str, Any]:
    fn = KERNELS[kernel]
    names = list(fn.arg_names)
    reads = kernel.startswith("read")
    fixed = read_constants(K, K, C, low) if reads else {"GIVEN": True, **constants(form(C, K), 2 * K + 2, K, low)}
    fixed = {n: x for n, x in fixed.items() if n in names}
    kinds = signature(names, fixed, low)
    aligned = {(i,): [["tt.divisibility", 16]] for i, n in enumerate(names) if kinds[n].startswith("*")}
    source = ASTSource(
        fn=fn, signature=kinds, constexprs={(names.index(n),): x for n, x in fixed.items()}, attrs=aligned
    )
    number = num_warps or warps(kernel, K, C, capability)
    out = triton.compile(
        source, target=GPUTarget("cuda", capability, 32), options={"num_warps": number, "num_stages": 1}
    )
    ptx = out.asm["ptx"]
    return {
        "kernel": kernel,
        "capability": capability,
        "width": K,
        "chunk": C,
        "type": "bfloat16" if low else "float32",
        "warps": number,
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
    parser.add_argument("--capability", type=int, nargs="+", default=[80, 90])
    parser.add_argument("--width", type=int, nargs="+", default=[64])
    parser.add_argument("--chunk", type=int, nargs="+", default=[64])
    parser.add_argument("--type", nargs="+", choices=["bfloat16", "float32"], default=["bfloat16"])
    parser.add_argument("--kernel", nargs="+", choices=KERNELS, default=list(KERNELS))
    parser.add_argument("--warps", type=int, nargs="+", default=[0], help="instead of the table's")
    o = parser.parse_args()
    cases = [
        (kernel, capability, K, C, kind == "bfloat16", number)
        for kind in o.type
        for K in o.width
        for C in o.chunk
        for capability in o.capability
        for kernel in o.kernel
        for number in o.warps
    ]
    for case in cases:
        print(json.dumps(compiled(*case)), flush=True)


if __name__ == "__main__":
    main()
