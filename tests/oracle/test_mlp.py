"""Memories that are an mlp or a swiglu, against reference sections 1 and 2: gradients by hand, each layer erased
along its own input.

mlp:  M(x) = [x +] W1 s(W2 x), z = W2 k, h = s(z):  grad W1 = u h^T,  grad W2 = ((W1^T u) * s'(z)) k^T,  u = dL/dM(k).
"""

import math

import numpy as np
import pytest

HEADS, WIDTH, HIDDEN, BATCH, TOKENS = 2, 3, 4, 2, 11
NAMES = ("k", "v", "q", "e", "a")

SPEC = """
nlc: 1
name: cell
sizes: {{heads: 2, head: 3}}
inputs: {{k: [heads, head], v: [heads, head], q: [heads, head], e: [heads], a: [heads]}}
levels:
  - {{name: m, every: 1 token, {level}, rate: e, retain: a,
     memories: {{memory: {{form: '{form}', keys: k, values: v}}}}}}
block: |
  y = memory(q)
outputs: [y]
"""


def erf(x):
    real = np.vectorize(math.erf)(np.real(x))
    return real + (1j * np.imag(x) * 2 / math.sqrt(math.pi) * np.exp(-(np.real(x) ** 2)) if np.iscomplexobj(x) else 0)


def gelu(x):
    return x * 0.5 * (1 + erf(x / math.sqrt(2)))


def gelu_slope(x):
    return 0.5 * (1 + erf(x / math.sqrt(2))) + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def outer(a, b):
    return np.multiply.outer(a, b)


def flows(seed=0):
    rng = np.random.default_rng(seed)
    wide = (BATCH, TOKENS, HEADS, WIDTH)
    k = rng.standard_normal(wide)
    return {
        "k": k / np.linalg.norm(k, axis=-1, keepdims=True),
        "v": rng.standard_normal(wide),
        "q": rng.standard_normal(wide),
        "e": rng.uniform(0.05, 0.3, wide[:3]),
        "a": rng.uniform(0.7, 1.0, wide[:3]),
    }


def walk(x, start, read_at, update, chunk, read):
    """Every sequence and head by itself; a state is a dict of parts."""
    y = np.zeros(x["v"].shape, complex)
    for b, h in np.ndindex(BATCH, HEADS):
        now = held = start(h)
        for t in range(TOKENS):
            held = now if t % chunk == 0 else held
            k, v, q, e, a = (x[n][b, t, h] for n in NAMES)
            new = update(now, held, k, v, e, a)
            y[b, t, h] = read_at({"chunk": held, "before": now, "after": new}[read], q)
            now = new
    return y


def only_real(y, *where):
    return {"y": y if any(np.iscomplexobj(z) for arrays in where for z in arrays.values()) else y.real}


@pytest.mark.parametrize(("chunk", "read"), [(1, "after"), (4, "chunk"), (4, "before"), (16, "after")])
@pytest.mark.parametrize("rule", ["gd", "dgd"])
@pytest.mark.parametrize("residual", ["true", "false"])
def test_two_layers(backend, rule, chunk, read, residual):
    def read_at(W, x):
        return W["W_out"] @ gelu(W["W_in"] @ x) + (x if residual == "true" else 0)

    def update(now, held, k, v, e, a):
        z = held["W_in"] @ k
        h = gelu(z)
        u = read_at(held, k) - v
        erase_in, erase_out = (outer(k, k), outer(h, h)) if rule == "dgd" else (0 * outer(k, k), 0 * outer(h, h))
        return {
            "W_in": a * now["W_in"] - e * now["W_in"] @ erase_in - e * outer((held["W_out"].T @ u) * gelu_slope(z), k),
            "W_out": a * now["W_out"] - e * now["W_out"] @ erase_out - e * outer(u, h),
        }

    def oracle(x, w):
        start = lambda h: {p: w[f"blocks.0.m.memory.start.{p}"][h] for p in ("W_in", "W_out")}
        return only_real(walk(x, start, read_at, update, chunk, read), x, w)

    level = f"objective: l2, rule: {rule}, chunk: {chunk}, read: {read}"
    form = f"mlp(hidden={HIDDEN}, residual={residual})"
    ran = backend.run(SPEC.format(level=level, form=form), flows(), WEIGHTS)
    ran.agrees(oracle)


RNG = np.random.default_rng(5)
WEIGHTS = {
    "blocks.0.m.memory.start.W_in": 0.5 * RNG.standard_normal((HEADS, HIDDEN, WIDTH)),
    "blocks.0.m.memory.start.W_out": 0.5 * RNG.standard_normal((HEADS, WIDTH, HIDDEN)),
}


