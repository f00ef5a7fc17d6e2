"""Systems whose write is more than one line of test_matrix.py, and systems that are special cases of one another.

M acts as M x; e is the rate, a the share kept, q the query, which reads the state after the token's own write.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from ruamel.yaml import YAML

import nlc
from tests.oracle.test_mlp import gelu, gelu_slope
from tests.oracle.test_retention import memora, moneta, yaad

ROOT = Path(__file__).parents[2]
HEADS, WIDTH, BATCH, TOKENS = 2, 3, 2, 11
START = "blocks.0.m.memory.start"
Arrays = dict[str, np.ndarray]

SPEC = """
nlc: 1
name: cell
sizes: {{heads: 2, head: 3}}
inputs: {{k: [heads, head], v: [heads, head], q: [heads, head], e: [heads], a: [heads]}}
{more}
levels:
  - {{name: m, every: 1 token, {level}, memories: {{memory: {{form: {form}, keys: k, values: v}}}}}}
block: |
  y = memory(q) + 0 * (k + v + e * q + a * q)
outputs: [y]
"""


def cell(level: str, form: str = "matrix", more: str = "") -> str:
    return SPEC.format(level=level, form=form, more=more)


def flows(seed: int = 0) -> Arrays:
    rng = np.random.default_rng(seed)
    wide = (BATCH, TOKENS, HEADS, WIDTH)
    k = rng.standard_normal(wide)
    return {
        "k": k / np.linalg.norm(k, axis=-1, keepdims=True),
        "v": rng.standard_normal(wide),
        "q": rng.standard_normal(wide),
        "e": rng.uniform(0.1, 0.6, wide[:3]),
        "a": rng.uniform(0.7, 1.0, wide[:3]),
    }


def by_token(x: Arrays, begin: Callable, write: Callable, read: Callable = lambda state, q: state @ q) -> Arrays:
    """Every sequence and head by itself; `write(state, t, k, v, e, a)` gives the state that token t reads."""
    y = np.zeros(x["v"].shape, complex)
    for b, h in np.ndindex(y.shape[0], y.shape[2]):
        state = begin(h)
        for t in range(y.shape[1]):
            state = write(state, t, *(x[n][b, t, h] for n in ("k", "v", "e", "a")))
            y[b, t, h] = read(state[0] if isinstance(state, tuple) else state, x["q"][b, t, h])
    return {"y": y}


def real(oracle: Callable[[Arrays, Arrays], Arrays]) -> Callable[[Arrays, Arrays], Arrays]:
    """Real arrays where nothing that went in is complex."""

    def found(x: Arrays, w: Arrays) -> Arrays:
        complex_ = any(np.iscomplexobj(z) for z in (*x.values(), *w.values()))
        return {name: y if complex_ else y.real for name, y in oracle(x, w).items()}

    return found


def size(x: np.ndarray) -> np.ndarray:
    """|x|, with a derivative."""
    return np.where(np.real(x) < 0, -x, x)


def softmax(x: np.ndarray) -> np.ndarray:
    share = np.exp(x - np.real(x).max(-1, keepdims=True))
    return share / share.sum(-1, keepdims=True)


def outer(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.multiply.outer(a, b)


# ---- retentions of one's own -----------------------------------------------------------------------------------------


def rules_of(spec: str) -> str:
    """The `rules:` of a shipped spec, as text for a cell."""
    lines = (ROOT / "specs" / "architectures" / f"{spec}.yaml").read_text().splitlines()
    first = lines.index("rules:")
    last = next(i for i in range(first + 1, len(lines)) if lines[i] and not lines[i].startswith(" "))
    return "\n".join(lines[first:last])


def test_lattice_keeps_its_slots_on_the_sphere(backend):
    """s <- normalised(s - e (I - s s^T) g) for every slot s, a column of M, and its gradient g."""

    def write(M, t, k, v, e, a):
        G = outer(M @ k - v, k)
        M = M / np.sqrt((M * M).sum(0))  # the start's columns are no slots yet
        M = M - e * (G - (G * M).sum(0) * M)
        return M / np.sqrt((M * M).sum(0))

    text = cell("objective: l2, rule: sphere, rate: e, read: after")
    ran = backend.run(text, flows())
    ran.agrees(real(lambda x, w: by_token(x, lambda h: w[START][h], write)))
    assert np.allclose(np.linalg.norm(ran.state["blocks.0.m.memory"]["M"], axis=-2), 1)


def test_moneta_retains_in_the_q_norm(backend):
    """MIRAS: A <- a A - e G of 1/3 |M k - v|^3;  M = A / |A|_4^2, and A begins as M does."""

    def write(state, t, k, v, e, a):
        M, A = state
        error = M @ k - v
        A = a * A - e * outer(error * size(error), k)
        return A / np.sqrt((A**4).sum()), A

    text = cell("objective: lp(3), rule: lq(q=4), rate: e, retain: a, read: after")
    backend.run(text, flows(1)).agrees(real(lambda x, w: by_token(x, lambda h: (w[START][h],) * 2, write)))


MIRAS = {  # the slope in e = M(k) - v, and what becomes of each layer: (A, W, G, a, e, first) -> (A, W)
    "moneta": (lambda e, d: e * size(e), moneta),
    "yaad": (lambda e, d: e * np.where(np.real(length := np.sqrt((e * e).sum())) <= np.real(d), 1, d / length), yaad),
    "memora": (lambda e, d: e, memora),
}


@pytest.mark.parametrize("chunk", [1, 4])
@pytest.mark.parametrize("name", MIRAS)
def test_miras(backend, name, chunk):
    """The three memories as they are shipped, y = k + LN(W_1 gelu(W_2 k)): objective and retention by hand."""
    slope, keep = MIRAS[name]
    (level, _), forms = (nlc.load(name).model.levels, nlc.load(name).model.forms)
    base = "blocks.0.m.memory"

    def parts(W_1, W_2, x):
        z = W_2 @ x
        o = W_1 @ gelu(z)
        deviation = np.sqrt(((o - o.mean()) ** 2).mean() + 1e-5)
        return (o - o.mean()) / deviation, deviation, z

    def oracle(x, w):
        gain, shift = w[f"{base}.form.y.layernorm"], w[f"{base}.form.y.layernorm_bias"]

        def write(state, t, k, v, e, a):
            W, A, held = state
            held = W if t % chunk == 0 else held
            n, deviation, z = parts(*held, k)
            u = slope(k + gain * n + shift - v, 3 * a) * gain
            d = (u - u.mean() - n * (u * n).mean()) / deviation
            G = outer(d, gelu(z)), outer(held[0].T @ d * gelu_slope(z), k)
            A, W = zip(*(keep(*layer, a, e, t == 0) for layer in zip(A, W, G, strict=True)), strict=True)
            return W, A, held

        def read(state, q):
            return q + gain * parts(*state, q)[0] + shift

        begin = lambda h: ((w[f"{base}.start.W_1"][h], w[f"{base}.start.W_2"][h]),) * 3
        return by_token(x, begin, write, read)

    more = f"forms: {{miras: {{state: {{W_1: [out, 4 * in], W_2: [4 * in, in]}}, do: '{forms['miras'].do}'}}}}"
    fields = f"objective: '{level.objective}', rule: {level.rule}, rate: e, retain: a, chunk: {chunk}, read: after"
    text = cell(fields, form="miras", more=more).replace("block: |", "block: |\n  d = 3 * a")
    backend.run(text, flows(4)).agrees(real(oracle))


def test_memora_retains_in_divergence(backend):
    """MIRAS: M <- softmax(a log M - e G), whose start holds logits; softmax(log M) of the one before is M itself."""

    def write(M, t, k, v, e, a):
        logits = np.log(M) if t else M
        return softmax(a * logits - e * outer(M @ k - v, k))

    text = cell("objective: l2, rule: kl, rate: e, retain: a, read: after")
    ran = backend.run(text, flows(2))
    ran.agrees(real(lambda x, w: by_token(x, lambda h: w[START][h], write)))
    assert np.allclose(ran.state["blocks.0.m.memory"]["M"].sum(-1), 1)


# ---- forms and flows -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1, 4])
def test_ttt_linear(backend, chunk):
    """y = x + gain normalised(W x + b) + bias, the inner gradient by hand; gain and bias are not the memory's own."""

    def parts(W, b, x):
        z = W @ x + b
        deviation = np.sqrt(((z - z.mean()) ** 2).mean() + 1e-5)
        return (z - z.mean()) / deviation, deviation

    def oracle(x, w):
        base = "blocks.0.m.memory"
        gain, shift = w[f"{base}.form.y.layernorm"], w[f"{base}.form.y.layernorm_bias"]

        def write(state, t, k, v, e, a):
            (W, b), held = state
            held = (W, b) if t % chunk == 0 else held
            n, deviation = parts(*held, k)
            u = (k + gain * n + shift - v) * gain
            d = (u - u.mean() - n * (u * n).mean()) / deviation
            return (W - e * outer(d, k), b - e * d), held

        def read(state, q):
            return q + gain * parts(*state, q)[0] + shift

        begin = lambda h: ((w[f"{base}.start.W"][h], w[f"{base}.start.b"][h]),) * 2
        return by_token(x, begin, write, read)

    forms = YAML(typ="safe").load(ROOT / "specs" / "architectures" / "ttt_linear.yaml")["forms"]
    more = f"forms: {{ttt: {{state: {{W: [out, in], b: [out]}}, do: '{forms['ttt']['do']}'}}}}"
    text = cell(f"objective: l2, rate: e, chunk: {chunk}, read: after", form="ttt", more=more)
    backend.run(text, flows(3)).agrees(real(oracle))


