"""A search file to a Search: specs/searches/<name>.yaml, or one of your own.

load_search("which-rule")             a shipped search, or a file
find_search(argument)                 the same; None where the argument is no search
searches()                            the names of the shipped searches

Every fault is a diagnostic at its place.  What variants are legal is found out when they are made.
"""

from __future__ import annotations

import re
from collections.abc import Mapping as MappingOf
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

from nlc.diagnostics import Reporter, SpecError, suggest
from nlc.source import Entry, Mapping, Position, Scalar, Sequence, Tree, plain
from nlc.spec import TaskSpec, load, load_task, shipped
from nlc.spec.extends import Found, is_null, without_notes
from nlc.spec.rule import SHIPPED
from nlc.spec.text import parse, read
from nlc.spec.types import typed
from nlc.variants.axes import BASE, ENUMERATED, Axis, Choice, count
from nlc.variants.fields import LimitFields, MutateFields, RungFields, SamplerFields, SearchFields, TuneFields
from nlc.variants.scores import in_order, scores, task_of

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _-]{0,63}")  # of a search, of a task: folders are called by them


@dataclass(frozen=True)
class Search:
    """bases: label -> what nlc.load takes; shared: changes to all of them."""

    name: str
    doc: str
    source: str  # the file, as the user named it
    text: str  # as written
    bases: MappingOf[str, str | Path]
    shared: MappingOf[str, Entry]
    axes: tuple[Axis, ...]
    tasks: MappingOf[str, TaskSpec]
    sampler: SamplerFields
    rungs: tuple[RungFields, ...]
    fields: SearchFields = field(repr=False)
    data: Path | None = None  # a text: as it is named, from the folder of the file
    at: Position = field(default=Position("", 0, 0), repr=False)  # of the budget, of rungs, or of the search
    rungs_at: Position = field(default=Position("", 0, 0), repr=False)

    @property
    def rescale(self) -> tuple[str, ...]:
        said = self.fields.rescale
        return (said,) if isinstance(said, str) else tuple(said)

    @property
    def tune(self) -> TuneFields | None:
        return self.fields.tune

    @property
    def mutate(self) -> MutateFields | None:
        return self.fields.mutate

    @property
    def drawn(self) -> int | None:
        """Most trials that are no mutants; None: every combination."""
        return _drawn(self.fields, self.sampler, self.axes)

    @property
    def own_steps(self) -> bool:
        """Whether a run has the steps that its variant says: those of tasks in order are the course's."""
        budget = self.fields.budget
        left = [one for one in self.rungs if not (one.steps or one.tokens or budget.steps or budget.tokens)]
        return any(not in_order(self.tasks[name]) for one in left for name in one.tasks or self.tasks)

    @property
    def limits(self) -> LimitFields:
        return self.fields.limits


def searches() -> tuple[str, ...]:
    """The shipped searches, by name."""
    return tuple(sorted(path.stem for path in (SHIPPED / "searches").glob("*.yaml")))


def load_search(argument: str) -> Search:
    """A search by its name or its file.  Raises SpecError with all that is wrong."""
    if (search := find_search(argument)) is not None:
        return search
    report = Reporter()
    if Path(argument).suffix in (".yaml", ".yml") or "/" in argument:
        text = read(Path(argument), argument, report)
        if text is not None and parse(text, argument, report) is not None:
            report.error("NLC0210", Position(argument, 0, 0), "this file is not a search", "it has no key 'search'")
        raise SpecError(report.found)
    hint = suggest(argument, searches(), "searches")
    report.error("NLC1201", Position(argument, 0, 0), f"no file and no shipped search '{argument}'", hint)
    raise SpecError(report.found)


def find_search(argument: str) -> Search | None:
    """The search of an argument of the command line; raises SpecError where it is one, and is wrong."""
    path, shown = Path(argument), argument
    if not path.is_file():
        if argument not in searches():
            return None
        path, shown = SHIPPED / "searches" / f"{argument}.yaml", f"specs/searches/{argument}.yaml"
    report = Reporter()
    text = read(path, shown, report)
    tree = parse(text, shown, report) if text is not None else None
    if not isinstance(tree, Mapping) or text is None or "search" not in tree.entries:
        return None
    report.check()
    return search_from(without_notes(tree), text, Found(path, shown, path.resolve().parent))


