"""The operators that launch the kernels: `nlc::linear_memory`, `nlc::linear_memory_read` and the backward of each.

They are opaque to autograd (function.py joins them) and transparent to `torch.compile`.

    B batch, T tokens, H heads, G = B H, K width of keys, V of values, N chunks, C tokens of a chunk
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import wrap_triton

from runtime.kernels.device import capability
from runtime.kernels.linear_memory.backward import pull_kernel, spread_kernel
from runtime.kernels.linear_memory.configurations import stages, warps
from runtime.kernels.linear_memory.form import READS, Form
from runtime.kernels.linear_memory.forward import chain_kernel, prepare_kernel
from runtime.kernels.linear_memory.read import read_gradient_kernel, read_kernel
from runtime.kernels.operator import operator

TILE = 64  # rows of the state that a program holds


def constants(kernel: str, form: Form, K: int, V: int, low: bool) -> dict[str, Any]:
    """What a kernel is compiled for.  low: bfloat16 operands, and the triangular inverse in TF32; else all products are
    of float32 to its last digits, as three of TF32."""
    BK, BV = triton.next_power_of_2(K), min(TILE, triton.next_power_of_2(V))
    sizes = {"K": K, "BK": BK, "V": V, "BV": BV, "C": form.chunk, "WHOLE": K == BK and V % BV == 0}
    types = {"DT": tl.bfloat16 if low else tl.float32, "IP": "tf32x3"}
    match kernel:
        case "chain":
            return {**sizes, **types, "BY_STATE": bool(form.erase or form.l2)}
        case "pull":
            return {**sizes, **types, "BY_STATE": bool(form.erase or form.l2), "KEEPS": form.keeps}
        case "read" | "read gradient":
            return {**sizes, **types, "KEEPS": form.keeps}
    write = {"ERASE": form.erase, "L2": form.l2, "KEPT": form.kept, "HELD": form.held, "KEEPS": form.keeps}
    inverse = {"TP": "tf32" if low else "tf32x3"} if kernel == "prepare" else {}
    return {**sizes, **types, **write, **inverse, "SYSTEM": bool(form.erase or (form.l2 and not form.held))}


@cache
def options(kernel: str, form: Form, K: int, V: int, low: bool, device: torch.device) -> dict[str, Any]:
    """A kernel's constants, warps and stages."""
    number = warps(kernel, max(K, min(V, TILE)), form.chunk, capability(device))
    return {**constants(kernel, form, K, V, low), "num_warps": number, "num_stages": stages(kernel, low)}


