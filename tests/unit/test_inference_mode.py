"""A model in torch.inference_mode(): the same as without gradients, whatever was made inside it."""

from __future__ import annotations

import torch

import nlc


def test_a_continuum_model_runs_in_inference_mode() -> None:
    sizes = {"sizes.width": 16, "sizes.heads": 2, "sizes.layers": 1, "sizes.context": 16}
    model = nlc.compile(nlc.load("hope_attention", set=sizes)).model(seed=0)
    tokens = torch.randint(256, (2, 90), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        _, state = model(tokens)
        right, after = model(tokens, state)
        loss, _ = model.loss(tokens, tokens, after)
    with torch.inference_mode():
        made = tokens.clone()
        _, state = model(made)
        inside = {place: {part: x.clone() for part, x in register.items()} for place, register in state.items()}
        logits, after = model(made, inside)
        assert torch.equal(model.loss(made, made, state=after)[0], loss)
    assert torch.equal(logits, right) and not logits.is_inference() and not logits.requires_grad