@pytest.mark.parametrize("chunk", [1, 4])
def test_three_layers_with_biases(backend, chunk):
    """depth=3 and biases: dgd erases along each layer's own input, and writes a bias by its plain gradient."""
    parts = ("W_in", "b_in", "W_2", "b_2", "W_out", "b_out")
    layers = (("W_in", "b_in"), ("W_2", "b_2"), ("W_out", "b_out"))

    def forward(W, x):
        taps = []
        for i, (name, bias) in enumerate(layers):
            z = W[name] @ x + W[bias]
            taps.append((x, z))
            x = np.tanh(z) if i < 2 else z
        return x, taps

    def update(now, held, k, v, e, a):
        y, taps = forward(held, k)
        new, error = {}, y - v  # dot has u = -v; l2 has u = e
        for i in (2, 1, 0):
            (name, bias), (x, _) = layers[i], taps[i]
            new[name] = a * now[name] - e * now[name] @ outer(x, x) - e * outer(error, x)
            new[bias] = a * now[bias] - e * error
            if i:
                error = (held[name].T @ error) * (1 - np.tanh(taps[i - 1][1]) ** 2)
        return new

    def oracle(x, w):
        start = lambda h: {p: w[f"blocks.0.m.memory.start.{p}"][h] for p in parts}
        return only_real(walk(x, start, lambda W, q: forward(W, q)[0], update, chunk, "before"), x, w)

    level = f"objective: l2, rule: dgd, chunk: {chunk}, read: before"
    form = f"mlp(hidden={HIDDEN}, depth=3, act=tanh, residual=false, bias=true)"
    backend.run(SPEC.format(level=level, form=form), flows(1)).agrees(oracle)


@pytest.mark.parametrize("rule", ["gd", "dgd"])
def test_swiglu(backend, rule):
    """W_out (silu(W_gate x) * (W_in x)), residual."""
    parts = ("W_gate", "W_in", "W_out")

    def read_at(W, x):
        g = W["W_gate"] @ x
        return x + W["W_out"] @ (g * sigmoid(g) * (W["W_in"] @ x))

    def update(now, held, k, v, e, a):
        g, i = held["W_gate"] @ k, held["W_in"] @ k
        s = sigmoid(g)
        h, u = g * s * i, read_at(held, k) - v
        back = held["W_out"].T @ u
        grad = {"W_out": outer(u, h), "W_in": outer(back * g * s, k)}
        grad["W_gate"] = outer(back * i * (s + g * s * (1 - s)), k)
        inputs = {"W_out": h, "W_in": k, "W_gate": k}
        erase = e if rule == "dgd" else 0
        return {p: a * now[p] - erase * now[p] @ outer(inputs[p], inputs[p]) - e * grad[p] for p in parts}

    def oracle(x, w):
        start = lambda h: {p: w[f"blocks.0.m.memory.start.{p}"][h] for p in parts}
        return only_real(walk(x, start, read_at, update, 4, "before"), x, w)

    level = f"objective: l2, rule: {rule}, chunk: 4, read: before"
    backend.run(SPEC.format(level=level, form=f"swiglu(hidden={HIDDEN})"), flows(2)).agrees(oracle)


def test_normalised_hidden_layer(backend):
    """normalise_hidden: the second layer's input is h / |h|, in the map and in what erases."""

    def unit(h):
        return h / np.sqrt((h * h).sum())

    def read_at(W, x):
        return x + W["W_out"] @ unit(gelu(W["W_in"] @ x))

    def update(now, held, k, v, e, a):
        z = held["W_in"] @ k
        h = gelu(z)
        length, n = np.sqrt((h * h).sum()), unit(h)
        u = read_at(held, k) - v
        back = held["W_out"].T @ u
        slope = (back - n * (n * back).sum()) / length * gelu_slope(z)
        return {
            "W_in": now["W_in"] @ (a * np.eye(WIDTH) - e * outer(k, k)) - e * outer(slope, k),
            "W_out": now["W_out"] @ (a * np.eye(HIDDEN) - e * outer(n, n)) - e * outer(u, n),
        }

    def oracle(x, w):
        start = lambda h: {p: w[f"blocks.0.m.memory.start.{p}"][h] for p in ("W_in", "W_out")}
        return only_real(walk(x, start, read_at, update, 4, "before"), x, w)

    level = "objective: l2, rule: dgd, chunk: 4, read: before, normalise_hidden: true"
    form = f"mlp(hidden={HIDDEN})"
    backend.run(SPEC.format(level=level, form=form), flows(3), WEIGHTS).agrees(oracle)


@pytest.mark.parametrize("norm", ["layernorm", "rmsnorm"])
def test_normalised_input(backend, norm):
    """norm= acts on the form's input, without gain; the residual is the input itself."""

    def normalise(x):
        x = x - x.mean() if norm == "layernorm" else x
        return x / np.sqrt((x * x).mean() + 1e-5)

    def read_at(W, x):
        return x + W["W_out"] @ gelu(W["W_in"] @ normalise(x))

    def update(now, held, k, v, e, a):
        n = normalise(k)
        z = held["W_in"] @ n
        h, u = gelu(z), read_at(held, k) - v
        return {
            "W_in": a * now["W_in"] - e * outer((held["W_out"].T @ u) * gelu_slope(z), n),
            "W_out": a * now["W_out"] - e * outer(u, h),
        }

    def oracle(x, w):
        start = lambda h: {p: w[f"blocks.0.m.memory.start.{p}"][h] for p in ("W_in", "W_out")}
        return only_real(walk(x, start, read_at, update, 1, "after"), x, w)

    level = "objective: l2, rule: gd, read: after"
    form = f"mlp(hidden={HIDDEN}, norm={norm})"
    backend.run(SPEC.format(level=level, form=form), flows(4), WEIGHTS).agrees(oracle)