def test_a_selective_state_space(backend):
    """Mamba's S6: h <- a h + step x B, y = C h, for each channel its own row of states with a share kept each."""
    text = """
nlc: 1
name: cell
sizes: {inner: 4, state: 3}
inputs: {x: [inner], B: [state], C: [state], step: [inner], a: [inner, state]}
levels:
  - {name: m, every: 1 token, objective: dot, rate: step, retain: a, read: after, start: zeros,
     memories: {memory: {form: matrix, keys: 'heads(B, 1)', values: 'heads(x, inner)'}}}
block: |
  y = merge(memory(heads(C, 1)))
outputs: [y]
"""

    def oracle(x, w):
        h, y = np.zeros((BATCH, 4, 3)), []
        for t in range(TOKENS):
            h = x["a"][:, t] * h + (x["step"][:, t] * x["x"][:, t])[..., None] * x["B"][:, t, None]
            y.append((h * x["C"][:, t, None]).sum(-1))
        return {"y": np.stack(y, 1)}

    rng = np.random.default_rng(4)
    shapes = {"x": (4,), "B": (3,), "C": (3,), "step": (4,), "a": (4, 3)}
    given = {name: rng.standard_normal((BATCH, TOKENS, *shape)) for name, shape in shapes.items()}
    given["a"] = rng.uniform(0.5, 1.0, given["a"].shape)
    backend.run(text, given).agrees(oracle)


