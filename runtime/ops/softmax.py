"""Softmax attention, the memory without parameters: its state is the pairs it has seen.

    y_t = sum_s softmax_s(q_t . k_s / sqrt(K)) v_s  over the tokens s <= t that t may see
Source: arXiv 2512.24695, eqs. 62-63 (the Nadaraya-Watson solution of the l2 objective; a window keeps the last pairs).

    B batch, T tokens, N pairs a token, H heads, G key heads (G divides H), K and V widths, P persistent pairs
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from runtime.ops.history import past
from runtime.precision import wide


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cache: Mapping[str, Tensor],
    *,
    window: int = 0,
    segment: int = 0,
    persistent: tuple[Tensor, Tensor] | None = None,
    position: int = 0,
    own: bool = True,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Causal attention over the sequence so far, the token itself included.

    q (B, T, H, K), k (B, T, G, K), v (B, T, G, V); query head h uses key head h // (H / G).
    k (B, T, N, G, K), v alike: N pairs a token, which are seen together.
    cache: {"k": (B, T0, [N,] G, K), "v": (B, T0, [N,] G, V)}, the tokens just before these.
    window: tokens seen, itself included; 0 is all
    segment: only the token's own aligned segment; `position` is the number of tokens of the sequence before these
    persistent: pairs (P, G, K), (P, G, V) that every token sees
    own: a token's own error (`own_errors`) passes to its query and its own pair alone; False promises that none is
        asked for, and is faster.

    Returns y (B, T, H, V) and the cache for the next call, without the pairs nobody can see any more.
    Raises ValueError where the key heads do not divide the query heads.
    """
    if q.dim() == 3:  # no heads
        headed = {name: x.unsqueeze(-2) for name, x in cache.items()}
        pairs = persistent and (persistent[0].unsqueeze(1), persistent[1].unsqueeze(1))
        options = {"window": window, "segment": segment, "persistent": pairs, "position": position, "own": own}
        y, after = attention(q.unsqueeze(2), k.unsqueeze(-2), v.unsqueeze(-2), headed, **options)
        return y.squeeze(2), {name: x.squeeze(-2) for name, x in after.items()}
    cache = cache or {"k": k[:, :0], "v": v[:, :0]}
    H, G = q.shape[2], k.shape[-2]
    if H % G:
        raise ValueError(f"{G} key heads do not divide {H} query heads")
    known = max(0, cache["k"].shape[1] - position)  # a cache joined with longer ones has zeros in front
    ks, vs = torch.cat((cache["k"][:, known:], k), 1), torch.cat((cache["v"][:, known:], v), 1)
    after = trim({"k": ks, "v": vs}, window, segment, position + q.shape[1])
    T, seen = q.shape[1], ks.shape[1]
    sees = visible(T, seen, window, segment, position, q.device)
    pairs = k.shape[2] if k.dim() == 5 else 1
    if pairs > 1:
        sees = sees.repeat_interleave(pairs, 1)
        k, v, ks, vs = (x.flatten(1, 2) for x in (k, v, ks, vs))

    heads = [x.transpose(1, 2).repeat_interleave(H // G, 1) for x in (k, v, ks, vs)]
    k, v, ks, vs = heads
    q = q.transpose(1, 2)
    pk, pv = (x.transpose(0, 1).repeat_interleave(H // G, 0) for x in persistent) if persistent else (None, None)
    if own:
        y = own_pairs(q, k, v, ks, vs, sees, pk, pv)
    else:
        plain_causal = seen == T and pairs == 1 and not window and not segment and pk is None
        if pk is not None and pv is not None:
            ks = torch.cat((pk.expand(len(q), -1, -1, -1), ks), 2)
            vs = torch.cat((pv.expand(len(q), -1, -1, -1), vs), 2)
            sees = F.pad(sees, (pk.shape[1], 0), value=True)
        y = F.scaled_dot_product_attention(q, ks, vs, attn_mask=None if plain_causal else sees, is_causal=plain_causal)
    return wide(y).transpose(1, 2), after


def visible(T: int, seen: int, window: int, segment: int, position: int, device: torch.device) -> Tensor:
    """(T, seen): whether token i of these sees pair j, of which the last T are these tokens' own."""
    at = torch.arange(position, position + T, device=device).unsqueeze(1)
    pair = torch.arange(position + T - seen, position + T, device=device).unsqueeze(0)
    sees = pair <= at
    if window:
        sees = sees & (pair > at - window)
    if segment:
        sees = sees & (pair // segment == at // segment)
    return sees


def trim(cache: dict[str, Tensor], window: int, segment: int, position: int) -> dict[str, Tensor]:
    """Drop the pairs that token `position` and later ones cannot see."""
    n = cache["k"].shape[1]
    if window:
        n = min(n, window - 1)
    if segment:
        n = min(n, position % segment)
    return {name: x[:, x.shape[1] - n :] for name, x in cache.items()}


def own_pairs(
    q: Tensor, k: Tensor, v: Tensor, ks: Tensor, vs: Tensor, sees: Tensor, pk: Tensor | None, pv: Tensor | None
) -> Tensor:
    """Attention whose earlier pairs are marked with `past`, the token's own apart.  All (B, H, tokens or pairs, .)."""
    T, seen = sees.shape
    n = k.shape[2] // T
    k, v = k.unflatten(2, (T, n)), v.unflatten(2, (T, n))
    scale = q.shape[-1] ** -0.5
    first = torch.arange(seen - T * n, seen, n, device=sees.device).unsqueeze(1)  # the first pair that is a token's own
    earlier = sees & (torch.arange(seen, device=sees.device) < first)
    scores = [wide(q @ past(ks).mT).masked_fill(~earlier, -torch.inf), (q.unsqueeze(3) * k).sum(-1)]
    if pk is not None:
        scores.append(wide(q @ pk.mT))
    weights = (torch.cat(scores, -1) * scale).softmax(-1)
    own = weights[..., seen : seen + n].unsqueeze(-1) * v
    y = wide(weights[..., :seen] @ past(vs)) + own.sum(3)
    return y if pv is None else y + wide(weights[..., seen + n :] @ pv)
