"""Which self-referential memories are one shared matrix product: not those with something of the token in the way."""

from __future__ import annotations

import pytest
import torch

from nlc.compile import compile
from nlc.graph.nodes import Recurrence
from nlc.spec import loads

CELL = """
nlc: 1
name: cell
sizes: {width: 8, heads: 2, layers: 1, vocab: 11, context: 16}
levels:
  - name: cell
    every: 1 token
    chunk: 4
    rule: dgd
    rate: 0.1
    memories:
      key: {form: matrix, keys: k, values: key(v)}
      memory: {form: matrix, keys: k, values: memory(v)}
  - {name: train, every: 1 step, objective: loss, rule: adamw(lr=4e-3), memories: rest}
block: |
  u = heads(rmsnorm(x))
  q = l2norm(heads(linear(rmsnorm(x))))
  k = l2norm(KEY)
  v = l2norm(u)
  x = x + linear(merge(memory(q)))
"""


@pytest.mark.parametrize(
    ("key", "lowering", "reason"),
    [
        ("key(u)", "shared_product", "multiplied by the same matrices"),
        ("silu(linear(key(u)))", "shared_product", "multiplied by the same matrices"),
        ("rope(key(u))", "loop", "rope inside the loop turns by where the token stands"),
        ("dropout(key(u), 0.1)", "loop", "dropout inside the loop is drawn once"),
        ("prev(key(u))", "loop", "prev inside the loop needs the token before"),
    ],
)
def test_what_stands_between_a_read_and_a_key_decides(key: str, lowering: str, reason: str) -> None:
    program = compile(loads(CELL.replace("KEY", key), "cell.yaml"))
    recurrence = program.graph.of(Recurrence)[0]
    assert (recurrence.lowering, reason in recurrence.reason) == (lowering, True)
    model = program.model(seed=0, dtype=torch.float64).train()
    tokens = torch.arange(20).reshape(2, 10) % 11
    loss, _ = model.loss(tokens[:, :-1], tokens[:, 1:])
    loss.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