def search_from(tree: Mapping, text: str, found: Found) -> Search:
    """A search's tree as a Search.  Raises SpecError with everything that is wrong with it."""
    report = Reporter()
    said = typed(_nulls_as_words(tree), report, SearchFields)
    report.check()
    assert said is not None
    bases = _bases(tree, found, report)
    axes = _axes(tree, bases, report)
    tasks = _tasks(tree, found, report)
    shared = dict(_changes(tree.get("set")))
    sampler = said.sampler if isinstance(said.sampler, SamplerFields) else SamplerFields(name=said.sampler)
    _trials(tree, said, sampler, axes, report)
    _rungs(tree, said, tasks, report)
    if isinstance(data := tree.get("data"), Scalar):
        _unwritable(data, report)
    place = tree.entries.get("rank_by", tree.entries["search"]).value.at
    if said.rank_by is not None:
        _score(said.rank_by, tasks, "search", place, report)
        _last(said.rank_by, said.rungs[-1], tasks, place, report)
    _of_tasks(tree, shared, axes, report)
    _rescale(tree, bases, shared, axes, report)
    if not NAME.fullmatch(said.search):
        report.error("NLC1207", tree.entries["search"].value.at, f"a search cannot be called '{said.search}'")
    report.check()
    return Search(
        name=said.search, doc=" ".join(said.doc.split()), source=found.shown, text=text, bases=bases, shared=shared,
        axes=axes, tasks=tasks, sampler=sampler, rungs=tuple(said.rungs), fields=said,
        at=next(tree.entries[key].at for key in ("budget", "rungs", "search") if key in tree.entries),
        rungs_at=tree.entries.get("rungs", tree.entries["search"]).at,
        data=None if said.data is None else (found.root / said.data).resolve(),
    )  # fmt: skip


def _score(said: str, tasks: MappingOf[str, TaskSpec], of: str, at: Position, report: Reporter) -> None:
    """A score that no run can have would be missed when all of them have ended."""
    known = list(scores(tasks))
    if said not in known:
        report.error("NLC1204", at, f"'{said}' is no score of a task of this {of}", suggest(said, known, "scores"))


def _last(said: str, last: RungFields, tasks: MappingOf[str, TaskSpec], at: Position, report: Reporter) -> None:
    """Variants are ranked by what the last rung ranks by: the search's score is of one of its tasks."""
    task = task_of(said, tasks)
    if last.rank_by is not None and last.rank_by != said:
        report.error("NLC1205", at, f"the last rung ranks by another score, '{last.rank_by}'", "give one of the two")
    elif task is not None and last.tasks is not None and task not in last.tasks:
        hint = "give it this task, or rank by a score of one that it has"
        report.error("NLC1204", at, f"the last rung, which ranks, has no task '{task}'", hint)


def _nulls_as_words(tree: Mapping) -> Mapping:
    """Values of axes and of `set` may be null, which takes a key away; elsewhere a key without a value is a mistake."""

    def worded(node: Tree) -> Tree:
        match node:
            case Mapping(entries, at):
                return Mapping({key: Entry(e.at, worded(e.value)) for key, e in entries.items()}, at)
            case Sequence(items, at):
                return Sequence(tuple(worded(item) for item in items), at)
        return Scalar("null", "null", node.at) if is_null(node) else node

    return Mapping(
        {k: Entry(e.at, worded(e.value)) if k in ("axes", "set") else e for k, e in tree.entries.items()}, tree.at
    )


def _bases(tree: Mapping, found: Found, report: Reporter) -> dict[str, str | Path]:
    """Label -> a shipped name, or a file in the folder of the search or below it."""
    said = tree.get("base")
    bases: dict[str, str | Path] = {}
    for item in said.items if isinstance(said, Sequence) else [said]:
        assert isinstance(item, Scalar)
        label = item.text
        if label in bases:
            report.error("NLC0211", item.at, f"'{label}' stands here twice")
        elif label in shipped():
            bases[label] = label
        elif "/" not in label and not label.endswith((".yaml", ".yml")):
            report.error("NLC0101", item.at, f"no file and no shipped spec '{label}'", suggest(label, shipped()))
        elif path := _beside(item, found, report):
            bases[label] = path
    return bases


