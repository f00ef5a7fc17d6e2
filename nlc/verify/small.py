"""A spec at a size the interpreter can run: small widths, and periods short enough that every level fires."""

from __future__ import annotations

from collections.abc import Iterator

from nlc.period import Unit
from nlc.spec import Spec
from nlc.spec.architecture import Level
from nlc.spec.fields import CARRIES, parse_period

SMALL = {"width": 32, "heads": 2, "layers": 2, "vocab": 48, "context": 128}
LONGEST = 33  # tokens of a period, so that it ends three times in 100
FASTEST = 8
CHUNKS = (16, 1, 64)


def small_settings(spec: Spec) -> dict[str, object]:
    """Values to set for a small program of the same structure.

    Sizes of the frame become SMALL; others shrink in proportion to the width.  Token periods of a memory inside a
    sequence that are longer than 33 become 8 ... 33 in their order; nested ones 8, 16, 32.
    """
    sizes, stack = dict(spec.model.sizes), spec.model.stack or ()
    settings: dict[str, object] = {}
    if "width" in sizes:
        ratio = SMALL["width"] / int(sizes["width"])
        for name, size in sizes.items():
            if name == "head":
                settings["sizes.head"] = SMALL["width"] // SMALL["heads"]
            elif name == "layers":
                counted = any("*" in layers for layers in stack)  # the stack says how many there are
                settings["sizes.layers"] = int(size) if counted else max(SMALL["layers"], len(stack))
            elif name in SMALL:
                settings[f"sizes.{name}"] = SMALL[name]
            elif int(size) >= int(sizes["width"]):
                settings[f"sizes.{name}"] = max(1, round(int(size) * ratio))
    return settings | _periods(spec)


def _periods(spec: Spec) -> dict[str, object]:
    found = {path: parse_period(text, spec.at(path)) for path, text, carried in _every(spec) if not carried}
    counts = sorted({p.count for p in found.values() if p.unit is Unit.TOKEN and p.count > 1})
    if not counts or counts[-1] <= LONGEST:
        return {}
    steps = {n: FASTEST + (LONGEST - FASTEST) * i // max(len(counts) - 1, 1) for i, n in enumerate(counts)}
    if any(carry not in (None, *CARRIES) for carry in _carries(spec)):  # a nested life is a whole number of periods
        steps = {n: FASTEST * 2**i for i, n in enumerate(counts)}
    return {path: f"{steps[p.count]} tokens" for path, p in found.items() if p.unit is Unit.TOKEN and p.count > 1}


def _every(spec: Spec) -> Iterator[tuple[str, str, bool]]:
    """(path, text, is it carried by the model) of every `every:`."""
    for level in spec.model.levels:
        carried = level.carry == "model"
        if level.every:
            yield f"levels.{level.name}.every", str(level.every), carried
        if isinstance(level.memories, dict):
            for name, memory in level.memories.items():
                if memory.every:
                    path = f"levels.{level.name}.memories.{name}.every"
                    yield path, str(memory.every), (memory.carry or level.carry) == "model"


def _carries(spec: Spec) -> Iterator[str | None]:
    """Every `carry:`."""
    for level in spec.model.levels:
        yield level.carry
        if isinstance(level.memories, dict):
            yield from (memory.carry for memory in level.memories.values())


def chunk_settings(spec: Spec, chunk: int) -> dict[str, object]:
    """The same spec with this chunk at every level and memory that is written each token."""
    settings: dict[str, object] = {}
    for level in spec.model.levels:
        if not isinstance(level.memories, dict) or not _each_token(level):
            continue
        if level.chunk is not None or not any(m.chunk is not None for m in level.memories.values()):
            settings[f"levels.{level.name}.chunk"] = chunk
        for name, memory in level.memories.items():
            if memory.chunk is not None:
                settings[f"levels.{level.name}.memories.{name}.chunk"] = chunk
    return settings


def _each_token(level: Level) -> bool:
    if level.every is None or level.objective == "loss":
        return False
    period = str(level.every).split()
    return period[0] == "1" and period[1:2] in (["token"], ["tokens"])
