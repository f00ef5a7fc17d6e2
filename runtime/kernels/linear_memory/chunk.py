"""What every kernel does with one chunk: its tiles, rates, retentions.  The letters are README.md's."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def load(x, stride, rows, columns, BR: tl.constexpr, BW: tl.constexpr, WHOLE: tl.constexpr):
    """A tile (BR, BW) whose rows are `stride` apart, padded with zeros; WHOLE: there is nothing to pad."""
    i = tl.arange(0, BR)[:, None]
    j = tl.arange(0, BW)[None, :]
    if WHOLE:
        return tl.load(x + i * stride + j)
    else:
        return tl.load(x + i * stride + j, mask=(i < rows) & (j < columns), other=0.0)


@triton.jit
def store(x, value, stride, rows, columns, BR: tl.constexpr, BW: tl.constexpr, WHOLE: tl.constexpr):
    i = tl.arange(0, BR)[:, None]
    j = tl.arange(0, BW)[None, :]
    if WHOLE:
        tl.store(x + i * stride + j, value)
    else:
        tl.store(x + i * stride + j, value, mask=(i < rows) & (j < columns))


@triton.jit
def load_tokens(x, stride, count, columns, C: tl.constexpr, BW: tl.constexpr, WHOLE: tl.constexpr):
    """The same of tokens, which may end at any; WHOLE: their columns do not."""
    i = tl.arange(0, C)[:, None]
    j = tl.arange(0, BW)[None, :]
    here = (i < count) if WHOLE else (i < count) & (j < columns)
    return tl.load(x + i * stride + j, mask=here, other=0.0)


@triton.jit
def store_tokens(x, value, stride, count, columns, C: tl.constexpr, BW: tl.constexpr, WHOLE: tl.constexpr):
    i = tl.arange(0, C)[:, None]
    j = tl.arange(0, BW)[None, :]
    here = (i < count) if WHOLE else (i < count) & (j < columns)
    tl.store(x + i * stride + j, value, mask=here)


@triton.jit
def numbers(x_TH, count, H, C: tl.constexpr):
    """One number a token; from `count` on 0, so that those tokens write and forget nothing."""
    s = tl.arange(0, C)
    return tl.load(x_TH + s * H, mask=s < count, other=0.0)


@triton.jit
def factors(l, ERASE: tl.constexpr, L2: tl.constexpr, KEPT: tl.constexpr, HELD: tl.constexpr):
    """What multiplies a key where the state before its token is read, and where the chunk's first state is."""
    before = tl.zeros_like(l)
    first = tl.zeros_like(l)
    if ERASE:
        before += 1.0
    if L2:
        at = tl.exp(l) if KEPT else tl.zeros_like(l) + 1.0
        if HELD:
            first += at
        else:
            before += at
    return before, first


@triton.jit
def decay_through(c, C: tl.constexpr):
    """exp(c_t - c_s) for s <= t, else 0."""
    i = tl.arange(0, C)[:, None]
    j = tl.arange(0, C)[None, :]
    return tl.exp(tl.where(i >= j, c[:, None] - c[None, :], float("-inf")))


@triton.jit
def of_log(dc, db, C: tl.constexpr):
    """Gradient of l from those of its running sum c and of b = c - l."""
    s = tl.arange(0, C)
    return tl.sum(tl.where(s[:, None] <= s[None, :], (dc + db)[None, :], 0.0), 1) - db
