"""The course of a search: candidates -> variants -> runs -> who goes on -> the next candidates, or the next rung.

course = Course(search, lessons, journal, workers, device=..., keep=..., watch=...)
course.run() -> Standings

Whatever is in the journal is not done again.  What happens next hangs on the search and on scores alone, so a search
that was killed goes the same way.  Every candidate takes part in the first rung; the others follow when no more are
proposed.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import Any, Protocol

from nlc.spec import Spec, loads
from nlc.variants.fields import RungFields
from nlc.variants.journal import Journal, Record, put_variant, variant_text
from nlc.variants.proposals import Tried, proposals
from nlc.variants.rates import grid, trained
from nlc.variants.runs import UNABLE, Ask, Outcome, Request, Unable
from nlc.variants.scores import less_is_better, task_of
from nlc.variants.search import Search
from nlc.variants.standings import Standings, score_of, standings
from nlc.variants.variant import Candidate, Lesson, make

TUNING = 1_000_000  # seeds from here on choose rates; scores have those below

Learning = Generator[list[Ask], Sequence[Record], None]


class Workers(Protocol):
    """Where runs go on: nlc.variants.local, nlc.variants.on_ray."""

    @property
    def free(self) -> bool: ...

    def begin(self, request: Request) -> None: ...

    def ended(self) -> Sequence[tuple[Request, Outcome]]: ...

    def close(self) -> None: ...


class Watch(Protocol):
    """Who is told how it goes."""

    def planned(self, trial: Record) -> None: ...

    def begun(self, ask: Ask) -> None: ...

    def ended(self, run: Record, board: Standings, left: Sequence[Ask]) -> None: ...


@dataclass(frozen=True)
class Trial:
    """A variant that was made.  record: its line in the journal; spec: None where it is none."""

    candidate: Candidate
    record: Record
    text: str
    spec: Spec | None

    @property
    def id(self) -> str:
        return str(self.record["trial"])


@dataclass
class Course:
    """lengths: batch -> steps, of each task that is as long as its own course."""

    search: Search
    lessons: Mapping[str, Lesson]
    journal: Journal
    workers: Workers
    watch: Watch
    device: str = "auto"
    data: str | None = None
    keep: bool = False
    lengths: Mapping[str, Callable[[int], int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.trials: list[Trial] = []
        self.known: dict[str, str] = {}  # key of a variant -> its trial
        self.runs: dict[str, Record] = {run["run"]: run for run in self.journal.of("run")}
        self.rungs = resolved(self.search, self.lessons)

    def run(self) -> Standings:
        """Raises Unable where the machine cannot go on, OSError where the journal or a variant cannot be written.

        Raises JournalError where a variant is another one now than was made.
        """
        source = proposals(self.search)
        batch = next(source, [])
        while batch:
            made = [self.plan(candidate) for candidate in batch]
            self.perform(made, 0)
            try:
                batch = source.send(self.tried())
            except StopIteration:
                break
        present = [trial for trial in self.trials if trial.record["status"] == "ok"]
        for rung in range(len(self.rungs)):
            if rung:
                self.perform(present, rung)
            present = self.closed(rung, present)
        return standings(self.journal.records)

    # ---- variants ----------------------------------------------------------------------------------------------------

    def plan(self, candidate: Candidate) -> Trial:
        """The variant of a candidate; from the journal, where it is there."""
        id = f"t{len(self.trials) + 1:03}"
        file = f"variants/{id}.yaml"
        before = next((line for line in self.journal.of("trial") if line["trial"] == id), None)
        path = self.journal.folder / file
        if before is None or not path.is_file():
            made = self.made(candidate, id, path)
            before = before or self.journal.add("trial", {**made, "file": file})
        record, text = before, variant_text(path, before)
        spec = loads(text, str(path)) if record["status"] == "ok" else None
        trial = Trial(candidate, record, text, spec)
        self.trials.append(trial)
        if record["status"] == "ok":
            self.known[record["key"]] = id
        self.watch.planned(record)
        return trial

    def made(self, candidate: Candidate, id: str, path: Path) -> Record:
        """A new variant, with its file written; what stands in the journal of it."""
        variant = make(candidate, self.search, tuple(self.lessons.values()))
        same = self.known.get(variant.key) if variant.key is not None else None
        told: dict[str, Any] = {
            "trial": id, "generation": candidate.generation, "base": candidate.base,
            "settings": dict(candidate.settings), "edits": list(candidate.edits), "parents": list(candidate.parents),
            "hash": variant.hash, "key": variant.key, "status": variant.status if same is None else "duplicate",
        }  # fmt: skip
        told |= {"of": same} if same is not None else {}
        told |= {"diagnostics": list(variant.diagnostics)} if variant.diagnostics else {}
        told |= {"error": variant.error} if variant.error else {}
        fitted = variant.fitted
        told["rescaled"] = list(fitted.lines) if fitted else []
        told["cost"] = {task: dict(cost) for task, cost in fitted.costs.items()} if fitted else {}
        return {**told, "digest": put_variant(variant.text, path)}

    def tried(self) -> list[Tried]:
        """What the proposals are told: a variant that is another's equal has its score."""
        found: dict[str, Tried] = {}
        for trial in self.trials:
            score = self.score(trial, 0)
            if trial.record["status"] == "duplicate":
                score = found[trial.record["of"]].score
            text = trial.text if trial.record["status"] == "ok" else None
            found[trial.id] = Tried(trial.id, trial.candidate, text, score)
        return list(found.values())

    def score(self, trial: Trial, rung: int) -> float | None:
        """Of a rung; more is better."""
        name = self.rungs[rung]["rank_by"]
        mine = [run for run in self.runs.values() if run["trial"] == trial.id and run["rung"] <= rung]
        found = score_of(mine, task_of(name, self.lessons) or "", name)
        return None if found is None else -found.mean if self.less(name) else found.mean

    def less(self, name: str) -> bool:
        """Whether less of a score is better: as the search says of the one that it ranks by."""
        fields = self.search.fields
        if fields.better is not None and name == self.rungs[-1]["rank_by"]:
            return fields.better == "lower"
        return less_is_better(name, {task: lesson.facts for task, lesson in self.lessons.items()})

    def closed(self, rung: int, present: Sequence[Trial]) -> list[Trial]:
        """Who goes on, best first; a rung that is in the journal stays as it is."""
        scores = {trial.id: score for trial in present if (score := self.score(trial, rung)) is not None}
        order = sorted(scores, key=lambda id: (-scores[id], id))
        kept = order[: keeping(self.search.rungs[rung], len(order))]
        if not any(line["rung"] == rung for line in self.journal.of("rung")):
            name = self.rungs[rung]["rank_by"]
            said = {id: -scores[id] if self.less(name) else scores[id] for id in sorted(scores)}
            self.journal.add("rung", {"rung": rung, "rank_by": name, "scores": said, "kept": kept})
        return [trial for id in kept for trial in present if trial.id == id]

    # ---- runs --------------------------------------------------------------------------------------------------------

    def learning(self, trial: Trial, task: str, rung: int) -> Learning:
        """The runs of a variant on a task: all rates, where they are not chosen yet, then every seed with the best."""
        assert trial.spec is not None
        choices = grid(trial.spec, self.search.tune)
        best, s = choices[0], self.search.fields
        if len(choices) > 1:
            first = next(i for i, one in enumerate(self.rungs) if task in one["tasks"])
            own = None if s.tune is None or task in self.lengths else s.tune.steps
            steps = own or self.steps(trial, task, first)
            found = yield [Ask(trial.id, task, steps, TUNING + s.seed, rates, first, "rates") for rates in choices]
            good = [(*values, -i) for i, run in enumerate(found) if (values := self.learned(task, run))]
            if not good:
                return
            best = choices[-int(max(good)[-1])]
        steps, seeds = self.steps(trial, task, rung), self.rungs[rung]["seeds"]
        yield [Ask(trial.id, task, steps, s.seed + i, best, rung, "score") for i in range(seeds)]

    def learned(self, task: str, run: Record) -> tuple[float, ...]:
        """How well a run learned its task, more is better: the task's main score, then the one that ranks; () if not.

        That one may be of something else than was trained: at chance, after few steps, it says nothing of a rate.
        """
        last = str(self.rungs[-1]["rank_by"])
        names = [self.lessons[task].main, *([last] if task_of(last, self.lessons) == task else [])]
        if any(name not in run["scores"] for name in names):
            return ()
        return tuple((-1.0 if self.less(name) else 1.0) * run["scores"][name] for name in names)

    def steps(self, trial: Trial, task: str, rung: int) -> int:
        """Of a run: those of the task's own course, or of the rung; tokens are whole steps."""
        assert trial.spec is not None
        model, said = trial.spec.model, self.rungs[rung]
        if task in self.lengths:
            return self.lengths[task](model.run.batch)
        if said["tokens"] is None:
            return int(said["steps"] or model.run.steps)
        context = self.lessons[task].sizes["sizes.context"]
        return max(1, int(said["tokens"]) // (model.run.batch * context))

    def perform(self, trials: Sequence[Trial], rung: int) -> None:
        """All runs of a rung, as many at a time as there are workers."""
        tasks = self.rungs[rung]["tasks"]
        ready = [t for t in trials if t.record["status"] == "ok"]
        learnings = [self.learning(trial, task, rung) for trial in ready for task in tasks]
        going = {i: asks for i, one in enumerate(learnings) if (asks := self._next(one, None))}
        by_id, begun = {trial.id: trial for trial in ready}, set[str]()
        while going:
            left = {ask.name: ask for asks in going.values() for ask in asks if ask.name not in self.runs}
            for ask in left.values():
                if ask.name not in begun and self.workers.free:
                    begun.add(ask.name)
                    self.workers.begin(self.request(by_id[ask.trial], ask))
                    self.watch.begun(ask)
            ended = list(self.workers.ended())
            unable = [f"{request.name}: {outcome.error}" for request, outcome in ended if outcome.status == UNABLE]
            for request, outcome in ended:
                if outcome.status == UNABLE:
                    continue  # said once all others are in the journal
                ask = left.pop(request.name)
                cost = by_id[ask.trial].record["cost"][ask.task]
                run = self.journal.add("run", {**ask.as_dict(), **outcome.as_dict(cost)})
                self.runs[ask.name] = run
                self.watch.ended(run, standings(self.journal.records), list(left.values()))
            if unable:
                raise Unable(unable[0])
            for i, asks in list(going.items()):
                if all(ask.name in self.runs for ask in asks):
                    following = self._next(learnings[i], [self.runs[ask.name] for ask in asks])
                    going = {n: following if n == i else a for n, a in going.items() if n != i or following}

    def _next(self, learning: Learning, found: Sequence[Record] | None) -> list[Ask]:
        """What it asks for next that is not known yet; nothing where it is done."""
        try:
            asks = next(learning) if found is None else learning.send(found)
            while all(ask.name in self.runs for ask in asks):
                asks = learning.send([self.runs[ask.name] for ask in asks])
        except StopIteration:
            return []
        return asks

    def request(self, trial: Trial, ask: Ask) -> Request:
        assert trial.spec is not None
        s, lesson = self.search, self.lessons[ask.task]
        changes = {**trained(trial.spec, lesson.facts, lesson.sizes, ask.rates, ask.steps), "run.seed": ask.seed}
        return Request(
            name=ask.name, text=trial.text, set=changes, task=ask.task, facts=lesson.facts, data=self.data,
            items=s.fields.items, device=self.device, threads=s.fields.threads, seconds=s.limits.seconds,
            memory_mib=s.limits.memory_mib, keep=self.keep,
        )  # fmt: skip


def keeping(rung: RungFields, scored: int) -> int:
    """How many go on, of so many that have a score; all of them from the last rung."""
    if rung.keep is None:
        return scored
    return int(rung.keep) if rung.keep >= 1 else ceil(rung.keep * scored)


def resolved(search: Search, lessons: Mapping[str, Lesson]) -> list[dict[str, Any]]:
    """The rungs with everything filled in; steps None: as each variant says."""
    fields, found = search.fields, []
    for rung in search.rungs:
        tasks = list(rung.tasks or lessons)
        rank = rung.rank_by or (fields.rank_by if task_of(fields.rank_by or "", tasks) else None)
        said = rung.steps is not None or rung.tokens is not None
        steps, tokens = (rung.steps, rung.tokens) if said else (fields.budget.steps, fields.budget.tokens)
        seeds = rung.seeds or fields.seeds
        told = {"tasks": tasks, "steps": steps, "tokens": tokens, "seeds": seeds, "keep": rung.keep}
        found.append({**told, "rank_by": rank or lessons[tasks[0]].main})
    return found
