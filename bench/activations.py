"""What a layer keeps of its forward pass for its backward pass, in bytes a token.

    python bench/activations.py [--context 512] [--width 128] [--batch 4] [--json]

A layer is the difference of two layers and one.  `hope at never` is hope with a continuum that no token writes, to be
compared with a transformer of equal width; `hope` is the shipped one, whose continuum is written every 64 and 256
tokens: of that, weights are what its memories were at the beginning of each of their periods, one set a sequence.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

import nlc

NEVER = {f"levels.cms.memories.{name}.every": "never" for name in ("fast", "mid")}
VARIANTS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "transformer": ("transformer", {}),
    "hope at never": ("hope", NEVER),
    "hope": ("hope", {}),
}


def kept(run: Callable[[], object], owned: set[int]) -> dict[str, int]:
    """Bytes by shape that a forward pass keeps, shared storage counted once, and nothing of what is `owned` anyway."""
    held: dict[int, Tensor] = {}

    def pack(x: Tensor) -> Tensor:
        place = x.untyped_storage().data_ptr()
        if place not in owned:
            held.setdefault(place, x)
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        made = run()
    found: dict[str, int] = {}
    for x in held.values():
        shape = "x".join(map(str, x.shape))
        found[shape] = found.get(shape, 0) + x.untyped_storage().nbytes()
    del made
    return found


def of_model(spec: str, settings: Mapping[str, object], batch: int, context: int) -> dict[str, int]:
    model = nlc.compile(nlc.load(spec, set=dict(settings))).model(seed=0)
    owned = {p.untyped_storage().data_ptr() for p in model.parameters()}
    generator = torch.Generator().manual_seed(0)
    text = torch.randint(model.vocab, (batch, context + 1), generator=generator)
    return kept(lambda: model.loss(text[:, :-1], text[:, 1:], final=True)[0], owned)


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
