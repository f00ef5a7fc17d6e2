"""A trained Transformer becomes a HOPE: equal to the bit while its memories' rates are 0, and then it learns on."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch

from tests.e2e.command import ROOT, Run

SMALL = {"sizes.width": 16, "sizes.layers": 2, "sizes.context": 24, "run.batch": 2, "run.warmup": 1, "run.steps": 4}
FAST = {"levels.cms.memories.fast.every": "8 tokens", "levels.cms.memories.mid.every": "16 tokens"}


def documented() -> str:
    """The spec that docs/language.md shows."""
    text = (ROOT / "docs" / "language.md").read_text(encoding="utf-8")
    (found,) = (b for b in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "\nname: grown\n" in b)
    return found


def words(settings: dict[str, object]) -> list[str]:
    return [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]


def test_a_trained_transformer_becomes_hope(nlc: Run) -> None:
    """NL, section 7.3."""
    from nlc.compile import compile
    from nlc.interpret import interpret

    Path("corpus.txt").write_text("the rain in spain stays mainly in the plain. " * 200)
    Path("grown.yaml").write_text(documented())
    trained = train(nlc, "transformer", "transformer", *words(SMALL))
    assert trained["steps"] == 4

    text = torch.randint(256, (2, 40), generator=torch.Generator().manual_seed(0))
    begins = {"levels.train.start": "from(checkpoint:runs/transformer)"}
    before = compile("transformer", set=SMALL | begins)
    after = compile("grown.yaml", set=SMALL | FAST | {"levels.cms.rate": 0})
    taught = torch.randint(256, (2, 40), generator=torch.Generator().manual_seed(1))
    for dtype in (torch.float32, torch.float64):
        old, new = (p.model(dtype=dtype) for p in (before, after))
        assert torch.equal(new(text)[0], old(text)[0])
        with torch.no_grad():
            assert torch.equal(new(text)[0], old(text)[0])
            assert torch.equal(*(in_pieces(model, text, (7, 1, 1, 20, 11)) for model in (new, old)))
            assert torch.equal(*(model.loss(text, taught, final=True)[0] for model in (new, old)))
    meant = [
        interpret(p.graph, m.state_dict(), text[:1, :20], gradients=False).logits
        for p, m in ((before, old), (after, new))
    ]
    assert torch.equal(*meant)

    grown = train(nlc, "grown.yaml", "h", *words(SMALL | FAST))
    assert "20 weights begin as in runs/transformer/checkpoints/step-000004" in grown["said"]
    assert "blocks.*.cms.fast.start.W_in begins as blocks.*.x.linear_4" in grown["said"]
    assert grown["val_loss"] < trained["val_loss"]  # four steps more
    assert grown["fires"]["cms.fast"] == 4 * 3


def in_pieces(model: Any, text: torch.Tensor, lengths: tuple[int, ...]) -> torch.Tensor:
    """Logits of a text fed in pieces, each from the state that the one before it left."""
    found, state = [], None
    for piece in text.split(lengths, 1):
        logits, state = model(piece, state=state)
        found.append(logits)
    return torch.cat(found, 1)


def train(nlc: Run, spec: str, name: str, *options: str) -> dict[str, Any]:
    ended = nlc("train", spec, "--name", name, "--data", "corpus.txt", "--json", *options)
    assert ended.status == 0, ended.err
    found: dict[str, Any] = json.loads(ended.out)
    return found | {"said": ended.err}
