"""A model and the batch it fails on -> where a number first stops being finite: weight, or memory, layer and token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


@torch.no_grad()
def first_place(model: nn.Module, tokens_BT: Tensor, targets_BT: Tensor) -> str:
    """Name the first thing that is not finite, reading ever shorter beginnings of the batch; "" when all of it is."""
    for name, weight in model.named_parameters():
        if not weight.isfinite().all():
            return f"weight '{name}'"
    fires = dict(getattr(model, "fires", {}))
    good, bad = 0, tokens_BT.shape[1]
    loss, place = look(model, tokens_BT, targets_BT)
    if loss and not place:
        return ""
    while bad - good > 1:
        middle = (good + bad) // 2
        finite, found = look(model, tokens_BT[:, :middle], targets_BT[:, :middle])
        if finite and not found:
            good = middle
        else:
            bad, place = middle, found or place
    getattr(model, "fires", {}).update(fires)
    where = f"token {bad - 1} (counted from 0)"
    if not place:
        return f"the loss of {where}; every memory is still finite"
    layer, _, memory = place.removeprefix("blocks.").partition(".")
    return f"'{memory}' of layer {layer}, at {where}"


def look(model: nn.Module, tokens_BT: Tensor, targets_BT: Tensor) -> tuple[bool, str]:
    """(whether the loss is finite, the first place of the state that is not)."""
    loss, state = model.loss(tokens_BT, targets_BT)
    return bool(loss.isfinite()), not_finite(state)


def not_finite(state: Mapping[str, Any]) -> str:
    for place, parts in state.items():
        if isinstance(parts, Mapping):
            for value in parts.values():
                if isinstance(value, Tensor) and value.is_floating_point() and not value.isfinite().all():
                    return place
    return ""
