"""Special cases of the continuum (reference section 4): one block that tokens never write is the Transformer's mlp.

The weights are the Transformer's, by their names; outputs and every gradient are equal.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import nlc

SMALL = {"sizes.width": 16, "sizes.layers": 2, "sizes.heads": 2, "sizes.vocab": 20, "sizes.context": 32}
ATTENTION = """
  h = rmsnorm(x)
  q = rope(heads(linear(h)))
  k = rope(heads(linear(h)))
  v = heads(linear(h))
  x = x + linear(merge(memory(q)))
  m = rmsnorm(x)
"""
HOPE = f"""
nlc: 1
extends: hope_attention
name: never
levels:
  - name: cms
    memories:
      fast: {{form: FORM, every: never}}
      mid: null
      slow: null
block: |{ATTENTION}  x = x + fast(m)
"""
MLP = f"""
nlc: 1
extends: transformer
name: mlp
block: |{ATTENTION}  x = x + linear(gelu(linear(m, out=4*width)), out=width)
"""
SWIGLU = {"W_out": "x.linear_2", "W_gate": "x.linear_3", "W_in": "x.linear_4"}
GELU = {"W_out": "x.linear_2", "W_in": "x.linear_3"}


@pytest.mark.parametrize(
    ("form", "transformer", "names"),
    [("'swiglu(hidden=3x, residual=false)'", "", SWIGLU), ("'mlp(hidden=4x, residual=false)'", MLP, GELU)],
    ids=["hope_attention with one swiglu is the transformer", "one block of the continuum is the mlp"],
)
def test_a_continuum_that_is_never_written(tmp_path, form: str, transformer: str, names: dict[str, str]) -> None:
    for name, text in (("never", HOPE.replace("FORM", form)), ("mlp", transformer)):
        (tmp_path / f"{name}.yaml").write_text(text)
    one = nlc.compile(tmp_path / "mlp.yaml" if transformer else "transformer", set=SMALL).model(dtype=torch.float64)
    other = nlc.compile(tmp_path / "never.yaml", set=SMALL).model(dtype=torch.float64)
    draw = torch.Generator().manual_seed(0)
    for weight in one.parameters():
        weight.data.copy_(torch.randn(weight.shape, generator=draw, dtype=torch.float64) / 4)

    def there(name: str) -> str:
        head, memory, part = name.partition("cms.fast.start.")
        return head + names[part] if memory else name

    mine = dict(one.named_parameters())
    assert {there(name) for name, _ in other.named_parameters()} == set(mine)
    other.load_state_dict({name: mine[there(name)].detach() for name in other.state_dict()})
    tokens, targets = torch.randint(20, (2, 2, 23), generator=draw)

    def computed(model: torch.nn.Module) -> tuple[Tensor, dict[str, Tensor]]:
        nats, _ = model.nats(tokens, targets)
        nats.mean().backward()
        return nats, {name: p.grad for name, p in model.named_parameters()}

    (right, by_mine), (found, by_other) = computed(one), computed(other)
    torch.testing.assert_close(found, right, rtol=1e-13, atol=0)
    for name, grad in by_other.items():
        torch.testing.assert_close(grad, by_mine[there(name)], rtol=1e-11, atol=1e-13)