def _beside(said: Scalar, found: Found, report: Reporter) -> Path | None:
    """A file in the folder of the search or below it."""
    if _unwritable(said, report):
        return None
    path = (found.root / said.text).resolve()
    if not path.is_relative_to(found.root):
        report.error("NLC0207", said.at, f"'{said.text}' is outside the search's folder")
    elif not path.is_file():
        near = [str(p.relative_to(found.root)) for p in sorted(found.root.glob("*.yaml"))[:50]]
        report.error("NLC0208", said.at, f"no file '{said.text}'", suggest(said.text, near))
    else:
        return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return None


def _unwritable(said: Scalar, report: Reporter) -> bool:
    """Whether no file can be called so."""
    if "\0" in said.text:
        report.error("NLC0208", said.at, "no file has a NUL character in its name")
    return "\0" in said.text


def _changes(tree: Tree | None) -> list[tuple[str, Entry]]:
    return list(tree.entries.items()) if isinstance(tree, Mapping) else []


def _axes(tree: Mapping, bases: MappingOf[str, str | Path], report: Reporter) -> tuple[Axis, ...]:
    """The axis of bases, where there are several, then those that are written."""
    found: dict[str, Axis] = {}
    if len(bases) > 1:
        choices = tuple(Choice(label, ()) for label in bases)
        found[BASE] = Axis(BASE, choices, (), tree.entries["base"].at)
    needs: dict[str, dict[str, set[str]]] = {}
    written = tree.get("axes")
    for name, entry in written.entries.items() if isinstance(written, Mapping) else ():
        if name == BASE:
            report.error("NLC1202", entry.at, "the axis 'base' is made of several bases", "base: [hope, transformer]")
            continue
        axis = Axis(name, _choices(name, entry, report), _when(entry.value, found, report), entry.at)
        needs[name] = _needs(axis, needs)
        if never := [other for other, labels in needs[name].items() if not labels]:
            message = f"axis '{name}' never applies: no value of '{never[0]}' meets every condition"
            report.error("NLC1203", entry.at, message, "its own, and those of the axes that it names")
        found[name] = axis
    return tuple(found.values())


def _needs(axis: Axis, before: MappingOf[str, MappingOf[str, set[str]]]) -> dict[str, set[str]]:
    """The labels that axes before it have where this one applies: the axes that it names, and all that those need."""
    found: dict[str, set[str]] = {}
    for other, labels in axis.when:
        for name, allowed in [(other, set(labels)), *before.get(other, {}).items()]:
            found[name] = found.get(name, allowed) & allowed
    return found


def _choices(name: str, entry: Entry, report: Reporter) -> tuple[Choice, ...]:
    """Values of a path; or choices by name, each of several changes."""
    tree = entry.value
    values = tree if isinstance(tree, Sequence) else tree.get("values") if isinstance(tree, Mapping) else None
    named = tree.get("choices") if isinstance(tree, Mapping) else None
    if (values is None) == (named is None):
        report.error("NLC1202", entry.at, f"axis '{name}' has either values or choices", "one of the two")
        return ()
    found = [
        Choice(_label(item), ((name, Entry(entry.at, item)),))
        for item in (values.items if isinstance(values, Sequence) else ())
    ]
    for label, said in named.entries.items() if isinstance(named, Mapping) else ():
        found.append(Choice(label, tuple(_changes(said.value))))
    labels = [choice.label for choice in found]
    if twice := [label for label in labels if labels.count(label) > 1]:
        report.error("NLC1202", entry.at, f"axis '{name}' has '{twice[0]}' twice")
    if not found:
        report.error("NLC1202", entry.at, f"axis '{name}' has no value")
    return tuple(found)


def _label(value: Tree) -> str:
    """A value as it stands in tables: one line."""
    if isinstance(value, Scalar):
        return " ".join(value.text.split()) or "''"
    return str(plain(value))


