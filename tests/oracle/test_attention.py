"""Softmax attention, rope, convolution and prev against their equations (NL 62, 63; language.md sections 3 and 4)."""

import numpy as np
import pytest

HEADS, WIDTH, BATCH, TOKENS = 2, 4, 2, 13

SPEC = """
nlc: 1
name: cell
sizes: {{heads: 2, head: 4}}
inputs: {{k: {keys}, v: {keys}, q: [heads, head]}}
levels:
  - {{name: m, memories: {{look: {{form: '{form}', keys: {key}, values: v}}}}}}
block: |
  y = look({query})
outputs: [y]
"""


def flows(seed, key_heads=HEADS):
    rng = np.random.default_rng(seed)
    return {
        "k": rng.standard_normal((BATCH, TOKENS, key_heads, WIDTH)),
        "v": rng.standard_normal((BATCH, TOKENS, key_heads, WIDTH)),
        "q": rng.standard_normal((BATCH, TOKENS, HEADS, WIDTH)),
    }


def attend(x, w, sees, turn=lambda v, t: v):
    """softmax(q . k / sqrt(head)) over the tokens that `sees(t, s)` allows, and the persistent pairs."""
    y = np.zeros(x["q"].shape, complex)
    for b, t, h in np.ndindex(y.shape[:3]):
        kh = h // (HEADS // x["k"].shape[2])
        seen = [s for s in range(t + 1) if sees(t, s)]
        K = np.stack([turn(x["k"][b, s, kh], s) for s in seen])
        V = np.stack([x["v"][b, s, kh] for s in seen])
        if w:
            K = np.concatenate([w["blocks.0.m.look.persistent.k"][:, kh], K])
            V = np.concatenate([w["blocks.0.m.look.persistent.v"][:, kh], V])
        scores = K @ turn(x["q"][b, t, h], t) / np.sqrt(WIDTH)
        share = np.exp(scores - np.real(scores).max())
        y[b, t, h] = (share / share.sum()) @ V
    return {"y": y if any(np.iscomplexobj(z) for z in (*x.values(), *w.values())) else y.real}


FORMS = {
    "attention": lambda t, s: True,
    "attention(window=3)": lambda t, s: s > t - 3,
    "attention(segment=4)": lambda t, s: s // 4 == t // 4,
    "attention(persistent=2)": lambda t, s: True,
    "attention(window=2, persistent=3)": lambda t, s: s > t - 2,
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("key_heads", [HEADS, 1])
def test_attention_sees_its_window(backend, form, key_heads):
    text = SPEC.format(form=form, key="k", query="q", keys=f"[{key_heads}, head]")
    backend.run(text, flows(0, key_heads)).agrees(lambda x, w: attend(x, w, FORMS[form]))


def test_rope_turns_keys_and_queries(backend):
    """Pairs (i, i + d/2) turn by position * base^(-2 i / d)."""

    def turn(v, t):
        half = WIDTH // 2
        angle = t * 10000.0 ** (-np.arange(half) * 2 / WIDTH)
        a, b = v[:half], v[half:]
        return np.concatenate([a * np.cos(angle) - b * np.sin(angle), a * np.sin(angle) + b * np.cos(angle)])

    text = SPEC.format(form="attention(window=5)", key="rope(k)", query="rope(q)", keys="[heads, head]")
    backend.run(text, flows(1)).agrees(lambda x, w: attend(x, w, lambda t, s: s > t - 5, turn))


def test_convolution_and_prev(backend):
    """conv: taps on the last tokens, 0 before the first; prev may feed itself."""
    text = """
nlc: 1
name: cell
sizes: {head: 4}
inputs: {x: [head]}
block: |
  c = conv(x, 3)
  s = tanh(c + 0.5 * prev(s) - prev(x))
outputs: [c, s]
"""

    def oracle(x, w):
        kernel, x = w["blocks.0.c.conv"], x["x"]
        c, s = np.zeros(x.shape, complex), np.zeros(x.shape, complex)
        for t in range(TOKENS):
            c[:, t] = sum(kernel[2 - j] * x[:, t - j] for j in range(3) if t >= j)
            s[:, t] = np.tanh(c[:, t] + (0.5 * s[:, t - 1] - x[:, t - 1] if t else 0))
        real = not (np.iscomplexobj(kernel) or np.iscomplexobj(x))
        return {"c": c.real if real else c, "s": s.real if real else s}

    rng = np.random.default_rng(2)
    backend.run(text, {"x": rng.standard_normal((BATCH, TOKENS, 4))}).agrees(oracle)
