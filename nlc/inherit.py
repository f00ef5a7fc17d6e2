"""Weights that begin as those of a checkpoint, `start: from(checkpoint:path)`: which begin as which.

    inherited(graph) -> Inherited      raises SpecError where a checkpoint is not there, or does not fit
    Inherited.lines()                  what matched, what is missing and begins as the spec says, what nothing takes

A memory's source serves its start (its weights, where the model carries it), a level's the weights that it owns.  Names
are those that specs give weights; `.start` is no part of them here, so that a block which the model carried can begin
a memory that tokens write (NL, section 7.3).  Only the head of the file is read: no torch.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from nlc.diagnostics import Reporter, suggest
from nlc.graph.graph import Graph
from nlc.graph.memories import part_names
from nlc.graph.nodes import Level, Memory, Shape, Source, Weight
from nlc.operator_shapes import show
from nlc.passes.owners import weight_names
from nlc.source import Position
from nlc.spec.settings import FILE as SET
from nlc.weight_file import Tensor, Unreadable, found, tensors


@dataclass(frozen=True)
class Origin:
    """One file of weights: the weights here that begin as one of it, and what does not meet."""

    file: Path
    path: str  # as the spec says it
    at: Position  # where
    taken: Mapping[str, str]  # name here -> name there
    missing: tuple[str, ...]  # here, and not there
    unused: tuple[str, ...]  # there, and not here

    def lines(self) -> list[str]:
        """Of the report; names of all layers are said once."""
        said = [f"{self.path}: {_count(len(self.taken))} as in {self.file}"]
        renamed = {here: there for here, there in self.taken.items() if here != there}
        said += [f"  {here} begins as {there}" for here, there in _layers(renamed).items()]
        if self.missing:
            said.append(
                f"  not there, and begin as the spec says: {', '.join(_layers(dict.fromkeys(self.missing, '')))}"
            )
        if self.unused:
            said.append(f"  there, and nothing begins as it: {', '.join(_layers(dict.fromkeys(self.unused, '')))}")
        return said

    def as_dict(self) -> dict[str, object]:
        return {"file": str(self.file), "taken": self.taken, "missing": self.missing, "unused": self.unused}


@dataclass(frozen=True)
class Inherited:
    """Every checkpoint that a spec begins from."""

    origins: tuple[Origin, ...] = field(default=())

    def __bool__(self) -> bool:
        return bool(self.origins)

    def lines(self) -> list[str]:
        return [line for origin in self.origins for line in origin.lines()]

    def as_dict(self) -> dict[str, object]:
        """For `--json`; nothing where nothing begins from a checkpoint."""
        return {"starts": [origin.as_dict() for origin in self.origins]} if self.origins else {}


def inherited(graph: Graph) -> Inherited:
    """Which weights begin as which, by file; the shapes of all are checked.

    Raises SpecError (NLC0415, NLC0416): a checkpoint that cannot be read, a weight of another shape, a name that is
    not there, a source that nothing here begins from.
    """
    report = Reporter()
    wanted: dict[Source, dict[str, list[str]]] = {}  # name here -> the names it may have there, likeliest first
    parts: dict[Source, set[str]] = {}  # what a source may say has another name there
    for source, name, part, may in _sources(graph):
        wanted.setdefault(source, {})[name] = may
        parts.setdefault(source, set()).add(part)
    known = {n: tuple(w.shape or ()) for w in graph.of(Weight) for n in weight_names(graph, w)}
    files: dict[Path, Origin] = {}
    unreadable: set[Path] = set()
    for source, names in wanted.items():
        place = folder_of(source.at) / source.path
        try:
            file = found(place)
            there = tensors(file)
        except Unreadable as reason:
            if place not in unreadable:
                hint = "a run, one of its checkpoints, or a .safetensors file"
                report.error("NLC0415", source.at, f"'{source.path}' {reason}", hint)
            unreadable.add(place)
            continue
        before = files.get(file, Origin(file, source.path, source.at, {}, (), ()))
        files[file] = _match(source, names, parts[source], there, known, before, report)
    report.check()
    return Inherited(tuple(files.values()))


def _sources(graph: Graph) -> Iterator[tuple[Source, str, str, list[str]]]:
    """(a source, the name of a weight that begins from it, what the source calls that, the names it may have there)."""
    of_memory = {w: m for m in graph.of(Memory) for w in m.weights}
    for weight in graph.of(Weight):
        memory, names = of_memory.get(weight.id), weight_names(graph, weight)
        own = None if memory is None else memory.source
        part = "" if memory is None else part_names(memory.form)[memory.weights.index(weight.id)]
        for name, owner in zip(names, weight.owners or [weight.owner] * len(names), strict=True):
            level: Level | None = graph[owner] if owner else None
            source = own or (None if level is None else level.source)
            if source is None:
                continue
            called = part if own else weight.path
            there = dict(source.renamed).get(called)
            paths = [weight.path, *([_otherwise(weight.path, memory)] if memory else [])] if there is None else [there]
            yield source, name, called, [_in_layer(name, path) for path in paths]


def _otherwise(path: str, memory: Memory) -> str:
    """The same start as a weight that the model carries, or the other way round."""
    id = memory.id.removeprefix(f"{memory.block}/")
    rest = path.removeprefix(id)
    return id + (rest.removeprefix(".start") if rest.startswith(".start") else f".start{rest}")


def _in_layer(name: str, path: str) -> str:
    """The path in the layer of a name."""
    return f"blocks.{name.split('.')[1]}.{path}" if name.startswith("blocks.") else path


def _match(
    source: Source,
    names: Mapping[str, list[str]],
    parts: Collection[str],
    there: Mapping[str, Tensor],
    known: Mapping[str, Shape],
    before: Origin,
    report: Reporter,
) -> Origin:
    """What a source gives, beside what others took from its file before."""
    taken = {here: next((n for n in may if n in there), "") for here, may in names.items()}
    taken = {here: name for here, name in taken.items() if name}
    known_names = len(report.found)
    _renames(source, names, parts, taken, there, report)
    if not taken and len(report.found) == known_names:
        some = ", ".join(_layers(dict.fromkeys(list(there)[:40], "")))
        message = f"'{source.path}' has no {next(iter(names))}, nor another weight that begins so"
        report.error("NLC0416", source.at, message, f"say which begins as which, part=name; it has {some}")
    if counts := [name for name in taken.values() if there[name].whole]:
        kind = there[counts[0]].kind
        message = f"{counts[0]} of '{source.path}' holds whole numbers or truth values, {kind}"
        report.error("NLC0416", source.at, message, "weights are floats: F32, F64, F16 or BF16")
    wrong = [here for here, name in taken.items() if there[name].shape != known[here]]
    if wrong:
        here, name = wrong[0], taken[wrong[0]]
        message = f"{here} is {show(known[here])}, and {name} of '{source.path}' is {show(there[name].shape)}"
        more = f"and {len(wrong) - 1} more have another shape" if len(wrong) > 1 else ""
        report.error("NLC0416", source.at, message, more)
    everything = {**before.taken, **taken}
    missing = (*before.missing, *(here for here in names if here not in taken))
    unused = tuple(n for n in there if n not in everything.values())
    return replace(before, taken=everything, missing=missing, unused=unused)


def _renames(
    source: Source,
    names: Mapping[str, list[str]],
    parts: Collection[str],
    taken: Mapping[str, str],
    there: Mapping[str, Tensor],
    report: Reporter,
) -> None:
    """Every name given is used, and is there."""
    used = {name for may in names.values() for name in may if len(may) == 1}
    for here, name in source.renamed:
        mine = {n for n in used if n == name or n.split(".", 2)[2:] == [name]}
        if here not in parts:
            report.error("NLC0416", source.at, f"nothing that begins here is called '{here}'", suggest(here, parts))
        elif not mine & set(taken.values()):
            choices = dict.fromkeys(n.split(".", 2)[-1] if n.startswith("blocks.") else n for n in there)
            report.error("NLC0416", source.at, f"'{source.path}' has no '{name}'", suggest(name, choices))


def folder_of(at: Position) -> Path:
    """What a path is relative to: the file that says it; on the command line, here."""
    return Path() if at.file == SET or at.file.startswith("<") else Path(at.file).parent


def _count(n: int) -> str:
    return f"{n} weight{'' if n == 1 else 's'} begin{'s' if n == 1 else ''}"


def _layers(names: Mapping[str, str]) -> dict[str, str]:
    """blocks.0.q.linear, blocks.1.q.linear -> blocks.*.q.linear."""
    return {_any(here): _any(there) for here, there in names.items()}


def _any(name: str) -> str:
    return f"blocks.*.{name.split('.', 2)[2]}" if name.startswith("blocks.") else name
