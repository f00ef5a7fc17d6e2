"""Matrix memories against reference section 2: one line of NumPy per system, chunks, reads, retention, several pairs.

Below M acts as M x; Mc is the first state of the running chunk, M0 the start, e the rate, a the share kept.
"""

from collections.abc import Callable

import numpy as np
import pytest

HEADS, WIDTH, BATCH, TOKENS = 2, 3, 2, 21
START = "blocks.0.m.memory.start"
Arrays = dict[str, np.ndarray]
Update = Callable[..., np.ndarray]

SPEC = """
nlc: 1
name: cell
sizes: {{heads: 2, head: 3}}
inputs: {{k: [heads, head], v: [heads, head], q: [heads, head], e: [heads], a: {retained}}}
levels:
  - {{name: m, every: 1 token, {level}, memories: {{memory: {{form: matrix, {memory}}}}}}}
block: |
  y = memory(q) + 0 * {touch}
outputs: [y]
rules:
  oja: {{params: {{lr: 1}}, levels: [{{every: 1 update, do: 'delta = lr * outer(v, k - transpose(weight) @ v)'}}]}}
"""


def spec(level: str, memory: str = "keys: k, values: v", retained: str = "[heads]") -> str:
    """A cell; every input is used, so that none is idle."""
    touch = "(k + v + e * q + a * q)"
    return SPEC.format(level=level, memory=memory, retained=retained, touch=touch)


def flows(seed: int = 0, channels: bool = False, tokens: int = TOKENS) -> Arrays:
    rng = np.random.default_rng(seed)
    unit = lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)
    wide = (BATCH, tokens, HEADS, WIDTH)
    return {
        "k": unit(rng.standard_normal(wide)),
        "v": rng.standard_normal(wide),
        "q": rng.standard_normal(wide),
        "e": rng.uniform(0.1, 0.6, wide[:3]),
        "a": rng.uniform(0.7, 1.0, wide if channels else wide[:3]),
    }


def walk(x: Arrays, M0: np.ndarray, update: Update, chunk: int = 1, read: str = "chunk") -> Arrays:
    """Every sequence and head by itself, token by token: y_t = M q_t at the state that `read` says."""
    y = np.zeros(x["v"].shape, complex)
    for b, h in np.ndindex(BATCH, HEADS):
        now = held = M0[h]
        for t in range(y.shape[1]):
            held = now if t % chunk == 0 else held
            k, v, q, e, a = (x[n][b, t, h] for n in ("k", "v", "q", "e", "a"))
            new = update(now, held, M0[h], k, v, e, a)
            y[b, t, h] = {"chunk": held, "before": now, "after": new}[read] @ q
            now = new
    return {"y": y if any(np.iscomplexobj(z) for z in (*x.values(), M0)) else y.real}


