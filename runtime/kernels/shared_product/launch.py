"""The operators that launch the kernels: `nlc::shared_product`, `nlc::shared_product_read` and the backward of each.

They are opaque to autograd (product.py joins them) and transparent to `torch.compile`.

    B batch, T tokens, H heads, G = H B, K width, R rows that are read, N chunks, C tokens of a chunk
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from runtime.kernels.device import capability, multiprocessors
from runtime.kernels.operator import Built, operator
from runtime.kernels.shared_product.backward import chain_kernel, prepare_kernel, spread_kernel
from runtime.kernels.shared_product.configurations import ahead, share, warps
from runtime.kernels.shared_product.form import Form
from runtime.kernels.shared_product.forward import forward_kernel
from runtime.kernels.shared_product.read import read_gradient_kernel, read_kernel


def constants(form: Form, R: int, K: int, low: bool) -> dict[str, Any]:
    """What a kernel is compiled for.  low: bfloat16 operands, and the triangular system in float16 and TF32; else all
    products are of float32 to its last digits, as three of TF32."""
    rows = {"R": R, "KEY": form.key, "VALUE": form.value, "RATE": form.rate, "KEEP": form.keep}
    flags = {"ERASE": form.erase, "L2": form.l2, "KEPT": form.kept, "TO_START": form.to_start}
    gates = {"UNIT_VALUE": form.unit_value, "RATE_KIND": form.rate_kind, "KEEP_KIND": form.keep_kind}
    types = {"DT": tl.bfloat16 if low else tl.float32, "IP": "tf32x3"}
    types |= {"HT": tl.float16 if low else tl.float32, "TP": "tf32" if low else "tf32x3"}
    return {"K": K, "BK": triton.next_power_of_2(K), "C": form.chunk, **rows, **flags, **gates, **types}


def only(values: dict[str, Any], *names: str) -> dict[str, Any]:
    """Without some of them."""
    return {name: x for name, x in values.items() if name not in names}


@cache
def built(kernel: str, form: Form, R: int, K: int, low: bool, sort: int, more: int = 0) -> Built:
    """sort: of the GPU.  more: of forward, whether the first P is the identity; of a chain, twice whether a gradient of
    every P comes in, once whether it is crowded."""
    fixed = constants(form, R, K, low)
    match kernel:
        case "forward":
            fixed |= {"FRESH": more, "AHEAD": ahead(kernel, sort)}
        case "chain":
            crowded = more % 2 > 0
            fixed = {"GIVEN": more > 1, "AHEAD": ahead(kernel, sort, crowded)} | only(fixed, "HT", "TP")
            return Built(fixed, warps(kernel, K, form.chunk, sort, low, crowded))
        case "spread":
            fixed = only(fixed, "HT", "TP", "ERASE", "L2", "KEPT", "TO_START", "UNIT_VALUE")
    return Built(fixed, warps(kernel, K, form.chunk, sort, low))


@operator("nlc::shared_product")
def forward(
    x: Tensor,
    W: Tensor,
    P: Tensor | None,
    rate: Tensor | None,
    keep: Tensor | None,
    form: list[int],
    scales: list[float],
    low: bool,
) -> Tensor:
    """P before every chunk and after the last, (N + 1, H, B, K, K) in float32.

    x (B, T, H, K) and W (H, B or 1, R, K) in the type of operands; P (H, B, K, K), None: the identity
    rate, keep (B, T, H) where given; form: a Form; scales: rate_scale, rate_shift, keep_shift
    """
    f = Form(*form)
    B, T, H, K = x.shape
    N, R = -(-T // f.chunk), W.shape[2]
    Ps = torch.empty(N + 1, H, B, K, K, dtype=torch.float32, device=x.device)
    if P is not None:
        Ps[0] = P
    built("forward", f, R, K, low, capability(x.device), int(P is None)).launch(
        forward_kernel, (H * B, 1, 1),
        x, W, x if rate is None else rate, x if keep is None else keep, Ps,
        T, N, H, B, B if W.shape[1] == 1 else 1, *scales,
    )  # fmt: skip
    return Ps


@operator("nlc::shared_product_backward")
def backward(
    x: Tensor,
    W: Tensor,
    rate: Tensor | None,
    keep: Tensor | None,
    Ps: Tensor,
    given: Tensor | None,
    last: Tensor | None,
    form: list[int],
    scales: list[float],
    low: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of P (H, B, K, K), W, x (B, T, H, K), rate and keep (B, T, H); empty where there is no retention.

    given, last: those of the P before every chunk (N, H, B, K, K) and after the last
    """
    f = Form(*form)
    B, T, H, K = x.shape
    G, N, C, R = H * B, Ps.shape[0] - 1, f.chunk, W.shape[2]
    sort, processors, per = capability(x.device), multiprocessors(x.device), B if W.shape[1] == 1 else 1
    full = {"dtype": torch.float32, "device": x.device}
    half = {"dtype": torch.bfloat16 if low else torch.float32, "device": x.device}
    work = torch.empty(G, N, 8, C, K, **half)
    gram = torch.empty(G, N, C, C, **half) if f.erase else work
    numbers = torch.empty(G, N, 8, C, **full)
    dP = torch.zeros(H, B, K, K, **full) if last is None else last.clone(memory_format=torch.contiguous_format)
    drate = torch.empty(B, T, H, **full)
    dkeep = torch.empty(B, T, H if f.keep_kind else 0, **full)
    dx = torch.empty(B, T, H, K, **full)
    built("prepare", f, R, K, low, sort).launch(
        prepare_kernel, (N, G, 1),
        x, W, x if rate is None else rate, x if keep is None else keep, Ps, work, gram, numbers,
        T, N, H, B, per, *scales,
    )  # fmt: skip
    more = 2 * (given is not None) + (processors < G)
    built("chain", f, R, K, low, sort, more).launch(
        chain_kernel, (G, 1, 1),
        x, W, Ps, work, gram, numbers, Ps if given is None else given, dP, drate, dkeep, T, N, H, B, per, scales[0],
    )  # fmt: skip
    of_each = share(N * G, processors)
    dW = torch.empty(-(-N // of_each), H, B, R, K, **full)
    built("spread", f, R, K, low, sort).launch(
        spread_kernel, (len(dW), G, 1), Ps, work, drate, dkeep, dx, dW, T, N, H, B, of_each
    )
    return dP, summed(dW, W), dx, drate, dkeep


def summed(dW: Tensor, W: Tensor) -> Tensor:
    """The gradient of rows, of those (parts, H, B, R, K) of each part and sequence."""
    if W.shape[1] == 1:
        return dW.sum((0, 2), keepdim=True)[0]
    return dW.sum(0) if len(dW) > 1 else dW[0]


@cache
def read_constants(R: int, K: int, chunk: int, low: bool) -> dict[str, Any]:
    types = {"DT": tl.bfloat16 if low else tl.float32, "IP": "tf32x3"}
    sizes = {"R": R, "BR": max(16, triton.next_power_of_2(R)), "K": K, "BK": triton.next_power_of_2(K), "C": chunk}
    return {**sizes, **types}


@cache
def read_built(kernel: str, R: int, K: int, chunk: int, low: bool, sort: int) -> Built:
    return Built(read_constants(R, K, chunk, low), warps(kernel, K, chunk, sort, low))


@operator("nlc::shared_product_read")
def read(q: Tensor, P: Tensor, W: Tensor, chunk: int, low: bool) -> Tensor:
    """W P_c q: q (B, T, H, K), P (N, H, B, K, K), W (H, B or 1, R, K) to (B, T, H, R)."""
    B, T, H, K = q.shape
    R = W.shape[2]
    y = torch.empty(B, T, H, R, dtype=q.dtype, device=q.device)
    read_built("read", R, K, chunk, low, capability(q.device)).launch(
        read_kernel, (len(P), H * B, 1), q, W, P, y, T, H, B, B if W.shape[1] == 1 else 1
    )
    return y


@operator("nlc::shared_product_read_backward")
def read_backward(dy: Tensor, q: Tensor, P: Tensor, W: Tensor, chunk: int, low: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, P and W."""
    B, T, H, K = q.shape
    N, R = len(P), W.shape[2]
    dq, dP = torch.empty_like(q), torch.empty_like(P)
    of_each = share(N * H * B, multiprocessors(q.device))
    dW = torch.empty(-(-N // of_each), H, B, R, K, dtype=torch.float32, device=q.device)
    read_built("read gradient", R, K, chunk, low, capability(q.device)).launch(
        read_gradient_kernel, (len(dW), H * B, 1),
        q, W, P, dy, dq, dP, dW, T, N, H, B, B if W.shape[1] == 1 else 1, of_each,
    )  # fmt: skip
    return dq, dP, summed(dW, W)
