"""Self-referential Titans against NL 83-93 (reference section 3): keys, values, rate and retention are read from
memories that write themselves, with values they generate themselves."""

import numpy as np
import pytest

HEADS, WIDTH, BATCH, TOKENS = 2, 3, 2, 19
BOXES = ("key", "value", "eta", "alpha", "memory")

SPEC = """
nlc: 1
name: cell
sizes: {{heads: 2, head: 3}}
inputs: {{u: [heads, head], q: [heads, head]}}
levels:
  - name: titans
    every: 1 token
    chunk: {chunk}
    objective: {objective}
    rule: {rule}
    rate: sigmoid(linear(eta(u), out=1))
    retain: sigmoid(linear(alpha(u), out=1) + 2)
    retain_to: {to}
    memories:
      key:    {{form: matrix, keys: k, values: key(v)}}
      value:  {{form: matrix, keys: k, values: value(v)}}
      eta:    {{form: matrix, keys: k, values: eta(v)}}
      alpha:  {{form: matrix, keys: k, values: alpha(v)}}
      memory: {{form: matrix, keys: k, values: memory(v), chunk: {outer_chunk}, read: {read}}}
block: |
  k = l2norm(key(u))
  v = l2norm(value(u))
  o = memory(q)
outputs: [o]
"""


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def unit(x):
    return x / np.sqrt((x * x).sum())


def cell(x, w, chunk, outer_chunk, objective, rule, to, read):
    """Per token everything is read at its memory's first state of the chunk; then every box writes the shared pair."""
    start = {box: w[f"blocks.0.titans.{box}.start"] for box in BOXES}
    rate, retain = w["blocks.0.titans.rate.linear"], w["blocks.0.titans.retain.linear"]
    y = np.zeros(x["u"].shape, complex)
    for b, h in np.ndindex(BATCH, HEADS):
        now = {box: start[box][h] for box in BOXES}
        held = dict(now)
        for t in range(TOKENS):
            for box in BOXES:
                if t % (outer_chunk if box == "memory" else chunk) == 0:
                    held[box] = now[box]
            u, q = x["u"][b, t, h], x["q"][b, t, h]
            k, v = unit(held["key"] @ u), unit(held["value"] @ u)
            e = sigmoid(rate[h, 0] @ (held["eta"] @ u))
            a = sigmoid(retain[h, 0] @ (held["alpha"] @ u) + 2)
            new = {}
            for box in BOXES:
                target = held[box] @ v  # self-generated
                error = held[box] @ k - target if objective == "l2" else -target
                new[box] = a * now[box] - e * np.multiply.outer(error, k)
                if rule == "dgd":
                    new[box] = new[box] - e * now[box] @ np.multiply.outer(k, k)
                if to == "start":
                    new[box] = new[box] + (1 - a) * start[box][h]
            y[b, t, h] = {"chunk": held, "before": now, "after": new}[read]["memory"] @ q
            now = new
    complex_in = any(np.iscomplexobj(z) for z in (*x.values(), *w.values()))
    return {"o": y if complex_in else y.real}


@pytest.mark.parametrize(
    ("chunk", "outer_chunk", "objective", "rule", "to", "read"),
    [
        (1, 1, "l2", "dgd", "zero", "before"),
        (4, 4, "l2", "dgd", "zero", "chunk"),
        (4, 4, "l2", "dgd", "start", "chunk"),
        (4, 4, "l2", "dgd", "start", "after"),
        (16, 16, "l2", "dgd", "start", "before"),
        (8, 4, "l2", "dgd", "start", "chunk"),
        (4, 4, "dot", "dgd", "start", "chunk"),
        (4, 4, "l2", "gd", "zero", "after"),
    ],
)
def test_five_boxes(backend, chunk, outer_chunk, objective, rule, to, read):
    settings = {"chunk": chunk, "outer_chunk": outer_chunk, "objective": objective, "rule": rule, "to": to}
    settings["read"] = read
    rng = np.random.default_rng(3)
    inputs = {name: rng.standard_normal((BATCH, TOKENS, HEADS, WIDTH)) for name in ("u", "q")}
    ran = backend.run(SPEC.format(**settings), inputs)
    ran.agrees(lambda x, w: cell(x, w, **settings))
