"""What a forward pass keeps in memory for its backward pass.

`saved` asks autograd, `kept` the allocator: whoever holds it.  A layer is the difference of two layers and one; `hope
at never` is hope with a continuum that no token writes, to be compared with a transformer of equal width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nlc.bench.compiled import model
from nlc.bench.rows import Reading, Scale

NEVER = {f"levels.cms.memories.{name}.every": "never" for name in ("fast", "mid")}
VARIANTS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "transformer": ("transformer", {}),
    "hope at never": ("hope", NEVER),
    "hope": ("hope", {}),
}
ROWS = {"layer-bytes": "hope", "layer-bytes-never": "hope at never"}


def saved(run: Callable[[], Tensor]) -> int:
    """Bytes that autograd saves in a forward pass, shared storage counted once."""
    found: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        found[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        y = run()
    del y
    return sum(found.values())


class Allocations(TorchDispatchMode):
    """Every storage that an operation makes, with a reference that does not keep it; none of those `owned` anyway."""

    def __init__(self, owned: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
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
        if before is None or before[0].expired():  # type: ignore[no-untyped-call]
            self.made[place] = (StorageWeakRef(storage), storage.nbytes(), x.shape)  # type: ignore[no-untyped-call]
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
    made: Any = model(spec, settings)
    made.span = None  # what all tokens leave, not those of a span
    generator = torch.Generator().manual_seed(0)
    text = torch.randint(made.vocab, (batch, context + 1), generator=generator)
    return kept(lambda: made.loss(text[:, :-1], text[:, 1:], final=True)[0], made.parameters())


def of_layer(variant: str, batch: int = 4, context: int = 512, width: int = 128, heads: int = 2) -> dict[str, int]:
    """Bytes of one layer by shape, of a run without memory to spare."""
    spec, settings = VARIANTS[variant]
    sizes = {"sizes.context": context, "sizes.width": width, "sizes.heads": heads, "run.memory": "0 B", **settings}
    one, two = (of_model(spec, {**sizes, "sizes.layers": n}, batch, context) for n in (1, 2))
    found = {shape: two[shape] - one.get(shape, 0) for shape in two}
    return {shape: n for shape, n in sorted(found.items(), key=lambda item: -item[1]) if n}


def layer(scale: Scale, asked: frozenset[str]) -> dict[str, Reading]:
    """Width 128, 2 heads, 512 tokens, as the specs are shipped."""
    context, width, tokens = scale(512), scale(128), scale.batch * scale(512)
    layers = {name: of_layer(name, scale.batch, context, width) for name in VARIANTS}
    total = {name: sum(shapes.values()) / tokens for name, shapes in layers.items()}
    details = {
        "bytes per token": {name: round(n) for name, n in total.items()},
        "by shape": {
            name: {s: round(n / tokens) for s, n in shapes.items() if n >= tokens} for name, shapes in layers.items()
        },
    }
    return {id: Reading(total[ROWS[id]] / total["transformer"], details=details) for id in asked}