def test_trellis_compresses_in_two_passes(backend):
    """Both passes: M <- a M - e G(a M), of keys to slots and of slots to values; the read passes through both."""
    text = """
nlc: 1
name: cell
sizes: {heads: 2, head: 3, slots: 4}
inputs: {k: [heads, head], v: [heads, head], q: [heads, head], slot: [heads, slots], e: [heads], a: [heads]}
levels:
  - {name: m, every: 1 token, objective: l2, grad_at: kept, rate: e, retain: a, read: after, start: zeros, form: matrix,
     memories: {address: {keys: k, values: slot}, content: {keys: slot, values: v}}}
block: |
  y = content(softmax(address(q)))
outputs: [y]
"""
    rng = np.random.default_rng(5)
    given = flows(5) | {"slot": softmax(rng.standard_normal((BATCH, TOKENS, HEADS, 4)))}

    def oracle(x, w):
        y = np.zeros(x["v"].shape, complex)
        for b, h in np.ndindex(BATCH, HEADS):
            A, C = np.zeros((4, 3)), np.zeros((3, 4))
            for t in range(TOKENS):
                k, v, q, s, e, a = (x[n][b, t, h] for n in ("k", "v", "q", "slot", "e", "a"))
                A = a * A - e * outer(a * A @ k - s, k)
                C = a * C - e * outer(a * C @ s - v, s)
                y[b, t, h] = C @ softmax(A @ q)
        return {"y": y}

    backend.run(text, given).agrees(real(oracle))


def test_titans_memory_as_context(backend):
    """Titans 21-25: a segment attends to its tokens and to what memory recalls; memory learns what attention gave."""
    segment = 4
    text = f"""
nlc: 1
name: cell
sizes: {{heads: 2, head: 3}}
inputs: {{k: [heads, head], v: [heads, head], q: [heads, head], e: [heads], a: [heads]}}
levels:
  - {{name: m, every: 1 token, chunk: {segment}, rate: e, retain: a,
     memories: {{memory: {{form: matrix, keys: y, values: v}}}}}}
  - {{name: n, memories: {{near: {{form: attention(segment={segment}), keys: [recalled, k],
                                values: [recalled, v]}}}}}}
block: |
  recalled = memory(q)
  y = near(q)
  z = y * memory(y, read=after)
outputs: [z]
"""

    def oracle(x, w):
        z = np.zeros(x["v"].shape, complex)
        for b, h in np.ndindex(BATCH, HEADS):
            M = w[START][h]
            for t in range(TOKENS):
                if t % segment == 0:
                    held, keys, values = M, [], []
                k, v, q, e, a = (x[n][b, t, h] for n in ("k", "v", "q", "e", "a"))
                recalled = held @ q
                keys, values = [*keys, recalled, k], [*values, recalled, v]
                y = softmax(np.stack(keys) @ q / np.sqrt(WIDTH)) @ np.stack(values)
                M = a * M - e * outer(held @ y - v, y)
                z[b, t, h] = y * (M @ y)
        return {"z": z}

    backend.run(text, flows(6)).agrees(real(oracle))


