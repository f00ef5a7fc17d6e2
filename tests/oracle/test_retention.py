"""MIRAS' three models and a memory on the sphere, as whole memories (arXiv 2504.13173, section 5; 2504.05646).

Moneta  A = a A - e G, W = A / |A|_q^(q-2), with lp
Yaad    W = a W - e G, with huber
Memora  W = softmax(a log W - e G)
"""

import numpy as np
import pytest

from tests.oracle.test_mlp import BATCH, HEADS, TOKENS, flows, only_real, outer

SPEC = """
nlc: 1
name: cell
sizes: {{heads: 2, head: 3}}
inputs: {{k: [heads, head], v: [heads, head], q: [heads, head], e: [heads], a: [heads], d: [heads]}}
levels:
  - {{name: m, every: 1 token, chunk: {chunk}, read: before, rate: e, retain: a, {fields},
     memories: {{memory: {{form: matrix, keys: k, values: v}}}}}}
block: |
  y = d * memory(q)
outputs: [y]
"""
START = "blocks.0.m.memory.start"


def analytic_abs(x):
    return np.where(np.real(x) < 0, -x, x)


def softmax(z):
    z = np.exp(z)
    return z / z.sum(-1, keepdims=True)


def normed(A, q=4):
    return A / (analytic_abs(A) ** q).sum() ** ((q - 2) / q)


def moneta(A, W, g, a, e, first):
    A = a * A - e * g
    return A, normed(A)


def yaad(A, W, g, a, e, first):
    return A, a * W - e * g


def memora(A, W, g, a, e, first):
    return A, softmax(a * (W if first else np.log(W)) - e * g)


def sphere(A, W, g, a, e, first):
    def unit(x):
        return x / np.sqrt((x**2).sum(0))

    s = unit(W)
    return A, unit(a * s - e * (g - s * (s * g).sum(0)))


def huber(r, d):
    return np.where(np.real(r) > np.real(d), d, np.where(np.real(r) < -np.real(d), -d, r))


SLOPES = {
    "objective: lp(3), rule: lq(q=4)": (moneta, lambda r, d: np.where(np.real(r) < 0, -1, 1) * r**2),
    "objective: huber(d), rule: gd": (yaad, huber),
    "objective: l2, rule: kl": (memora, lambda r, d: r),
    "objective: l2, rule: sphere": (sphere, lambda r, d: r),
}  # fmt: skip


@pytest.mark.parametrize("chunk", [1, 4])
@pytest.mark.parametrize("fields", SLOPES)
def test_memory(backend, fields, chunk):
    update, slope = SLOPES[fields]

    def oracle(x, w):
        y = np.zeros(x["v"].shape, complex)
        for b, h in np.ndindex(BATCH, HEADS):
            A = now = held = w[START][h]
            for t in range(TOKENS):
                held = now if t % chunk == 0 else held
                k, v, q, e, a, d = (x[n][b, t, h] for n in ("k", "v", "q", "e", "a", "d"))
                y[b, t, h] = d * (now @ q)
                A, now = update(A, now, outer(slope(held @ k - v, d), k), a, e, t == 0)
        return only_real(y, x, w)

    x = flows(6) | {"d": np.random.default_rng(8).uniform(0.2, 0.8, (BATCH, TOKENS, HEADS))}
    backend.run(SPEC.format(fields=fields, chunk=chunk), x).agrees(oracle)
