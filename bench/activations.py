"""What a layer keeps of its forward pass for its backward pass, in bytes a token.

    python bench/activations.py [--context 512] [--width 128] [--batch 4] [--json]

A layer is the difference of two layers and one.  `hope at never` is hope with a continuum that no token writes, to be
compared with a transformer of equal width; `hope` is the shipped one, whose continuum is written every 64 and 256
tokens.  What is counted is what is still in memory when the forward pass is over, whoever holds it.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import nlc

NEVER = {f"levels.cms.memories.{name}.every": "never" for name in ("fast", "mid")}
VARIANTS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "transformer": ("transformer", {}),
    "hope at never": ("hope", NEVER),
    "hope": ("hope", {}),
}


class Allocations(TorchDispatchMode):
    """Every storage that an operation makes, with a reference that does not keep it; none of those `owned` anyway."""

    def __init__(self, owned: Iterable[Tensor]) -> None:
        super().__init__()
        self.owned = {x.untyped_storage().data_ptr() for x in owned}
        self.made: dict[int, tuple[StorageWeakRef, int, torch.Size]] = {}

    def __torch_dispatch__(
        self, operation: Any, types: Any, arguments: Any = (), options: Mapping[str, Any] | None = None
    ) -> Any:
        out = operation(*arguments, **(options or {}))
        for x in tree_leaves(out):
            if isinstance(x, Tensor):
                self.see(x)
        return out

    def see(self, x: Tensor) -> None:
        """A storage goes by the shape of the view with the most axes."""
        storage = x.untyped_storage()
        place = storage.data_ptr()
        before = self.made.get(place)
        if place in self.owned:
            return
        if before is None or before[0].expired():
            self.made[place] = (StorageWeakRef(storage), storage.nbytes(), x.shape)
        elif x.dim() > len(before[2]):
            self.made[place] = (*before[:2], x.shape)


def kept(run: Callable[[], object], owned: Iterable[Tensor]) -> dict[str, int]:
    """Bytes by shape that a forward pass leaves in memory until its backward pass, shared storage counted once."""
    with Allocations(owned) as allocations:
        made = run()
    found: dict[str, int] = {}
    for storage, size, axes in allocations.made.values():
        if not storage.expired():
            shape = "x".join(map(str, axes))
            found[shape] = found.get(shape, 0) + size
    del made
    return found


def of_model(spec: str, settings: Mapping[str, object], batch: int, context: int) -> dict[str, int]:
    model = nlc.compile(nlc.load(spec, set=dict(settings))).model(seed=0)
    generator = torch.Generator().manual_seed(0)
    text = torch.randint(model.vocab, (batch, context + 1), generator=generator)
    return kept(lambda: model.loss(text[:, :-1], text[:, 1:], final=True)[0], model.parameters())


def of_layer(variant: str, batch: int = 4, context: int = 512, width: int = 128, heads: int = 2) -> dict[str, int]:
    """Bytes of one layer by shape."""
    spec, settings = VARIANTS[variant]
    sizes = {"sizes.context": context, "sizes.width": width, "sizes.heads": heads, **settings}
    one, two = (of_model(spec, {**sizes, "sizes.layers": n}, batch, context) for n in (1, 2))
    found = {shape: two[shape] - one.get(shape, 0) for shape in two}
    return {shape: n for shape, n in sorted(found.items(), key=lambda item: -item[1]) if n}


def measure(batch: int, context: int, width: int, heads: int) -> dict[str, object]:
    layers = {name: of_layer(name, batch, context, width, heads) for name in VARIANTS}
    tokens = batch * context
    total = {name: sum(shapes.values()) / tokens for name, shapes in layers.items()}
    return {
        "layer": {"batch": batch, "tokens": context, "width": width, "heads": heads, "dtype": "float32"},
        "bytes per token": {name: round(n) for name, n in total.items()},
        "times the transformer": {name: round(n / total["transformer"], 3) for name, n in total.items()},
        "by shape": {
            name: {s: round(n / tokens) for s, n in shapes.items() if n >= tokens} for name, shapes in layers.items()
        },
        "machine": {"python": platform.python_version(), "torch": torch.__version__},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("batch", 4), ("context", 512), ("width", 128), ("heads", 2)):
        parser.add_argument(f"--{name}", type=int, default=value, help="%(default)s")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    found = measure(given.batch, given.context, given.width, given.heads)
    if given.json:
        print(json.dumps(found, indent=2))
        return
    total, ratio = found["bytes per token"], found["times the transformer"]
    assert isinstance(total, dict) and isinstance(ratio, dict)
    for name in total:
        print(f"{name:14} {total[name]:>8,} bytes a token, {ratio[name]:.2f} times the transformer's")


if __name__ == "__main__":
    main()
