"""Tiny models behind a session, and what two sessions must agree on."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from nlc.compile import Program, compile
from nlc.spec import load
from nlc.verify.judge import perturbed
from runtime.session import Session, Trained, find

LENGTH = 500
TOLERANCE = 1e-12  # relative, in float64: the splits differ in the order of a few sums

# Heads are eight wide: a key of four numbers may come close to 0, and what normalises it then makes rounding grow.
TINY = {"sizes.width": "16", "sizes.heads": "2", "sizes.layers": "2", "run.batch": "2"}
CONTINUUM = {"levels.cms.memories.fast.every": "24 tokens", "levels.cms.memories.mid.every": "96 tokens"}
SPECS: dict[str, dict[str, str]] = {
    "hope": CONTINUUM,
    "hope_attention": CONTINUUM,
    "titans_lmm": {},
}


def package(name: str, folder: Path) -> tuple[Path, Path]:
    """A compiled package, and a file of weights off their special starts so that every memory matters."""
    program = compile(load(name, {**TINY, **SPECS[name]}), folder / name)
    return folder / name, weights_of(program, folder / f"{name}.safetensors")


def weights_of(program: Program, file: Path, perturb: bool = True) -> Path:
    model = program.model(seed=1, dtype=torch.float64)
    made = perturbed(model, 1) if perturb else model
    save_file({name: w.contiguous() for name, w in made.state_dict().items()}, file)
    return file


def trained(made: tuple[Path, Path]) -> Trained:
    return find(made[0], weights=made[1], dtype=torch.float64)


def text(length: int = LENGTH) -> Tensor:
    """Words that come again, as words do."""
    draw = torch.Generator().manual_seed(3)
    words = [torch.randint(97, 123, (n,), generator=draw) for n in (3, 5, 7, 4, 9, 2)]
    order = torch.randint(len(words), (length,), generator=draw)
    return torch.cat([torch.cat((words[i], torch.tensor([32]))) for i in order])[:length]


def apart(one: Tensor, other: Tensor) -> float:
    """Relative error; 1 where shapes differ."""
    if one.shape != other.shape:
        return 1.0
    a, b = one.double(), other.double()
    size = float(b.norm())
    return float((a - b).norm()) / (size or 1.0)


def assert_same(session: Session, whole: Session, exactly: bool = False) -> None:
    """Every register of two sessions, and the logits of the next token."""
    one, other = session.stream, whole.stream
    assert one.state is not None and other.state is not None and one.logits is not None and other.logits is not None
    assert one.tokens == other.tokens
    assert {p: sorted(r) for p, r in one.state.items()} == {p: sorted(r) for p, r in other.state.items()}
    errors = {f"{p}/{n}": apart(x, other.state[p][n]) for p, r in one.state.items() for n, x in r.items()}
    errors["next logits"] = apart(one.logits, other.logits)
    worst = max(errors, key=errors.__getitem__)
    assert errors[worst] <= (0.0 if exactly else TOLERANCE), f"{worst}: {errors[worst]:.1e}"