@operator("nlc::linear_memory")
def forward(
    k: Tensor, v: Tensor, rate: Tensor, keep: Tensor | None, M: Tensor, form: list[int], low: bool
) -> tuple[Tensor, Tensor]:
    """M before every chunk and after the last, (N + 1, B, H, V, K) in float32; rows that tokens wrote, (G, N, C, V).

    k (B, T, H, K) and v (B, T, H, V) in the type of operands; rate, keep (B, T, H) and M (B, H, V, K) in float32;
    form: a Form
    """
    f = Form(*form)
    (B, T, H, K), V = k.shape, v.shape[3]
    G, N, C = B * H, -(-T // f.chunk), f.chunk
    Ms = torch.empty(N + 1, B, H, V, K, dtype=torch.float32, device=k.device)
    Ms[0] = M
    seen, lost, kept = prepared(f, G, N, k)
    known, U = (torch.empty(G, N, C, V, dtype=k.dtype, device=k.device) for _ in range(2))
    wrap_triton(prepare_kernel)[(N, G)](
        k, v, rate, rate if keep is None else keep, seen, lost, kept, known, known, T, N, H,
        BACK=False, **options("prepare", f, K, V, low, k.device),
    )  # fmt: skip
    fixed = options("chain", f, K, V, low, k.device)
    wrap_triton(chain_kernel)[(G, -(-V // fixed["BV"]))](seen, lost, kept, known, Ms, U, N, G, **fixed)
    return Ms, U


def prepared(f: Form, G: int, N: int, k: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Room for what the chain along the chunks takes of each."""
    rows = (G, N, f.chunk, k.shape[3])
    lost = torch.empty(rows, dtype=k.dtype, device=k.device)
    seen = torch.empty_like(lost) if f.erase or f.l2 else lost
    return seen, lost, torch.empty(G, N, dtype=torch.float32, device=k.device)


@operator("nlc::linear_memory_backward")
def backward(
    k: Tensor,
    v: Tensor,
    rate: Tensor,
    keep: Tensor | None,
    Ms: Tensor,
    U: Tensor,
    given_M: Tensor | None,
    given_U: Tensor | None,
    last: Tensor | None,
    form: list[int],
    low: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of k, v, rate, keep (empty where there is none) and M, in float32.

    given_M, given_U, last: those of M before every chunk (N, B, H, V, K), of U, and of M after the last
    """
    f = Form(*form)
    (B, T, H, K), V = k.shape, v.shape[3]
    G, N, C = B * H, Ms.shape[0] - 1, f.chunk
    full = {"dtype": torch.float32, "device": k.device}
    seen, lost, kept = prepared(f, G, N, k)
    inverse = torch.empty(G, N, C, C, dtype=k.dtype, device=k.device)
    after = torch.empty(G, N, V, K, dtype=k.dtype, device=k.device)
    dU = torch.empty_like(U)
    dM = torch.zeros(B, H, V, K, **full) if last is None else last.clone(memory_format=torch.contiguous_format)
    dk, dv, drate = torch.empty(B, T, H, K, **full), torch.empty(B, T, H, V, **full), torch.empty(B, T, H, **full)
    dkeep = torch.empty(B, T, H if f.keeps else 0, **full)
    decay = rate if keep is None else keep
    wrap_triton(prepare_kernel)[(N, G)](
        k, v, rate, decay, seen, lost, kept, lost, inverse, T, N, H,
        BACK=True, **options("prepare", f, K, V, low, k.device),
    )  # fmt: skip
    fixed = options("pull", f, K, V, low, k.device)
    tiles = -(-V // fixed["BV"])
    dkept = torch.empty(tiles, G, N, **full)
    wrap_triton(pull_kernel)[(G, tiles)](
        seen, lost, kept, Ms, Ms if given_M is None else given_M, U if given_U is None else given_U,
        dM, after, dkept, dU, N, G,
        GIVEN_M=given_M is not None, GIVEN_U=given_U is not None, **fixed,
    )  # fmt: skip
    wrap_triton(spread_kernel)[(N, G)](
        k, v, rate, decay, Ms, U, inverse, after, dkept, dU, dk, dv, drate, dkeep, T, N, H, G,
        **options("spread", f, K, V, low, k.device),
    )  # fmt: skip
    return dk, dv, drate, dkeep, dM


def of_read(when: int) -> dict[str, bool]:
    return {"INSIDE": when > 0, "AFTER": READS[when] == "after"}


@operator("nlc::linear_memory_read")
def read(
    q: Tensor, k: Tensor, keep: Tensor | None, Ms: Tensor, U: Tensor, form: list[int], when: int, low: bool
) -> Tensor:
    """What tokens read, (B, T, H, V) in float32: q (B, T, H, K) like k; Ms (N, B, H, V, K); `when`: of READS."""
    f = Form(*form)
    (B, T, H, K), V = q.shape, U.shape[3]
    y = torch.empty(B, T, H, V, dtype=torch.float32, device=q.device)
    wrap_triton(read_kernel)[(len(Ms), B * H)](
        q, k, y if keep is None else keep, Ms, U, y, T, len(Ms), H, B * H,
        **of_read(when), **options("read", f, K, V, low, q.device),
    )  # fmt: skip
    return y


@operator("nlc::linear_memory_read_backward")
def read_backward(
    dy: Tensor, q: Tensor, k: Tensor, keep: Tensor | None, Ms: Tensor, U: Tensor, form: list[int], when: int, low: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k and keep in float32, of Ms and U; those of k, keep and U are empty where a read finds none."""
    f = Form(*form)
    (B, T, H, K), V = q.shape, U.shape[3]
    full = {"dtype": torch.float32, "device": q.device}
    inside = when > 0
    dq = torch.empty(B, T, H, K, **full)
    dk = torch.empty(B, T, H if inside else 0, K, **full)
    dkeep = torch.empty(B, T, H if inside and f.keeps else 0, **full)
    dMs, dU = torch.empty_like(Ms), torch.empty_like(U if inside else U[:0])
    wrap_triton(read_gradient_kernel)[(len(Ms), B * H)](
        q, k, dq if keep is None else keep, Ms, U, dy, dq, dk, dkeep, dMs, dU, T, len(Ms), H, B * H,
        **of_read(when), **options("read gradient", f, K, V, low, q.device),
    )  # fmt: skip
    return dq, dk, dkeep, dMs, dU
