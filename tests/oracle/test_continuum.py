"""The continuum memory system against NL 70-74 (reference section 4), in a language model without anything else.

block l:  B(x) = x + W_out gelu(W_in layernorm(x) + b_in) + b_out,      y = B_k(... B_1(embedding))
token i's error at a block is d loss_i / d B(x_i), through the later blocks at the parameters in force;
block l gathers rate * gradient over its period, and writes the sum when the token count is a multiple of it.
"""

import math

import numpy as np
import pytest

WIDTH, HIDDEN, VOCAB, BATCH = 4, 3, 5, 2
PARTS = ("W_in", "b_in", "W_out", "b_out")

SPEC = """
nlc: 1
name: continuum
sizes: {{width: 4, heads: 1, layers: {layers}, vocab: 5, context: 64}}
levels:
  - name: cms
    objective: loss
    rule: {rule}
    rate: {rate}
    meta: {meta}
    memories:
{memories}
  - {{name: train, every: 1 step, objective: loss, rule: adamw(lr=1e-3), memories: rest}}
block: |
  x = {chain}
"""


def spec(periods, layers=1, meta="full", rule="gd", rate="learned(0.05)", carry="sequence"):
    form = "'mlp(hidden=3, norm=layernorm, bias=true)'"
    lines = [f"      f{p}: {{form: {form}, every: {p} tokens, carry: {carry}}}" for p in periods]
    chain = "x"
    for p in periods:
        chain = f"f{p}({chain})"
    return SPEC.format(layers=layers, meta=meta, rule=rule, rate=rate, memories="\n".join(lines), chain=chain)


def erf(x):
    real = np.vectorize(math.erf)(np.real(x))
    return real + (1j * np.imag(x) * 2 / math.sqrt(math.pi) * np.exp(-(np.real(x) ** 2)) if np.iscomplexobj(x) else 0)


def gelu(x):
    return x * 0.5 * (1 + erf(x / math.sqrt(2)))


def gelu_slope(x):
    return 0.5 * (1 + erf(x / math.sqrt(2))) + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def forward(W, x):
    centred = x - x.mean()
    deviation = np.sqrt((centred * centred).mean() + 1e-5)
    n = centred / deviation
    z = W["W_in"] @ n + W["b_in"]
    h = gelu(z)
    return x + W["W_out"] @ h + W["b_out"], (n, deviation, z, h)


def backward(W, taps, error):
    """The gradient of every part, the inputs of both layers, and the error at the block's input."""
    n, deviation, z, h = taps
    dz = (W["W_out"].T @ error) * gelu_slope(z)
    grads = {"W_in": np.multiply.outer(dz, n), "b_in": dz, "W_out": np.multiply.outer(error, h), "b_out": error}
    dn = W["W_in"].T @ dz
    dx = (dn - dn.mean() - n * (dn * n).mean()) / deviation
    return grads, {"W_in": n, "W_out": h}, error + dx


def head(w, x, target):
    """The frame: logits = embedding @ rmsnorm(x); cross-entropy, and its derivative at x."""
    scale = np.sqrt((x * x).mean() + 1e-5)
    y = x / scale
    logits = w["embedding"] @ (y * w["rmsnorm"])
    logits = logits - np.real(logits).max()
    share = np.exp(logits) / np.exp(logits).sum()
    dlogits = share - np.eye(VOCAB)[target]
    dy = (w["embedding"].T @ dlogits) * w["rmsnorm"]
    return np.log(np.exp(logits).sum()) - logits[target], (dy - y * (dy * y).mean()) / scale


