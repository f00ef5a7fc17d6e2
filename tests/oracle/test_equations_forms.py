"""Forms written as equations, against gradients by hand: each matrix is a layer, and dgd erases along its input.

TTT's form (arXiv 2407.04620, section 2.7):  M(x) = x + LN(W x + b), LN with a gain and a bias of the outer level.
With z = W k + b, n = (z - mean z) / s, s = sqrt(var z + 1e-5) and u = dL/dM(k), c = gain u:
    dL/dz = (c - mean c - n mean(c n)) / s,   grad W = dL/dz k^T,   grad b = dL/dz.
"""

import numpy as np
import pytest

from tests.oracle.test_mlp import WIDTH, flows, only_real, outer, sigmoid, walk

SPEC = """
nlc: 1
name: cell
sizes: {{heads: 2, head: 3}}
inputs: {{k: [heads, head], v: [heads, head], q: [heads, head], e: [heads], a: [heads]}}
forms:
  ttt: {{state: {{W: [out, in], b: [out]}}, do: 'y = x + layernorm(W @ x + b)'}}
  gated:
    state: {{W: [2 * out, in], g: [out], U: [out, out]}}
    do: |
      a, b = split(W @ x, 2)
      y = g * (U @ (sigmoid(a) * b)) + x
levels:
  - {{name: m, every: 1 token, {level}, rate: e, retain: a,
     memories: {{memory: {{form: {form}, keys: k, values: v}}}}}}
block: |
  y = memory(q)
outputs: [y]
"""
GAIN, BIAS = "blocks.0.m.memory.form.y.layernorm", "blocks.0.m.memory.form.y.layernorm_bias"


@pytest.mark.parametrize(("chunk", "read"), [(1, "after"), (4, "chunk"), (4, "before"), (16, "after")])
@pytest.mark.parametrize("rule", ["gd", "dgd"])
def test_ttt_linear(backend, rule, chunk, read):
    def oracle(x, w):
        gain, bias = w[GAIN], w[BIAS]

        def normal(z):
            s = np.sqrt(((z - z.mean()) ** 2).mean() + 1e-5)
            return (z - z.mean()) / s, s

        def read_at(W, q):
            return q + gain * normal(W["W"] @ q + W["b"])[0] + bias

        def update(now, held, k, v, e, a):
            n, s = normal(held["W"] @ k + held["b"])
            c = gain * (read_at(held, k) - v)
            d = (c - c.mean() - n * (c * n).mean()) / s
            erased = now["W"] @ outer(k, k) if rule == "dgd" else 0
            return {"W": a * now["W"] - e * erased - e * outer(d, k), "b": a * now["b"] - e * d}

        start = lambda h: {p: w[f"blocks.0.m.memory.start.{p}"][h] for p in ("W", "b")}
        return only_real(walk(x, start, read_at, update, chunk, read), x, w)

    level = f"objective: l2, rule: {rule}, chunk: {chunk}, read: {read}"
    backend.run(SPEC.format(level=level, form="ttt"), flows()).agrees(oracle)


@pytest.mark.parametrize(("chunk", "read"), [(1, "after"), (4, "before")])
def test_two_matrices_and_a_vector(backend, chunk, read):
    """A vector that multiplies, one layer above the other, and dgd along each layer's own input."""

    def inside(W, x):
        z = W["W"] @ x
        s = sigmoid(z[:WIDTH])
        h = s * z[WIDTH:]
        return z, s, h, W["U"] @ h

    def read_at(W, x):
        return W["g"] * inside(W, x)[3] + x

    def update(now, held, k, v, e, a):
        z, s, h, r = inside(held, k)
        u = read_at(held, k) - v
        d_r = held["g"] * u
        d_h = held["U"].T @ d_r
        d_z = np.concatenate((d_h * z[WIDTH:] * s * (1 - s), d_h * s))
        return {
            "W": a * now["W"] - e * now["W"] @ outer(k, k) - e * outer(d_z, k),
            "U": a * now["U"] - e * now["U"] @ outer(h, h) - e * outer(d_r, h),
            "g": a * now["g"] - e * u * r,
        }

    def oracle(x, w):
        start = lambda h: {p: w[f"blocks.0.m.memory.start.{p}"][h] for p in ("W", "U", "g")}
        return only_real(walk(x, start, read_at, update, chunk, read), x, w)

    level = f"objective: l2, rule: dgd, chunk: {chunk}, read: {read}"
    backend.run(SPEC.format(level=level, form="gated"), flows()).agrees(oracle)