def _when(tree: Tree, before: MappingOf[str, Axis], report: Reporter) -> tuple[tuple[str, tuple[str, ...]], ...]:
    said = tree.get("when") if isinstance(tree, Mapping) else None
    found = []
    for other, entry in said.entries.items() if isinstance(said, Mapping) else ():
        if other not in before:
            hint = suggest(other, before, "axes before it")
            report.error("NLC1203", entry.at, f"no axis '{other}' is said before this one", hint)
            continue
        wanted = entry.value.items if isinstance(entry.value, Sequence) else (entry.value,)
        labels = before[other].labels
        for item in wanted:
            if (label := _label(item)) not in labels:
                report.error("NLC1203", item.at, f"axis '{other}' has no '{label}'", suggest(label, labels))
        found.append((other, tuple(_label(item) for item in wanted)))
    return tuple(found)


def _tasks(tree: Mapping, found: Found, report: Reporter) -> dict[str, TaskSpec]:
    """By the names that scores have; a task in a list has that of its file, without knobs."""
    said = tree.get("tasks")
    named = [(name, entry.value) for name, entry in said.entries.items()] if isinstance(said, Mapping) else []
    listed = said.items if isinstance(said, Sequence) else () if isinstance(said, Mapping) else (said,)
    tasks: dict[str, TaskSpec] = {}
    for name, item in [*named, *((None, item) for item in listed)]:
        assert isinstance(item, Scalar)
        try:
            inside = _beside(item, found, report) if item.text.endswith((".yaml", ".yml")) else item.text
            if inside is None:
                continue
            task = load_task(str(inside))
        except SpecError as error:
            first = error.diagnostics[0]
            report.error(first.code, item.at, first.message, first.hint)
            continue
        key = name or task.name.split("(")[0]
        if key in tasks:
            hint = "give them names: tasks: {easy: 'mqar(pairs=4)', hard: 'mqar(pairs=16)'}"
            report.error("NLC0211", item.at, f"two tasks are called '{key}'", hint)
        elif not NAME.fullmatch(key):
            report.error("NLC1207", item.at, f"a task cannot be called '{key}' here", "tasks: {recall: mqar}")
        tasks[key] = task
    return tasks


def _trials(
    tree: Mapping, said: SearchFields, sampler: SamplerFields, axes: tuple[Axis, ...], report: Reporter
) -> None:
    """The sampler has some, and as many as there are only where that is a grid that can be listed."""
    at = tree.entries.get("sampler", tree.entries["search"]).value.at
    drawn = _drawn(said, sampler, axes)
    if sampler.name != "grid" and drawn is None:
        report.error("NLC1205", at, f"sampler {sampler.name} draws for ever", "say how often: budget: {trials: 24}")
    elif drawn is None and count(axes, ENUMERATED + 1) > ENUMERATED:
        up_to = "up to " if any(axis.when for axis in axes) else ""
        message = f"the axes have {up_to}{prod(len(axis.choices) for axis in axes):,} combinations"
        hint = f"more than {ENUMERATED:,} are not all tried; a draw of them: budget: {{trials: 24}}"
        report.error("NLC1205", tree.entries["axes"].at, message, hint)
    if sampler.name == "nsga2" and sampler.batch == 1:
        report.error("NLC1205", at, "nsga2 puts two variants together: a batch of 1 has no two", "batch: 2, or more")
    if drawn is not None and drawn < 1:
        mutants = _mutants(said)
        message = f"all {said.budget.trials:,} trials would be mutants: {mutants:,} are asked for"
        hint = f"more of them: budget: {{trials: {2 * mutants}}}; or fewer generations, or a smaller population"
        report.error("NLC1205", tree.entries["mutate"].at, message, hint)


def _drawn(said: SearchFields, sampler: SamplerFields, axes: tuple[Axis, ...]) -> int | None:
    """The trials that are no mutants: mutants have what all combinations leave over, or else all that they ask for."""
    most = said.budget.trials
    if most is None or said.mutate is None:
        return most
    few = min(most, ENUMERATED)
    whole = sampler.name in ("grid", "random") and count(axes, few) < few
    return most if whole else most - _mutants(said)