def model(w, tokens, targets, blocks, meta="full", rule="gd"):
    """nats of every token.  `blocks`: (path, period) in the order of the chain."""
    nats = np.zeros(tokens.shape, complex)
    for b, row in enumerate(tokens):
        now = {path: {p: w[f"{path}.start.{p}"] for p in PARTS} for path, _ in blocks}
        sums = {path: dict.fromkeys(PARTS, 0) for path, _ in blocks}
        grams = {path: dict.fromkeys(PARTS, 0) for path, _ in blocks}
        for t, token in enumerate(row):
            x, taps = w["embedding"][token], {}
            for path, _ in blocks:
                x, taps[path] = forward(now[path], x)
            nats[b, t], error = head(w, x, targets[b, t])
            for path, _ in reversed(blocks):
                grads, inputs, error = backward(now[path], taps[path], error)
                constant = np.real if meta == "first_order" else lambda g: g
                sums[path] = {p: sums[path][p] + constant(grads[p]) for p in PARTS}
                for p, n in inputs.items():
                    grams[path][p] = grams[path][p] + np.multiply.outer(n, n)
            for path, period in blocks:
                if (t + 1) % period == 0:
                    rate = np.exp(w[rate_of(path)])
                    for p in PARTS:
                        erase = now[path][p] @ grams[path][p] if rule == "dgd" and p.startswith("W") else 0
                        now[path] = {**now[path], p: now[path][p] - rate * (sums[path][p] + erase)}
                    sums[path] = dict.fromkeys(PARTS, 0)
                    grams[path] = dict.fromkeys(PARTS, 0)
    return {"nats": nats if any(np.iscomplexobj(v) for v in w.values()) else nats.real}


def rate_of(path):
    """One rate per layer and memory: each has a level of its own after the split."""
    return f"{path}.rate"


def text(T, seed=0):
    rng = np.random.default_rng(seed)
    row = rng.integers(0, VOCAB, (BATCH, T + 1))
    return row[:, :-1], row[:, 1:]


def chain(periods, layers=1):
    return [(f"blocks.{i}.cms.f{p}", p) for i in range(layers) for p in periods]


@pytest.mark.parametrize("meta", ["full", "first_order"])
@pytest.mark.parametrize(("periods", "layers", "T"), [((2, 3, 6), 1, 13), ((4, 16), 1, 35), ((2, 3), 2, 8)])
def test_sequential_continuum(backend, periods, layers, T, meta):
    tokens, targets = text(T)
    ran = backend.run(spec(periods, layers, meta), tokens=tokens, targets=targets)
    ran.agrees(lambda x, w: model(w, tokens, targets, chain(periods, layers), meta))


def test_delta_gradient_descent(backend):
    """rule: dgd erases along each layer's own inputs, summed over the period; biases are written by plain gradient."""
    tokens, targets = text(13, 1)
    ran = backend.run(spec((2, 3, 6), rule="dgd"), tokens=tokens, targets=targets)
    ran.agrees(lambda x, w: model(w, tokens, targets, chain((2, 3, 6)), rule="dgd"))


@pytest.mark.parametrize("periods", [(2, 3, 6), (4, 16)])
def test_firing_times(backend, periods):
    """Block l writes exactly when the token count is a multiple of its period, and at no other token."""
    T = 33
    tokens, targets = text(T, 2)
    whole = backend.run(spec(periods), tokens=tokens, targets=targets)
    state, last, changed = None, {}, {path: [] for path, _ in chain(periods)}
    for t in range(T):
        one = backend.run(spec(periods), tokens=tokens[:, t : t + 1], targets=targets[:, t : t + 1], state=state)
        for path in changed:
            W = one.state[path]["W_out"]
            before = last.get(path, np.broadcast_to(one.weights[f"{path}.start.W_out"], W.shape))
            changed[path] += [] if np.array_equal(W, before) else [t + 1]
            last[path] = W
        state = one.raw_state
    for path, period in chain(periods):
        assert changed[path] == list(range(period, T + 1, period))
        assert whole.fires.get(path, [changed[path]] * BATCH) == [changed[path]] * BATCH
        assert np.allclose(whole.state[path]["W_out"], last[path], rtol=0, atol=1e-13)


MATRIX = """
nlc: 1
name: fast-weights
sizes: {{width: 4, heads: 1, layers: 1, vocab: 5, context: 64}}
levels:
  - name: fast
    every: {period} tokens
    objective: loss
    rate: 0.3
    meta: {meta}
    memories:
      a: {{form: matrix, start: identity}}
      b: {{form: matrix, start: identity}}
  - {{name: train, every: 1 step, objective: loss, rule: adamw(lr=1e-3), memories: rest}}
block: |
  x = b(tanh(a(x)))
"""


