"""What a trained model writes: a prompt of validation text, and tokens that it draws itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from runtime import checkpoint, data, program
from runtime.directory import RunDirectory
from runtime.errors import RunError
from runtime.numerics import subnormals_flushed

PROMPT = 64  # tokens


@torch.no_grad()
def samples(model: nn.Module, prompt_P: Tensor, count: int, temperatures: Sequence[float], seed: int = 0) -> Tensor:
    """(len(temperatures), count) tokens after a prompt, one row a temperature; 0 takes the likeliest token.

    p(token) = softmax(logits / temperature); every memory inside a sequence learns from what it reads.
    """
    random = torch.Generator().manual_seed(seed)
    logits, state = model(prompt_P.expand(len(temperatures), -1))
    made = []
    for _ in range(count):
        rows = zip(logits[:, -1].cpu(), temperatures, strict=True)
        chosen = [row.argmax() if t == 0 else torch.multinomial((row / t).softmax(-1), 1, generator=random)[0]
                  for row, t in rows]  # fmt: skip
        made.append(torch.stack(chosen).to(prompt_P.device))
        logits, state = model(made[-1][:, None], state)
    return torch.stack(made, 1)


def write_samples(
    directory: RunDirectory,
    lock: Mapping[str, Any],
    count: int,
    temperatures: Sequence[float],
    warn: Callable[[str], None] = lambda message: None,
) -> tuple[Path, str, list[str]]:
    """A run's newest whole checkpoint, the prompt, and what it writes after it.  Raises RunError."""
    if "task" in lock.get("data", {}):
        raise RunError("a run that learned a task writes no text")
    place = checkpoint.newest(directory.checkpoints, warn)
    text = data.again(lock.get("data", {}), run=directory.path, note=lambda message: None)
    weights = checkpoint.read(place).weights
    try:
        train = program.load(directory.code)
        model = train.build(seed=0)
        model.load_state_dict(weights)
        prompt_P = text.validation.tokens[: min(PROMPT, train.settings.context)].long()
        with subnormals_flushed():
            made = samples(model.eval(), prompt_P, count, temperatures)
    except RunError:
        raise
    except Exception as error:  # the program of a run may be of another version, or edited
        message = f"the program of this run does not go with this nlc: {type(error).__name__}: {error}"
        raise RunError(message) from None
    return place, words(text, prompt_P.tolist()), [words(text, row.tolist()) for row in made]


def words(text: data.Data, ids: list[int]) -> str:
    """Tokens as text: by the tokenizer, or as the bytes they are."""
    if text.tokenizer is not None:
        return text.tokenizer.text(ids)
    return bytes(i for i in ids if i < 256).decode("utf-8", errors="replace")