def outer(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.multiply.outer(a, b)


I = np.eye(WIDTH)
SYSTEMS: dict[str, tuple[str, Update]] = {
    "linear_attention": (  # NL 64
        "objective: dot, rule: gd, read: after",
        lambda M, Mc, M0, k, v, e, a: M + outer(v, k),
    ),
    "retnet": (
        "objective: dot, rule: gd, retain: 0.9, read: after",
        lambda M, Mc, M0, k, v, e, a: 0.9 * M + outer(v, k),
    ),
    "mamba2": (
        "objective: dot, rule: gd, retain: a, read: after",
        lambda M, Mc, M0, k, v, e, a: a * M + outer(v, k),
    ),
    "deltanet": (  # NL 65
        "objective: l2, rule: gd, rate: e, read: after",
        lambda M, Mc, M0, k, v, e, a: M @ (I - e * outer(k, k)) + e * outer(v, k),
    ),
    "gated_deltanet": (
        "objective: l2, rule: gd, grad_at: kept, rate: e, retain: a, read: after",
        lambda M, Mc, M0, k, v, e, a: a * M @ (I - e * outer(k, k)) + e * outer(v, k),
    ),
    "gated_deltanet_by_dgd": (  # gated(eta, a, v) = dgd_dot(a eta, a, v / a)
        "objective: dot, rule: dgd, rate: a * e, retain: a, read: after",
        lambda M, Mc, M0, k, v, e, a: a * M @ (I - e * outer(k, k)) + e * outer(a * v, k),
    ),
    "dgd_l2": (  # NL 57, 88, 93: it erases twice
        "objective: l2, rule: dgd, rate: e, retain: a, read: before",
        lambda M, Mc, M0, k, v, e, a: M @ (a * I - e * outer(k, k)) - e * outer(Mc @ k - v, k),
    ),
    "dgd_dot": (
        "objective: dot, rule: dgd, rate: e, retain: a, read: before",
        lambda M, Mc, M0, k, v, e, a: M @ (a * I - e * outer(k, k)) + e * outer(v, k),
    ),
    "oja": (  # NL 66, a rule of the spec's own
        "rule: oja, rate: e / 4, retain: a, read: after",
        lambda M, Mc, M0, k, v, e, a: a * M + e / 4 * outer(v, k - M.T @ v),
    ),
    "to_start": (
        "objective: l2, rule: dgd, rate: e, retain: a, retain_to: start, read: after",
        lambda M, Mc, M0, k, v, e, a: M @ (a * I - e * outer(k, k)) + (1 - a) * M0 - e * outer(Mc @ k - v, k),
    ),
    "to_start_kept": (
        "objective: l2, rule: gd, grad_at: kept, rate: e, retain: a, retain_to: start, read: after",
        lambda M, Mc, M0, k, v, e, a: a * M + (1 - a) * M0 - e * outer((a * Mc + (1 - a) * M0) @ k - v, k),
    ),
    "lp": (
        "objective: lp(3), rule: gd, rate: e, retain: a, read: after",
        lambda M, Mc, M0, k, v, e, a: a * M - e * outer((Mc @ k - v) * size(Mc @ k - v), k),
    ),
    "huber": (
        "objective: huber(0.5), rule: gd, rate: e, retain: a, read: after",
        lambda M, Mc, M0, k, v, e, a: a * M - e * outer(clip(Mc @ k - v, 0.5), k),
    ),
    "expression": (  # 1/4 |M k - v|^4, and a pull of the prediction to the key
        "objective: 'norm(M - v) ** 4 / 4 + sum(M * k)', rule: gd, rate: e / 8, retain: a, read: after",
        lambda M, Mc, M0, k, v, e, a: a * M - e / 8 * outer((Mc @ k - v) * ((Mc @ k - v) ** 2).sum() + k, k),
    ),
}


def size(x: np.ndarray) -> np.ndarray:
    """|x|, with a derivative."""
    return np.where(np.real(x) < 0, -x, x)


def clip(x: np.ndarray, d: float) -> np.ndarray:
    return np.where(np.real(x) > d, d, np.where(np.real(x) < -d, -d, x))


@pytest.mark.parametrize("system", SYSTEMS)
def test_write_matches_equation(backend, system):
    level, update = SYSTEMS[system]
    read = level.rsplit(" ", 1)[-1]
    ran = backend.run(spec(level), flows())
    ran.agrees(lambda x, w: walk(x, w[START], update, read=read))


@pytest.mark.parametrize("read", ["chunk", "before", "after"])
@pytest.mark.parametrize("chunk", [1, 4, 16])
@pytest.mark.parametrize("system", ["dgd_l2", "dgd_dot", "to_start", "deltanet"])
def test_chunks_look_at_their_first_state(backend, system, chunk, read):
    """NL 90: gradients and default reads at Mc; erase and decay act on the running state.  21 does not divide."""
    level, update = SYSTEMS[system]
    if system == "deltanet":  # TTT-linear: gradient descent from the chunk's first state
        update = lambda M, Mc, M0, k, v, e, a: M - e * outer(Mc @ k - v, k)
    level = level.rsplit(",", 1)[0] + f", chunk: {chunk}, read: {read}"
    ran = backend.run(spec(level), flows(1))
    ran.agrees(lambda x, w: walk(x, w[START], update, chunk, read))


def test_retention_per_key_channel(backend):
    """Mamba-2 / gated linear attention with channels: M <- M diag(a) + v k^T."""
    level = "objective: dot, rule: gd, retain: a, read: after"
    ran = backend.run(spec(level, retained="[heads, head]"), flows(2, channels=True))
    ran.agrees(lambda x, w: walk(x, w[START], lambda M, Mc, M0, k, v, e, a: M * a + outer(v, k), read="after"))


def test_kimi_delta_attention(backend):
    """Gated DeltaNet with a share kept per key channel."""
    level = "objective: l2, rule: gd, grad_at: kept, rate: e, retain: a, read: after"
    update = lambda M, Mc, M0, k, v, e, a: (M * a) @ (I - e * outer(k, k)) + e * outer(v, k)
    ran = backend.run(spec(level, retained="[heads, head]"), flows(3, channels=True))
    ran.agrees(lambda x, w: walk(x, w[START], update, read="after"))


@pytest.mark.parametrize("chunk", [1, 4])
def test_titans_momentum(backend, chunk):
    """Titans 13-14: S <- s S - e G(Mc);  M <- a M + S.  The surprise S is the rule's own state."""
    level = f"objective: l2, rule: momentum(beta=0.7), rate: e, retain: a, chunk: {chunk}, read: after"

    def oracle(x, w):
        y = np.zeros(x["v"].shape, complex)
        for b, h in np.ndindex(BATCH, HEADS):
            M = Mc = w[START][h]
            S = np.zeros((WIDTH, WIDTH))
            for t in range(TOKENS):
                Mc = M if t % chunk == 0 else Mc
                k, v, q, e, a = (x[n][b, t, h] for n in ("k", "v", "q", "e", "a"))
                S = 0.7 * S - e * outer(Mc @ k - v, k)
                M = a * M + S
                y[b, t, h] = M @ q
        return {"y": y if any(np.iscomplexobj(z) for z in (*x.values(), *w.values())) else y.real}

    backend.run(spec(level), flows(4)).agrees(oracle)


def test_momentum_from_the_block(backend):
    """Titans' s_t is a value of the block: momentum(beta=a)."""
    level = "objective: l2, rule: momentum(beta=a), rate: e, read: after"

    def oracle(x, w):
        y = np.zeros(x["v"].shape, complex)
        for b, h in np.ndindex(BATCH, HEADS):
            M, S = w[START][h], np.zeros((WIDTH, WIDTH))
            for t in range(TOKENS):
                k, v, q, e, a = (x[n][b, t, h] for n in ("k", "v", "q", "e", "a"))
                S = a * S - e * outer(M @ k - v, k)
                M = M + S
                y[b, t, h] = M @ q
        return {"y": y if any(np.iscomplexobj(z) for z in (*x.values(), *w.values())) else y.real}

    backend.run(spec(level), flows(5)).agrees(oracle)


@pytest.mark.parametrize("chunk", [1, 4])
@pytest.mark.parametrize("read", ["before", "after"])
@pytest.mark.parametrize("at", ["old", "kept"])
def test_several_pairs_write_in_order(backend, chunk, read, at):
    """Two pairs a token: retention acts once, with the first; at chunk 1 the second sees the state after the first."""
    level = f"objective: l2, rule: dgd, rate: e, retain: a, grad_at: {at}, chunk: {chunk}, read: {read}"
    kept = at == "kept"

    def update(M, Mc, M0, k, v, e, a):
        Mc = a * Mc if kept else Mc
        first = M @ (a * I - e * outer(k, k)) - e * outer(Mc @ k - v, k)
        at = first if chunk == 1 else Mc
        return first @ (I - e * outer(v / 2, v / 2)) - e * outer(at @ (v / 2) - k, v / 2)

    text = spec(level, "keys: [k, v / 2], values: [v, k]")
    backend.run(text, flows(6)).agrees(lambda x, w: walk(x, w[START], update, chunk, read))


@pytest.mark.parametrize(("every", "chunk"), [(4, 4), (4, 8), (5, 5)])
@pytest.mark.parametrize("rule", ["gd", "dgd"])
def test_written_once_in_several_tokens(backend, rule, every, chunk):
    """The period's gradients at Mc are summed, each with its own rate; so is what erases; retention is a product."""
    level = f"objective: l2, rule: {rule}, rate: e, retain: a, chunk: {chunk}, read: chunk"
    text = spec(level).replace("every: 1 token", f"every: {every} tokens")

    def oracle(x, w):
        y = np.zeros(x["v"].shape, complex)
        for b, h in np.ndindex(BATCH, HEADS):
            M = Mc = w[START][h]
            for t in range(TOKENS):
                Mc = M if t % chunk == 0 else Mc
                if t % every == 0:
                    G, C, A = 0, 0, 1
                k, v, q, e, a = (x[n][b, t, h] for n in ("k", "v", "q", "e", "a"))
                G, C, A = G + e * outer(Mc @ k - v, k), C + e * outer(k, k), A * a
                y[b, t, h] = Mc @ q
                if (t + 1) % every == 0:
                    M = A * M - G - (M @ C if rule == "dgd" else 0)
        return {"y": y if any(np.iscomplexobj(z) for z in (*x.values(), *w.values())) else y.real}

    backend.run(text, flows(7)).agrees(oracle)


def test_several_heads_share_a_key(backend):
    """Key heads may divide value heads: one key for both."""
    level = "objective: l2, rule: gd, rate: e, retain: a, read: after"
    text = spec(level, "keys: 'heads(merge(k)[0:3], 1)', values: v")
    update = lambda M, Mc, M0, k, v, e, a: a * M - e * outer(Mc @ k - v, k)
    shared = lambda x: {**x, "k": np.repeat(x["k"][:, :, :1], HEADS, axis=2)}
    backend.run(text, flows(8)).agrees(lambda x, w: walk(shared(x), w[START], update, read="after"))


@pytest.mark.parametrize("start", ["zeros", "identity"])
def test_fixed_starts(backend, start):
    level, update = SYSTEMS["to_start"]
    M0 = np.zeros((HEADS, WIDTH, WIDTH)) + (I if start == "identity" else 0)
    ran = backend.run(spec(level + f", start: {start}"), flows(9))
    assert not ran.weights
    ran.agrees(lambda x, w: walk(x, M0, update, read="after"))


def test_vector_memory(backend):
    """form: vector, a map m * x: m <- a m - e (m k - v) k."""
    level = "objective: l2, rule: gd, rate: e, retain: a, read: after"
    text = spec(level).replace("form: matrix", "form: vector")

    def oracle(x, w):
        y = np.zeros(x["v"].shape, complex)
        for b, h in np.ndindex(BATCH, HEADS):
            m = w[START][h]
            for t in range(TOKENS):
                k, v, q, e, a = (x[n][b, t, h] for n in ("k", "v", "q", "e", "a"))
                m = a * m - e * (m * k - v) * k
                y[b, t, h] = m * q
        return {"y": y if any(np.iscomplexobj(z) for z in (*x.values(), *w.values())) else y.real}

    backend.run(text, flows(10)).agrees(oracle)


def test_identical_keys_at_rate_one(backend):
    """Repeated tokens: the worst case of every closed form."""
    x = flows(11, tokens=TOKENS)
    x["k"] = np.broadcast_to(x["k"][:, :1], x["k"].shape).copy()
    x["e"], x["a"] = np.full_like(x["e"], 0.99), np.full_like(x["a"], 0.999)
    level, update = SYSTEMS["deltanet"]
    ran = backend.run(spec(level), x)
    expected = walk(x, ran.weights[START], update, read="after")["y"]
    assert np.linalg.norm(ran.outputs["y"] - expected) < 1e-10 * np.linalg.norm(expected)
