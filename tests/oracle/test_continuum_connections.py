"""The continuum nested (NL 72) and independent (NL 74; reference section 4), written again in NumPy.

nested: where block l + 1 is written, block l begins again from the start that l + 1 holds for it; that start is written
then, by the rule and the rate of l + 1, from the sum over its period of the gradients at block l's running state.
independent: y = sum_l w_l B_l(x), learned w.
"""

from __future__ import annotations

import numpy as np
import pytest
from test_continuum import PARTS, backward, forward, head, text

NESTED = """
nlc: 1
name: nested
sizes: {{width: 4, heads: 1, layers: 1, vocab: 5, context: 64}}
levels:
  - name: cms
    objective: loss
    meta: {meta}
    memories:
      fast: {{form: 'mlp(hidden=3, norm=layernorm, bias=true)', every: 2 tokens, rate: learned(0.1), carry: mid}}
      mid: {{form: 'mlp(hidden=3, norm=layernorm, bias=true)', every: 4 tokens, rate: learned(0.2), carry: slow}}
      slow: {{form: 'mlp(hidden=3, norm=layernorm, bias=true)', every: 8 tokens, rate: learned(0.3)}}
  - {{name: train, every: 1 step, objective: loss, rule: adamw(lr=1e-3), memories: rest}}
block: |
  x = slow(mid(fast(x)))
"""
PERIODS = {"fast": 2, "mid": 4, "slow": 8}
HOLDERS = {"fast": ["mid", "slow"], "mid": ["slow"], "slow": []}


def nested(w, tokens, targets, meta):
    """nats of every token.  A chain of states for each block: its own, the start mid holds, the one slow holds."""
    nats = np.zeros(tokens.shape, complex)
    constant = np.real if meta == "first_order" else lambda g: g
    for b, row in enumerate(tokens):
        learned = {name: {p: w[f"blocks.0.cms.{name}.start.{p}"] for p in PARTS} for name in PERIODS}
        states = {name: [learned[name] for _ in (name, *HOLDERS[name])] for name in PERIODS}
        sums = {name: [dict.fromkeys(PARTS, 0) for _ in states[name]] for name in PERIODS}
        for t, token in enumerate(row):
            x, taps = w["embedding"][token], {}
            for name in PERIODS:
                x, taps[name] = forward(states[name][0], x)
            nats[b, t], error = head(w, x, targets[b, t])
            for name in reversed(PERIODS):
                grads, _, error = backward(states[name][0], taps[name], error)
                for gathered in sums[name]:
                    gathered.update({p: gathered[p] + constant(grads[p]) for p in PARTS})
            for name in PERIODS:
                written_by = [name, *HOLDERS[name]]
                for i, owner in enumerate(written_by):
                    if (t + 1) % PERIODS[owner] == 0:
                        rate = np.exp(w[f"blocks.0.cms.{owner}.rate"])
                        states[name][i] = {p: states[name][i][p] - rate * sums[name][i][p] for p in PARTS}
                        sums[name][i] = dict.fromkeys(PARTS, 0)
                for i in reversed(range(1, len(written_by))):  # a life ends with its holder's write
                    if (t + 1) % PERIODS[written_by[i]] == 0:
                        states[name][i - 1] = states[name][i]
                        sums[name][i - 1] = dict.fromkeys(PARTS, 0)
    return {"nats": nats if any(np.iscomplexobj(v) for v in w.values()) else nats.real}


@pytest.mark.parametrize("meta", ["full", "first_order"])
def test_nested_continuum(backend, meta):
    tokens, targets = text(19, 11)
    ran = backend.run(NESTED.format(meta=meta), tokens=tokens, targets=targets)
    ran.agrees(lambda x, w: nested(w, tokens, targets, meta))


INDEPENDENT = """
nlc: 1
name: independent
sizes: {width: 4, heads: 1, layers: 1, vocab: 5, context: 64}
levels:
  - name: cms
    objective: loss
    rate: learned(0.1)
    memories:
      fast: {form: 'mlp(hidden=3, norm=layernorm, bias=true)', every: 2 tokens}
      slow: {form: 'mlp(hidden=3, norm=layernorm, bias=true)', every: 5 tokens}
  - {name: train, every: 1 step, objective: loss, rule: adamw(lr=1e-3), memories: rest}
block: |
  w = param(2, start=0.5)
  x = w[0] * fast(x) + w[1] * slow(x)
"""


def test_independent_continuum(backend):
    tokens, targets = text(12, 12)
    periods = {"fast": 2, "slow": 5}

    def oracle(x, w):
        nats = np.zeros(tokens.shape, complex)
        share = dict(zip(periods, w["blocks.0.w.param"], strict=True))
        for b, row in enumerate(tokens):
            now = {name: {p: w[f"blocks.0.cms.{name}.start.{p}"] for p in PARTS} for name in periods}
            sums = {name: dict.fromkeys(PARTS, 0) for name in periods}
            for t, token in enumerate(row):
                read = {name: forward(now[name], w["embedding"][token]) for name in periods}
                y = sum(share[name] * out for name, (out, _) in read.items())
                nats[b, t], error = head(w, y, targets[b, t])
                for name, period in periods.items():
                    grads, _, _ = backward(now[name], read[name][1], share[name] * error)
                    sums[name] = {p: sums[name][p] + grads[p] for p in PARTS}
                    if (t + 1) % period == 0:
                        rate = np.exp(w[f"blocks.0.cms.{name}.rate"])
                        now[name] = {p: now[name][p] - rate * sums[name][p] for p in PARTS}
                        sums[name] = dict.fromkeys(PARTS, 0)
        return {"nats": nats if any(np.iscomplexobj(v) for v in w.values()) else nats.real}

    backend.run(INDEPENDENT, tokens=tokens, targets=targets).agrees(oracle)
