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
from torch.library import wrap_triton

from runtime.kernels.device import capability, multiprocessors
from runtime.kernels.operator import operator
from runtime.kernels.shared_product.backward import chain_kernel, prepare_kernel, spread_kernel
from runtime.kernels.shared_product.configurations import warps
from runtime.kernels.shared_product.form import Form
from runtime.kernels.shared_product.forward import forward_kernel
from runtime.kernels.shared_product.read import read_gradient_kernel, read_kernel

SHARE = 8  # chunks over which one program sums the gradient of the rows that are read


@cache
def constants(form: Form, R: int, K: int, low: bool) -> dict[str, Any]:
    """What a kernel is compiled for.  low: bfloat16 operands, and the triangular inverse in TF32; else all products are
    of float32 to its last digits, as three of TF32."""
    rows = {"R": R, "KEY": form.key, "VALUE": form.value, "RATE": form.rate, "KEEP": form.keep}
    flags = {"ERASE": form.erase, "L2": form.l2, "KEPT": form.kept, "TO_START": form.to_start}
    gates = {"UNIT_VALUE": form.unit_value, "RATE_KIND": form.rate_kind, "KEEP_KIND": form.keep_kind}
    types = {"DT": tl.bfloat16 if low else tl.float32, "IP": "tf32x3", "TP": "tf32" if low else "tf32x3"}
    return {"K": K, "BK": triton.next_power_of_2(K), "C": form.chunk, **rows, **flags, **gates, **types}


def only(values: dict[str, Any], *names: str) -> dict[str, Any]:
    """Without some of them."""
    return {name: x for name, x in values.items() if name not in names}


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
    if P is None:
        Ps[0].zero_().diagonal(dim1=-2, dim2=-1).fill_(1.0)
    else:
        Ps[0] = P
    wrap_triton(forward_kernel)[(H * B,)](
        x, W, x if rate is None else rate, x if keep is None else keep, Ps,
        T, N, H, B, B if W.shape[1] == 1 else 1, *scales,
        **constants(f, R, K, low), num_warps=warps("forward", K, f.chunk, capability(x.device), low), num_stages=1,
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
    fixed, per = constants(f, R, K, low), B if W.shape[1] == 1 else 1
    full = {"dtype": torch.float32, "device": x.device}
    half = {"dtype": torch.bfloat16 if low else torch.float32, "device": x.device}
    k, v, Y, L, M, dkey, dvalue, dY = (torch.empty(G, N, C, K, **half) for _ in range(8))
    gram = torch.empty(G, N, C, C, **half) if f.erase else k
    scalars = torch.empty(G, N, 4, C, **full)
    dP = torch.zeros(H, B, K, K, **full) if last is None else last.clone(memory_format=torch.contiguous_format)
    drate = torch.empty(B, T, H, **full)
    dkeep = torch.empty(B, T, H if f.keep_kind else 0, **full)
    dx = torch.empty(B, T, H, K, **full)
    splits = -(-N // SHARE)
    dW = torch.empty(splits, H, B, R, K, **full)
    sort, crowded = capability(x.device), multiprocessors(x.device) < G
    number = {name: warps(name, K, C, sort, low, crowded) for name in ("prepare", "chain", "spread")}
    wrap_triton(prepare_kernel)[(N, G)](
        x, W, x if rate is None else rate, x if keep is None else keep, Ps, k, v, Y, L, M, gram, scalars,
        T, N, H, B, per, *scales, **fixed, num_warps=number["prepare"], num_stages=1,
    )  # fmt: skip
    wrap_triton(chain_kernel)[(G,)](
        x, W, Ps, k, v, L, M, gram, scalars, Ps if given is None else given,
        dP, dkey, dvalue, dY, drate, dkeep, T, N, H, B, per, scales[0],
        GIVEN=given is not None, **only(fixed, "TP"), num_warps=number["chain"], num_stages=1,
    )  # fmt: skip
    wrap_triton(spread_kernel)[(splits, G)](
        Ps, Y, dkey, dvalue, dY, drate, dkeep, dx, dW, T, N, H, B, SHARE,
        **only(fixed, "TP", "ERASE", "L2", "KEPT", "TO_START", "UNIT_VALUE"),
        num_warps=number["spread"], num_stages=1,
    )  # fmt: skip
    return dP, dW.sum((0, 2) if W.shape[1] == 1 else 0).view_as(W), dx, drate, dkeep


@cache
def read_constants(R: int, K: int, chunk: int, low: bool) -> dict[str, Any]:
    types = {"DT": tl.bfloat16 if low else tl.float32, "IP": "tf32x3"}
    return {
        "R": R,
        "BR": max(16, triton.next_power_of_2(R)),
        "K": K,
        "BK": triton.next_power_of_2(K),
        "C": chunk,
        **types,
    }


@operator("nlc::shared_product_read")
def read(q: Tensor, P: Tensor, W: Tensor, chunk: int, low: bool) -> Tensor:
    """W P_c q: q (B, T, H, K), P (N, H, B, K, K), W (H, B or 1, R, K) to (B, T, H, R)."""
    B, T, H, K = q.shape
    R = W.shape[2]
    y = torch.empty(B, T, H, R, dtype=q.dtype, device=q.device)
    wrap_triton(read_kernel)[(len(P), H * B)](
        q, W, P, y, T, H, B, B if W.shape[1] == 1 else 1,
        **read_constants(R, K, chunk, low), num_warps=warps("read", K, chunk, capability(q.device), low), num_stages=1,
    )  # fmt: skip
    return y


@operator("nlc::shared_product_read_backward")
def read_backward(dy: Tensor, q: Tensor, P: Tensor, W: Tensor, chunk: int, low: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, P and W."""
    B, T, H, K = q.shape
    N, R = len(P), W.shape[2]
    dq, dP = torch.empty_like(q), torch.empty_like(P)
    dW = torch.empty(N, H, B, R, K, dtype=torch.float32, device=q.device)
    number = warps("read gradient", K, chunk, capability(q.device), low)
    wrap_triton(read_gradient_kernel)[(N, H * B)](
        q, W, P, dy, dq, dP, dW, T, H, B, B if W.shape[1] == 1 else 1,
        **read_constants(R, K, chunk, low), num_warps=number, num_stages=1,
    )  # fmt: skip
    return dq, dP, dW.sum((0, 2) if W.shape[1] == 1 else 0).view_as(W)
