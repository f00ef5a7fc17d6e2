"""Objectives with parameters of every kind, and expressions in M, k and v, against their slopes u = dL/dM(k) by hand;
keys under a feature map.  The gradient of an expression is made by autograd, inside a write and through it."""

import numpy as np
import pytest

from tests.oracle.test_mlp import BATCH, HEADS, TOKENS, flows, only_real, outer, sigmoid

SPEC = """
nlc: 1
name: cell
sizes: {{heads: 2, head: 3}}
inputs: {{k: [heads, head], v: [heads, head], q: [heads, head], e: [heads], a: [heads], s: [heads]}}
levels:
  - {{name: m, every: 1 token, chunk: {chunk}, read: before, rate: 0.3 * e, retain: a, objective: {objective},
     memories: {{memory: {{form: matrix, keys: {keys}, values: v}}}}}}
block: |
  p = {query}
  y = s * memory(p)
outputs: [y]
"""


def sign(x):
    return np.where(np.real(x) < 0, -1, 1)


def huber(r, d):
    return np.where(np.abs(np.real(r)) <= np.real(d), r, sign(r) * d)


def features(x):
    """(1 + elu(x), its square)."""
    one = np.where(np.real(x) > 0, x + 1, np.exp(np.where(np.real(x) > 0, 0, x)))
    return np.concatenate((one, one**2))


def tensor_powers(x):
    """Atlas: every entry and every product of two (arXiv 2505.23735, section 3.1), brought to unit length."""
    phi = np.concatenate((x, outer(x, x).ravel()))
    return phi / np.sqrt((phi * phi).sum())


SLOPES = {  # written: u(M(k), k, v, s, learned parameter)
    "lp(1.5 + s)": lambda p, k, v, s, w: sign(p - v) * (sign(p - v) * (p - v)) ** (0.5 + s),
    "huber(learned(0.3))": lambda p, k, v, s, w: huber(p - v, np.exp(w)),
    "'huber(s * sigmoid(v))'": lambda p, k, v, s, w: huber(p - v, s * sigmoid(v)),
    "'sum(log(1 + exp(s * (M - v)))) + mean(M * k)'": lambda p, k, v, s, w: s * sigmoid(s * (p - v)) + k / len(k),
    "'-sum(sigmoid(M) * v) / s'": lambda p, k, v, s, w: -sigmoid(p) * (1 - sigmoid(p)) * v / s,
}


def given():
    return flows(9) | {"s": np.random.default_rng(10).uniform(0.2, 0.8, (BATCH, TOKENS, HEADS))}


def memory(slope, chunk, phi=lambda x: x):
    def oracle(x, w):
        learned = w.get("blocks.0.m.objective.d")
        y = np.zeros(x["v"].shape, complex)
        for b, h in np.ndindex(BATCH, HEADS):
            now = held = w["blocks.0.m.memory.start"][h]
            for t in range(TOKENS):
                held = now if t % chunk == 0 else held
                k, v, q, e, a, s = (x[n][b, t, h] for n in ("k", "v", "q", "e", "a", "s"))
                k, q = phi(k), phi(q)
                y[b, t, h] = s * (now @ q)
                now = a * now - 0.3 * e * outer(slope(held @ k, k, v, s, learned), k)
        return only_real(y, x, w)

    return oracle


@pytest.mark.parametrize("chunk", [1, 4])
@pytest.mark.parametrize("objective", SLOPES)
def test_objective(backend, objective, chunk):
    text = SPEC.format(objective=objective, chunk=chunk, keys="k", query="q")
    backend.run(text, given()).agrees(memory(SLOPES[objective], chunk))


FEATURES = {  # written: by hand
    "poly(max({0}, 0) + exp(min({0}, 0)), 2)": features,
    "l2norm(concat({0}, merge(outer({0}, {0}))))": tensor_powers,
}


@pytest.mark.parametrize("phi", FEATURES)
def test_keys_under_a_feature_map(backend, phi):
    """Keys and the reads' queries alike: more keys than values."""
    text = SPEC.format(objective="l2", chunk=1, keys=f"'{phi.format('k')}'", query=phi.format("q"))
    backend.run(text, given()).agrees(memory(lambda p, k, v, s, w: p - v, 1, FEATURES[phi]))
