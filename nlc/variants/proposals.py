"""Which variants are tried next: grids, draws, optuna's samplers, mutants.

proposals(search) is a generator of batches of candidates.  It is sent what became of all trials so far, in order, and
asks for nothing else: the same scores lead to the same candidates, however the runs were spread over processes and
however often the search was interrupted.
"""

from __future__ import annotations

import random
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

from nlc.variants.axes import ENUMERATED, combinations, count, drawn
from nlc.variants.search import Search
from nlc.variants.variant import Candidate, chosen

TRIES = 1_000  # draws that may be known already, one after another, before there is taken to be nothing new


@dataclass(frozen=True, slots=True)
class Tried:
    """A trial.  text: its spec, where it is legal; score: of the first rung, more is better, None without one."""

    trial: str
    candidate: Candidate
    text: str | None
    score: float | None


Proposals = Generator[list[Candidate], Sequence[Tried], Sequence[Tried]]


def proposals(search: Search) -> Proposals:
    """At most as many candidates as the budget has trials; gives back what became of all."""
    name, most = search.sampler.name, search.fields.budget.trials
    first = _grid(search) if name == "grid" else _random(search) if name == "random" else _sampled(search)
    tried = yield from _within(first, search.drawn)
    if search.mutate is not None:
        left = None if most is None else most - len(tried)
        tried = yield from _within(_mutants(search, tried), left, tried)
    return tried


def _within(source: Proposals, most: int | None, tried: Sequence[Tried] = ()) -> Proposals:
    """So many candidates of a source, whatever it would go on with."""
    batch = next(source, [])
    while batch and most != 0:
        batch = batch if most is None else batch[:most]
        most = None if most is None else most - len(batch)
        tried = yield batch
        try:
            batch = [] if most == 0 else source.send(tried)
        except StopIteration:
            break
    return tried


def _grid(search: Search) -> Proposals:
    """Every combination; where the budget has fewer trials, a seeded draw of them, in the grid's order."""
    if search.drawn is not None:
        return (yield from _random(search))
    return (yield [chosen(search, labels) for labels in combinations(search.axes)])


def _random(search: Search) -> Proposals:
    """Different combinations, all in one batch; in the grid's order where that is known."""
    most = search.drawn or 0
    rng = random.Random(f"{search.fields.seed} axes")
    if count(search.axes, ENUMERATED) < ENUMERATED:
        every = list(combinations(search.axes))
        wanted = sorted(rng.sample(range(len(every)), min(most, len(every))))
        return (yield [chosen(search, every[i]) for i in wanted])
    found: dict[tuple[tuple[str, str], ...], None] = {}
    misses = 0
    while len(found) < most and misses < TRIES:
        labels = tuple(drawn(search.axes, rng).items())
        misses = misses + 1 if labels in found else 0
        found[labels] = None
    return (yield [chosen(search, dict(labels)) for labels in found])


def _sampled(search: Search) -> Proposals:
    """Whole batches are asked for, and told of; one that came to nothing is told as failed."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize", sampler=_sampler(search))
    while True:
        trials = [study.ask() for _ in range(search.sampler.batch)]
        batch = [chosen(search, _suggested(search, trial)) for trial in trials]
        tried = yield batch
        for trial, one in zip(trials, tried[-len(batch) :], strict=False):
            failed = optuna.trial.TrialState.FAIL
            study.tell(trial, one.score) if one.score is not None else study.tell(trial, state=failed)


def _sampler(search: Search) -> Any:
    from optuna import samplers

    seed = search.fields.seed
    match search.sampler.name:
        case "tpe":
            return samplers.TPESampler(seed=seed, n_startup_trials=2 * search.sampler.batch)
        case "gp":
            return samplers.GPSampler(seed=seed, deterministic_objective=True)
    return samplers.NSGAIISampler(seed=seed, population_size=search.sampler.batch)


def _suggested(search: Search, trial: Any) -> dict[str, str]:
    labels: dict[str, str] = {}
    for axis in search.axes:
        if axis.applies(labels):
            labels[axis.name] = trial.suggest_categorical(axis.name, axis.labels)
    return labels


def _mutants(search: Search, tried: Sequence[Tried]) -> Proposals:
    """Generation after generation: edits of the best that there are by then, some of them of two."""
    told = search.mutate
    assert told is not None
    for generation in range(1, told.generations + 1):
        parents = sorted(
            (one for one in tried if one.score is not None and one.text is not None),
            key=lambda one: (-(one.score or 0.0), one.trial),
        )[: told.parents]
        if not parents:
            break
        tried = yield [_child(search, generation, number, parents) for number in range(told.population)]
    return tried


def _child(search: Search, generation: int, number: int, parents: Sequence[Tried]) -> Candidate:
    """A mutant by its own seed: the same whatever its siblings are."""
    from nlc.variants.mutants import child

    assert search.mutate is not None
    rng = random.Random(f"{search.fields.seed} mutant {generation} {number}")
    first = parents[rng.randrange(len(parents))]
    others = [one for one in parents if one is not first]
    second = rng.choice(others) if others and rng.random() < search.mutate.cross else None
    return child(first, second, generation, rng)