@pytest.mark.parametrize("period", [1, 3])
@pytest.mark.parametrize("meta", ["full", "first_order", "none"])
def test_meta_says_what_the_outer_gradient_sees(backend, meta, period):
    """full: through every write; first_order: the gradient is a constant; none: the state itself is one when read."""
    tokens, targets = text(8, 3)

    def oracle(x, w):
        nats = np.zeros(tokens.shape, complex)
        constant = {"full": lambda g: g, "first_order": np.real, "none": np.real}[meta]
        for i, row in enumerate(tokens):
            A = B = np.eye(WIDTH)
            GA = GB = 0
            for t, token in enumerate(row):
                a, b = (np.real(A), np.real(B)) if meta == "none" else (A, B)
                x0 = w["embedding"][token]
                x1 = np.tanh(a @ x0)
                nats[i, t], error = head(w, b @ x1, targets[i, t])
                GB = GB + constant(np.multiply.outer(error, x1))
                GA = GA + constant(np.multiply.outer((b.T @ error) * (1 - x1 * x1), x0))
                if (t + 1) % period == 0:
                    A, B, GA, GB = A - 0.3 * GA, B - 0.3 * GB, 0, 0
        return {"nats": nats if any(np.iscomplexobj(v) for v in w.values()) else nats.real}

    backend.run(MATRIX.format(meta=meta, period=period), tokens=tokens, targets=targets).agrees(oracle)


def test_earlier_tokens_are_constant_for_an_error(backend):
    """Token i's error passes a convolution at its last tap only, and attention at its query and its own pair."""
    tokens, targets = text(7, 4)
    taps = 3
    spec_text = """
nlc: 1
name: past
sizes: {width: 4, heads: 1, layers: 1, vocab: 5, context: 64}
levels:
  - name: fast
    every: 2 tokens
    objective: loss
    rate: 0.3
    memories: {a: {form: matrix, start: identity}}
  - {name: seen, memories: {look: {form: attention, keys: l, values: l}}}
  - {name: train, every: 1 step, objective: loss, rule: adamw(lr=1e-3), memories: rest}
block: |
  l = conv(a(x), 3)
  x = x + look(l)
"""

    def oracle(x, w):
        nats = np.zeros(tokens.shape, complex)
        kernel = w["blocks.0.l.conv"]
        for i, row in enumerate(tokens):
            A, G = np.eye(WIDTH), 0
            past = [np.zeros(WIDTH)] * (taps - 1)
            pairs = []
            for t, token in enumerate(row):
                x0 = w["embedding"][token]
                y = A @ x0
                l = kernel[-1] * y + sum(kernel[j] * past[j - (taps - 1)] for j in range(taps - 1))
                past = [*past, y]
                pairs.append(l)
                K = np.stack(pairs)
                scores = K @ l / math.sqrt(WIDTH)
                share = np.exp(scores - np.real(scores).max())
                share = share / share.sum()
                nats[i, t], error = head(w, x0 + share @ K, targets[i, t])
                # Through the value of the token's own pair, through the query, and through the key of its own pair.
                dscores = share * (K @ error - (share @ K) @ error)
                dl = share[-1] * error + (dscores @ K + dscores[-1] * l) / math.sqrt(WIDTH)
                G = G + np.multiply.outer(kernel[-1] * dl, x0)
                if (t + 1) % 2 == 0:
                    A, G = A - 0.3 * G, 0
        return {"nats": nats if any(np.iscomplexobj(v) for v in w.values()) else nats.real}

    backend.run(spec_text, tokens=tokens, targets=targets).agrees(oracle)


def test_ignored_target_has_no_error(backend):
    """A token without a target advances the clock and teaches nothing."""
    tokens, targets = text(9, 5)
    targets = targets.copy()
    targets[0, 1] = targets[1, 4:6] = -100

    def oracle(x, w):
        nats = np.zeros(tokens.shape, complex)
        for i, row in enumerate(tokens):
            A = B = np.eye(WIDTH)
            GA = GB = 0
            for t, token in enumerate(row):
                x0 = w["embedding"][token]
                x1 = np.tanh(A @ x0)
                if targets[i, t] >= 0:
                    nats[i, t], error = head(w, B @ x1, targets[i, t])
                    GB = GB + np.multiply.outer(error, x1)
                    GA = GA + np.multiply.outer((B.T @ error) * (1 - x1 * x1), x0)
                if (t + 1) % 3 == 0:
                    A, B, GA, GB = A - 0.3 * GA, B - 0.3 * GB, 0, 0
        return {"nats": nats if any(np.iscomplexobj(v) for v in w.values()) else nats.real}

    backend.run(MATRIX.format(meta="full", period=3), tokens=tokens, targets=targets).agrees(oracle)