# ---- special cases coincide ------------------------------------------------------------------------------------------

DELTANET = "objective: l2, rule: gd, rate: e, read: after"
PAIRS = {
    "gated_deltanet with retention 1 is deltanet": (
        "objective: l2, rule: gd, grad_at: kept, rate: e, retain: 0 * a + 1, read: after",
        DELTANET,
    ),
    "dgd with dot and retention 1 is deltanet at chunk 1": (
        "objective: dot, rule: dgd, rate: e, retain: 0 * a + 1, read: after",
        DELTANET,
    ),
    "retnet is mamba2 with a fixed retention": (
        "objective: dot, rule: gd, retain: 1 - 2 ** (-5 - index(heads)), read: after",
        "objective: dot, rule: gd, rate: 0 * e + 1, retain: 0 * a + 31 / 32 + index(heads) / 64, read: after",
    ),
    "huber with a large threshold is titans without momentum": (
        "objective: huber(1e6), rule: gd, rate: e, retain: a, read: after",
        "objective: l2, rule: momentum(beta=0), rate: e, retain: a, read: after",
    ),
    "a window of one pair is no window": ("objective: l2, window: 1, rate: e, read: after", DELTANET),
}


@pytest.mark.parametrize("claim", PAIRS)
def test_special_cases_coincide(backend, claim):
    """Outputs and gradients of both are equal."""
    mine, its = (backend.run(cell(level), flows(7)) for level in PAIRS[claim])
    assert np.allclose(mine.outputs["y"], its.outputs["y"], rtol=0, atol=1e-10)
    for name in ("k", "v", "q"):
        assert np.allclose(mine.input_gradients[name], its.input_gradients[name], rtol=0, atol=1e-10), name
    assert np.allclose(mine.gradients[START], its.gradients[START], rtol=0, atol=1e-10)


def test_rwkv7_removes_along_one_vector_and_writes_along_another(backend):
    """S <- S (diag(w) - c (a c)^T) + v k^T, with a share w and a rate a for every key channel."""
    text = f"""
nlc: 1
name: cell
sizes: {{heads: 2, head: 3}}
inputs: {{k: [heads, head], v: [heads, head], q: [heads, head], c: [heads, head], a: [heads, head], w: [heads, head]}}
{rules_of("rwkv7")}
levels:
  - {{name: m, every: 1 token, objective: dot, rule: 'generalised_delta(remove=c, along=a * c)', retain: w, read: after,
     memories: {{memory: {{form: matrix, keys: k, values: v}}}}}}
block: |
  y = memory(q)
outputs: [y]
"""
    rng = np.random.default_rng(8)
    wide = (BATCH, TOKENS, HEADS, WIDTH)
    given = {name: x for name, x in flows(8).items() if name in ("k", "v", "q")}
    given |= {"c": flows(9)["k"], "a": rng.uniform(0.1, 0.9, wide), "w": rng.uniform(0.6, 1.0, wide)}

    def oracle(x, w):
        y = np.zeros(wide, complex)
        for b, h in np.ndindex(BATCH, HEADS):
            S = w[START][h]
            for t in range(TOKENS):
                k, v, q, c, a, share = (x[n][b, t, h] for n in ("k", "v", "q", "c", "a", "w"))
                S = S @ (np.diag(share) - outer(c, a * c)) + outer(v, k)
                y[b, t, h] = S @ q
        return {"y": y}

    backend.run(text, given).agrees(real(oracle))


@pytest.mark.parametrize("opened", [True, False], ids=["gates open", "gates shut"])
def test_rwkv7_mixes_the_values_of_the_first_layer_into_later_ones(opened):
    """v = own + gate (v0 - own): at gate 1 a layer's own values reach nothing, at 0 those of the first layer do not."""
    sizes = {"sizes.width": 8, "sizes.heads": 2, "sizes.vocab": 11, "sizes.context": 12}
    model = nlc.compile("rwkv7", set=sizes).model(seed=0, dtype=torch.float64)
    weights, draw = dict(model.named_parameters()), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for x in weights.values():
            x.copy_(0.3 * torch.randn(x.shape, generator=draw, dtype=x.dtype))
        weights["blocks.1.x.linear"].zero_()  # the first layer gives its values to no one but through v0
        for later in (2, 4, 6):
            weights[f"blocks.{later}.gate.linear_bias"].fill_(800 if opened else -800)
    tokens = torch.randint(11, (2, 13), generator=draw)
    loss, _ = model.loss(tokens[:, :-1], tokens[:, 1:])
    first, *own = torch.autograd.grad(loss, [weights[f"blocks.{layer}.v.linear"] for layer in (0, 2, 4, 6)])
    assert bool(first.any()) is opened
    assert all(bool(g.any()) is not opened for g in own)
