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

from runtime.kernels.device import capability
from runtime.kernels.linear_memory.backward import pull_kernel, spread_kernel
from runtime.kernels.linear_memory.configurations import stages, warps
from runtime.kernels.linear_memory.form import READS, Form
from runtime.kernels.linear_memory.forward import chain_kernel, prepare_kernel
from runtime.kernels.linear_memory.read import read_gradient_kernel, read_kernel
from runtime.kernels.operator import Built, operator

TILE = 64  # rows of the state that a program holds


def constants(kernel: str, form: Form, K: int, V: int, low: bool) -> dict[str, Any]:
    """What a kernel is compiled for.  low: bfloat16 operands, and the triangular inverse in float16; else all products
    are of float32 to its last digits, as three of TF32."""
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
    inverse = {"HT": tl.float16 if low else tl.float32} if kernel == "prepare" else {}
    return {**sizes, **types, **write, **inverse, "SYSTEM": bool(form.erase or (form.l2 and not form.held))}


@cache
def built(kernel: str, form: Form, K: int, V: int, low: bool, sort: int, more: int = 0) -> Built:
    """sort: of the GPU.  more: of prepare whether it is for the backward pass; of pull, twice whether gradients of M
    come in, once whether those of U do; of a read, when (READS)."""
    fixed = constants(kernel, form, K, V, low)
    match kernel:
        case "prepare":
            fixed = {"BACK": bool(more)} | fixed
        case "pull":
            fixed = {"GIVEN_M": more > 1, "GIVEN_U": bool(more % 2)} | fixed
        case "read" | "read gradient":
            fixed = {"INSIDE": more > 0, "AFTER": READS[more] == "after"} | fixed
    return Built(fixed, warps(kernel, max(K, min(V, TILE)), form.chunk, sort), stages(kernel, low))


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
    G, N, C, sort = B * H, -(-T // f.chunk), f.chunk, capability(k.device)
    Ms = torch.empty(N + 1, B, H, V, K, dtype=torch.float32, device=k.device)
    Ms[0] = M
    seen, lost, kept = prepared(f, G, N, k)
    known, U = (torch.empty(G, N, C, V, dtype=k.dtype, device=k.device) for _ in range(2))
    built("prepare", f, K, V, low, sort).launch(
        prepare_kernel, (N, G, 1),
        k, v, rate, rate if keep is None else keep, seen, lost, kept, known, known, T, N, H,
    )  # fmt: skip
    built("chain", f, K, V, low, sort).launch(chain_kernel, (G, tiles(V), 1), seen, lost, kept, known, Ms, U, N, G)
    return Ms, U


def tiles(V: int) -> int:
    """Programs that share the rows of a state."""
    return -(-V // min(TILE, int(triton.next_power_of_2(V))))


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
    G, N, C, sort = B * H, Ms.shape[0] - 1, f.chunk, capability(k.device)
    full = {"dtype": torch.float32, "device": k.device}
    seen, lost, kept = prepared(f, G, N, k)
    inverse = torch.empty(G, N, C, C, dtype=k.dtype, device=k.device)
    after = torch.empty(G, N, V, K, dtype=k.dtype, device=k.device)
    dU = torch.empty_like(U)
    dM = torch.zeros(B, H, V, K, **full) if last is None else last.clone(memory_format=torch.contiguous_format)
    dk, dv, drate = torch.empty(B, T, H, K, **full), torch.empty(B, T, H, V, **full), torch.empty(B, T, H, **full)
    dkeep = torch.empty(B, T, H if f.keeps else 0, **full)
    decay = rate if keep is None else keep
    built("prepare", f, K, V, low, sort, 1).launch(
        prepare_kernel, (N, G, 1), k, v, rate, decay, seen, lost, kept, lost, inverse, T, N, H
    )
    dkept = torch.empty(tiles(V), G, N, **full)
    given = 2 * (given_M is not None) + (given_U is not None)
    built("pull", f, K, V, low, sort, given).launch(
        pull_kernel, (G, tiles(V), 1),
        seen, lost, kept, Ms, Ms if given_M is None else given_M, U if given_U is None else given_U,
        dM, after, dkept, dU, N, G,
    )  # fmt: skip
    built("spread", f, K, V, low, sort).launch(
        spread_kernel, (N, G, 1),
        k, v, rate, decay, Ms, U, inverse, after, dkept, dU, dk, dv, drate, dkeep, T, N, H, G,
    )  # fmt: skip
    return dk, dv, drate, dkeep, dM


@operator("nlc::linear_memory_read")
def read(
    q: Tensor, k: Tensor, keep: Tensor | None, Ms: Tensor, U: Tensor, form: list[int], when: int, low: bool
) -> Tensor:
    """What tokens read, (B, T, H, V) in float32: q (B, T, H, K) like k; Ms (N, B, H, V, K); `when`: of READS."""
    f = Form(*form)
    (B, T, H, K), V = q.shape, U.shape[3]
    y = torch.empty(B, T, H, V, dtype=torch.float32, device=q.device)
    built("read", f, K, V, low, capability(q.device), when).launch(
        read_kernel, (len(Ms), B * H, 1), q, k, y if keep is None else keep, Ms, U, y, T, len(Ms), H, B * H
    )
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
    built("read gradient", f, K, V, low, capability(q.device), when).launch(
        read_gradient_kernel, (len(Ms), B * H, 1),
        q, k, dq if keep is None else keep, Ms, U, dy, dq, dk, dkeep, dMs, dU, T, len(Ms), H, B * H,
    )  # fmt: skip
    return dq, dk, dkeep, dMs, dU
