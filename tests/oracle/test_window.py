"""Gradients over a window, Omega (arXiv 2505.23735, section 3.2; reference, section 2): G_t is the sum over the last c
pairs s of w_s grad L(M_t'; k_s, v_s), and M_t = a_t M_{t-1} [- eta_t M_{t-1} sum w_s k_s k_s^T] - eta_t G_t."""

import numpy as np
import pytest

from tests.oracle.test_mlp import BATCH, HEADS, TOKENS, flows, gelu, gelu_slope, only_real, outer

SPEC = """
nlc: 1
name: cell
sizes: {{heads: 2, head: 3}}
inputs: {{k: [heads, head], v: [heads, head], q: [heads, head], e: [heads], a: [heads], w: [heads]}}
levels:
  - {{name: m, every: 1 token, {level}, rate: 0.3 * e, retain: a,
     memories: {{memory: {{form: '{form}', keys: k, values: v}}}}}}
block: |
  y = memory(q)
outputs: [y]
"""
PLACE = "blocks.0.m.memory.start"


def given():
    x = flows(3)
    return x | {"w": np.random.default_rng(4).uniform(0.2, 1.0, (BATCH, TOKENS, HEADS))}


def walk(x, start, gradient, apply, c, chunk, read, rule="gd", beta=0.0):
    """Every sequence and head by itself; `gradient(W, k, v)` gives {part: (grad, gram)}."""
    y = np.zeros(x["v"].shape, complex)
    for b, h in np.ndindex(BATCH, HEADS):
        now = held = start(h)
        m = dict.fromkeys(now, 0)
        for t in range(TOKENS):
            held = now if t % chunk == 0 else held
            e, a = 0.3 * x["e"][b, t, h], x["a"][b, t, h]
            grad, gram = dict.fromkeys(now, 0), dict.fromkeys(now, 0)
            for s in range(max(0, t - c + 1), t + 1):
                for p, (g, kk) in gradient(held, x["k"][b, s, h], x["v"][b, s, h]).items():
                    grad[p] = grad[p] + x["w"][b, s, h] * g
                    gram[p] = gram[p] + x["w"][b, s, h] * kk
            m = {p: beta * m[p] - e * grad[p] for p in now}
            new = {p: a * now[p] + m[p] - (e * now[p] @ gram[p] if rule == "dgd" else 0) for p in now}
            y[b, t, h] = apply({"chunk": held, "before": now, "after": new}[read], x["q"][b, t, h])
            now = new
    return y


@pytest.mark.parametrize("rule", ["gd", "dgd", "momentum(beta=0.6)"])
@pytest.mark.parametrize("objective", ["dot", "l2"])
@pytest.mark.parametrize(("chunk", "read"), [(1, "after"), (4, "before")])
def test_matrix(backend, objective, rule, chunk, read):
    def gradient(W, k, v):
        return {"M": (outer((W["M"] @ k if objective == "l2" else 0) - v, k), outer(k, k))}

    def oracle(x, w):
        start = lambda h: {"M": w[PLACE][h]}
        beta = 0.6 if rule.startswith("momentum") else 0.0
        y = walk(x, start, gradient, lambda W, q: W["M"] @ q, 3, chunk, read, rule, beta)
        return only_real(y, x, w)

    level = f"objective: {objective}, rule: {rule}, chunk: {chunk}, read: {read}, window: 3, weigh: w"
    backend.run(SPEC.format(level=level, form="matrix"), given()).agrees(oracle)


def test_mlp_over_a_window_longer_than_its_chunk(backend):
    def apply(W, x):
        return x + W["W_out"] @ gelu(W["W_in"] @ x)

    def gradient(W, k, v):
        z = W["W_in"] @ k
        h, u = gelu(z), apply(W, k) - v
        return {
            "W_in": (outer((W["W_out"].T @ u) * gelu_slope(z), k), outer(k, k)),
            "W_out": (outer(u, h), outer(h, h)),
        }

    def oracle(x, w):
        start = lambda h: {p: w[f"{PLACE}.{p}"][h] for p in ("W_in", "W_out")}
        return only_real(walk(x, start, gradient, apply, 5, 3, "after"), x, w)

    level = "objective: l2, rule: gd, chunk: 3, read: after, window: 5, weigh: w"
    backend.run(SPEC.format(level=level, form="mlp(hidden=4)"), given()).agrees(oracle)