def _mutants(said: SearchFields) -> int:
    return said.mutate.generations * said.mutate.population if said.mutate is not None else 0


def _of_tasks(tree: Mapping, shared: MappingOf[str, Entry], axes: tuple[Axis, ...], report: Reporter) -> None:
    """Sizes that every task sets, its sequences being what they are: what a search says of them would not be heard."""
    said = [(path, entry) for axis in axes for choice in axis.choices for path, entry in choice.changes]
    said += shared.items()
    places = [(path, entry.at) for path, entry in said]
    places += [(f"sizes.{size}", inner.at) for path, e in said if path == "sizes" for size, inner in _changes(e.value)]
    rescale = tree.get("rescale")
    items = rescale.items if isinstance(rescale, Sequence) else [rescale]
    places += [(item.text, item.at) for item in items if isinstance(item, Scalar)]
    for path, at in places:
        if path in ("sizes.context", "sizes.vocab"):
            hint = "a knob of a task may change it: 'mqar(context=64, vocab=64)'"
            report.error("NLC1205", at, f"every task of this search sets '{path}' itself", hint)


def _rescale(
    tree: Mapping, bases: MappingOf[str, str | Path], shared: MappingOf[str, Entry], axes: tuple[Axis, ...],
    report: Reporter,
) -> None:  # fmt: skip
    """A size that neither a base nor an axis has would never be changed."""
    said = tree.get("rescale")
    if said is None or report.found:
        return
    changes = [change for axis in axes for choice in axis.choices for change in choice.changes]
    known = {path for path, _ in changes if path.startswith("sizes.")}
    known |= {f"sizes.{name}" for path, entry in changes if path == "sizes" for name, _ in _changes(entry.value)}
    for base in bases.values():
        try:
            known |= {f"sizes.{name}" for name in load(base, shared).model.known_sizes()}
        except SpecError:  # legal only with the values of an axis: what it has is not known here
            return
    for item in said.items if isinstance(said, Sequence) else [said]:
        assert isinstance(item, Scalar)
        if item.text not in known:
            hint = suggest(item.text, known, "sizes")
            report.error("NLC0503", item.at, f"neither a base nor an axis has the size '{item.text}'", hint)


def _rungs(tree: Mapping, said: SearchFields, tasks: MappingOf[str, TaskSpec], report: Reporter) -> None:
    """Their tasks are the search's, and all but the last say how many go on."""
    written = tree.get("rungs")
    items = written.items if isinstance(written, Sequence) else (None,) * len(said.rungs)
    for rung, item in zip(said.rungs, items, strict=True):
        if item is None:
            continue
        for task in rung.tasks or ():
            if task not in tasks:
                report.error("NLC1204", item.at, f"'{task}' is no task of this search", suggest(task, tasks, "tasks"))
        if rung.rank_by is not None:
            mine = {task: tasks[task] for task in rung.tasks or tasks if task in tasks}
            _score(rung.rank_by, mine, "rung", item.at, report)
        own = [tasks[task] for task in rung.tasks or tasks if task in tasks]
        if own and (rung.steps or rung.tokens) and all(map(in_order, own)):
            hint = "take steps and tokens away; a rung of more seeds adds runs: {seeds: 3}"
            report.error("NLC1205", item.at, "what is learned in order takes its own steps in every rung", hint)
        if rung.steps is not None and rung.tokens is not None:
            report.error("NLC1205", item.at, "steps and tokens say the same", "give one")
        if (rung.keep is None) != (rung is said.rungs[-1]):
            last = rung is said.rungs[-1]
            message = "nothing comes after the last rung" if last else "how many go on from this rung is not said"
            report.error("NLC1205", item.at, message, "take keep away" if last else "keep: 8, or a share: keep: 0.33")
        if rung.keep is not None and rung.keep >= 1 and rung.keep != int(rung.keep):
            report.error("NLC1205", item.at, f"keep is {rung.keep}; a whole number, or a share below 1, is expected")
    if said.budget.steps is not None and said.budget.tokens is not None:
        report.error("NLC1205", tree.entries["budget"].at, "steps and tokens say the same", "give one")
