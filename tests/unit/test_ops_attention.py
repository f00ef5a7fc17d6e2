"""Attention against a loop over tokens and pairs, streamed, windowed, and in a token's own error."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from runtime.ops.history import own_errors, past
from runtime.ops.softmax import attention

B, T, H, G, K, V = 2, 9, 4, 2, 3, 5


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def inputs(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(seed)
    return normal(B, T, H, K), normal(B, T, G, K), normal(B, T, G, V)


def empty() -> dict[str, Tensor]:
    return {"k": torch.zeros(B, 0, G, K, dtype=torch.float64), "v": torch.zeros(B, 0, G, V, dtype=torch.float64)}


def loop(q, k, v, window=0, segment=0, persistent=None):
    """softmax(q.k / sqrt(K)) v for every token alone; what is earlier is marked."""
    rows = []
    for t, h in itertools.product(range(T), range(H)):
        g = h // (H // G)
        sees = [s for s in range(t + 1) if not (window and s <= t - window)]
        sees = [s for s in sees if not (segment and s // segment != t // segment)]
        pairs = [(k[:, s, g], v[:, s, g]) if s == t else (past(k[:, s, g]), past(v[:, s, g])) for s in sees]
        if persistent is not None:
            pairs += [
                (a.expand(B, K), b.expand(B, V)) for a, b in zip(persistent[0][:, g], persistent[1][:, g], strict=True)
            ]
        scores = torch.stack([(q[:, t, h] * a).sum(-1) for a, _ in pairs], -1) / K**0.5
        rows.append((scores.softmax(-1).unsqueeze(-1) * torch.stack([b for _, b in pairs], 1)).sum(1))
    return torch.stack(rows, 1).unflatten(1, (T, H))


SETTINGS = [
    {},
    {"window": 3},
    {"segment": 4},
    {"window": 2, "segment": 4},
    {"persistent": 2},
    {"persistent": 1, "window": 3},
]


def prepared(settings: dict) -> dict:
    n = settings.get("persistent")
    return settings | ({"persistent": (normal(n, G, K), normal(n, G, V))} if n else {})


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_equals_the_loop(settings, own):
    q, k, v = inputs()
    settings = prepared(settings)
    leaves = [q, k, v, *settings.get("persistent", ())]
    got, want = attention(q, k, v, empty(), own=own, **settings)[0], loop(q, k, v, **settings)
    assert torch.allclose(got, want)
    a, b = (torch.autograd.grad((y**2).sum(), leaves) for y in (got, want))
    assert all(torch.allclose(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_streams_as_the_whole(settings, own):
    q, k, v = inputs(1)
    settings = prepared(settings)
    whole, last = attention(q, k, v, empty(), own=own, **settings)
    for cut in (1, 4, 8):
        cache, parts = empty(), []
        for part, position in ((slice(0, cut), 0), (slice(cut, T), cut)):
            y, cache = attention(q[:, part], k[:, part], v[:, part], cache, position=position, own=own, **settings)
            parts.append(y)
        assert torch.allclose(torch.cat(parts, 1), whole)
        assert all(torch.equal(cache[n], last[n]) for n in last)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_own_error_reaches_the_query_and_the_own_pair(settings):
    q, k, v = inputs(2)
    settings = prepared(settings)
    errors = []
    for y in (attention(q, k, v, empty(), **settings)[0], loop(q, k, v, **settings)):
        own = own_errors((y**2).sum(), [q, k, v], create_graph=True)
        outer = torch.autograd.grad(sum((e**2).sum() for e in own), [q, k, v])
        errors.append([*own, *outer])
    assert all(torch.allclose(a, b) for a, b in zip(*errors, strict=True))


def test_the_cache_keeps_what_can_still_be_seen():
    q, k, v = inputs(3)
    assert attention(q, k, v, empty())[1]["k"].shape[1] == T
    assert attention(q, k, v, empty(), window=4)[1]["k"].shape[1] == 3
    assert attention(q, k, v, empty(), segment=4)[1]["k"].shape[1] == 1
    assert attention(q, k, v, empty(), window=1)[1]["v"].shape[1] == 0


def test_heads_that_do_not_divide_are_refused():
    q, k, v = inputs(4)
    with pytest.raises(ValueError, match="do not divide 3 query heads"):
        attention(q[:, :, :3], k, v, empty())
