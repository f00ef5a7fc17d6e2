"""Language models of several specs on the same text: at equal wall time, or at equal tokens.

    python bench/text.py --out bench/results/text --seconds 600
    python bench/text.py --out bench/results/text --tokens 819200 --systems hope,hope_off,transformer

One thread.  First every system tries the same grid of learning rates, each for the same tokens; then each trains with
the rate that reached the fewest bits per byte, for the same seconds of its own process time or for the same tokens.
Runs alternate in short blocks, so that whatever slows the machine slows all alike.  The command may be killed at any
moment: given again, it goes on with what is not finished.

Writes OUT/seconds-600.json (everything) and OUT/seconds-600.md (the table).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import facts
import torch
from timed import Budget, Done, Job, interleave, say

import nlc
from nlc.spec import Spec
from runtime import data as texts
from runtime.errors import RunError

RULE = "levels.train.rule"  # its lr is what is tuned


@dataclass(frozen=True, slots=True)
class System:
    """A row: a spec with some values set, or (`of`) the weights of another row's, judged with learning off."""

    title: str
    spec: str = ""
    set: Mapping[str, object] = field(default_factory=dict)
    of: str = ""


def never(*memories: str) -> dict[str, object]:
    return {f"levels.cms.memories.{name}.every": "never" for name in memories}


SYSTEMS = {
    "hope": System("hope", "hope"),
    "hope_off": System("hope, the same weights, learning off at test time", of="hope"),
    "hope_never": System("hope, its continuum at `never`", "hope", never("fast", "mid", "slow")),
    "hope_still": System("hope, its continuum at `never` inside a sequence", "hope", never("fast", "mid")),
    "hope_attention": System("hope_attention", "hope_attention"),
    "hope_deep": System("hope_deep", "hope_deep"),
    "titans_lmm": System("titans_lmm", "titans_lmm"),
    "linear_attention": System("linear_attention", "linear_attention"),
    "transformer": System("transformer", "transformer"),
}
USUAL = ("hope", "hope_off", "hope_never", "transformer")


# ---- jobs -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Plan:
    """What the command line asks for."""

    systems: tuple[str, ...]
    rates: tuple[str, ...]
    tune_tokens: int
    seconds: float
    tokens: int
    seed: int
    set: Mapping[str, object]
    text: Path | None
    validation_tokens: int
    work: Path

    @property
    def trained(self) -> list[str]:
        """The systems that have weights of their own, those included whose weights another row needs."""
        return list(dict.fromkeys(SYSTEMS[name].of or name for name in self.systems))

    @property
    def name(self) -> str:
        return f"seconds-{self.seconds:g}" if self.seconds else f"tokens-{self.tokens}"


def with_rate(rule: str, rate: str) -> str:
    """adamw(lr=4e-3, betas=(0.9, 0.95)), "1e-3" -> adamw(lr=1e-3, betas=(0.9, 0.95))."""
    changed, count = re.subn(r"\blr\s*=\s*[^,)\s]+", f"lr={rate}", rule)
    if count != 1:
        raise ValueError(f"a rule with one lr is needed: {rule}")
    return changed


def spec_of(system: System, rate: str, given: Mapping[str, object]) -> Spec:
    chosen = {**system.set, **given}
    written = next(level.rule for level in nlc.load(system.spec, set=chosen).model.levels if level.name == "train")
    return nlc.load(system.spec, set={**chosen, RULE: with_rate(str(written), rate)})


def steps_of(tokens: int, spec: Spec) -> int:
    """The steps that read `tokens` tokens, to the nearest."""
    return max(1, round(tokens / (spec.model.run.batch * spec.model.sizes["context"])))


def job(plan: Plan, digest: str, name: str, rate: str, *, tuning: bool, speed: float = 0.0) -> Job:
    """A run of a system, in a folder of its own: anything that changes what it means changes the folder."""
    spec = spec_of(SYSTEMS[name], rate, plan.set)
    if tuning or not plan.seconds:
        budget = Budget(steps=steps_of(plan.tune_tokens if tuning else plan.tokens, spec))
    else:
        budget = Budget(seconds=plan.seconds)
    meaning = [spec.resolved(), digest, plan.seed, budget.steps, budget.seconds, nlc.__version__]
    key = hashlib.sha256(json.dumps(meaning, sort_keys=True, default=str).encode()).hexdigest()[:10]
    length = f"{budget.seconds:g}s" if budget.seconds else f"{budget.steps}"
    guess = math.ceil(plan.seconds * speed)
    folder = plan.work / name / f"{rate}-{length}-{key}"
    return Job(folder, spec, budget, text=plan.text, seed=plan.seed, guess=guess)


# ---- the two stages -------------------------------------------------------------------------------------------------


def tune(plan: Plan, digest: str, block: float) -> dict[str, dict[str, Job]]:
    """system -> rate -> its finished run.  One rate needs no trial."""
    if len(plan.rates) == 1:
        return {}
    jobs = {name: {rate: job(plan, digest, name, rate, tuning=True) for rate in plan.rates} for name in plan.trained}
    interleave([one for row in jobs.values() for one in row.values()], block, say)
    return jobs


def outcome(done: Done) -> dict[str, Any]:
    """What is kept of a finished run; bits_per_byte is None where it diverged."""
    result = done.result or {}
    return {
        "steps": done.step,
        "tokens": result.get("tokens"),
        "seconds": round(done.spent, 2),
        "tokens_per_s": round(result["tokens"] / done.spent, 1) if result else None,
        "parameters": result.get("parameters"),
        "bits_per_byte": result.get("val_bits_per_byte"),
        "validation_tokens": result.get("val_tokens"),
        "fires": result.get("fires"),
        **({"failure": done.failure} if done.failure else {}),
    }


def best(trials: Mapping[str, Mapping[str, Any]]) -> str:
    """The rate with the fewest bits per byte; the smaller of two that are equal."""
    reached = {rate: trial["bits_per_byte"] for rate, trial in trials.items() if trial["bits_per_byte"] is not None}
    if not reached:
        raise RunError(f"every learning rate diverged: {', '.join(trials)}")
    return min(reached, key=lambda rate: (reached[rate], float(rate)))


def run(plan: Plan, out: Path, block: float) -> str:
    """Everything that is not done yet; the Markdown that was written last."""
    text = texts.load(plan.text)
    place = facts.place(text)
    tuned = tune(plan, text.digest, block)
    trials = {name: {rate: outcome(one.done) for rate, one in row.items()} for name, row in tuned.items()}
    rates = {name: best(trials[name]) if trials else plan.rates[0] for name in plan.trained}
    jobs = {}
    for name, rate in rates.items():
        trial = trials.get(name, {}).get(rate)
        speed = trial["steps"] / trial["seconds"] if trial else 0.0
        jobs[name] = job(plan, text.digest, name, rate, tuning=False, speed=speed)
    interleave(list(jobs.values()), block, say)
    place = facts.together([one.made(place) for one in jobs.values()])
    rows = [row(plan, name, jobs, rates) for name in plan.systems]
    record = {
        "measures": "validation bits per byte after training for equal "
        + (f"process time, {plan.seconds:g} s on one thread" if plan.seconds else f"tokens, {plan.tokens}"),
        **place,
        "settings": {
            "threads": 1,
            "block_seconds": block,
            "seed": plan.seed,
            "set": dict(plan.set),
            "rates": list(plan.rates),
            "tuning_tokens": plan.tune_tokens,
            "validation_tokens": plan.validation_tokens,
        },
        "rows": rows,
        "tuning": trials,
        "references": dict(facts.REFERENCES),
    }
    markdown = rendered(record)
    facts.write(out / plan.name, record, markdown)
    return markdown


def row(plan: Plan, name: str, jobs: Mapping[str, Job], rates: Mapping[str, str]) -> dict[str, Any]:
    """A finished system, judged on the same validation sequences as every other."""
    system = SYSTEMS[name]
    of = system.of or name
    one = jobs[of]
    found = outcome(one.done)
    if not one.done.failure:
        judged = one.judge(plan.validation_tokens, learn=not system.of)
        found |= {"bits_per_byte": judged["bits_per_byte"], "validation_tokens": judged["tokens"]}
    head = {"system": name, "title": system.title, "spec": one.spec.source, "set": dict(SYSTEMS[of].set)}
    return {
        **head,
        "learning": not system.of,
        "graph": one.graph(),
        "sizes": one.spec.model.sizes,
        "batch": one.spec.model.run.batch,
        "rate": rates[of],
        **found,
        "curve": one.curve(),
        "folder": str(one.folder.relative_to(plan.work)),  # below --work
    }


# ---- what is written ------------------------------------------------------------------------------------------------


def rendered(record: Mapping[str, Any]) -> str:
    """The result as Markdown: the table, the yardsticks, the grid, the place."""
    settings, rows = record["settings"], record["rows"]
    tokens = ", ".join(sorted({f"{x['validation_tokens']:,}" for x in rows if x["validation_tokens"]}))
    columns = ["system", "bits per byte", "parameters", "tokens", "steps", "seconds", "tokens/s", "rate"]
    lines = [
        [
            x["title"],
            bits(x["bits_per_byte"], 4),
            *(count(x[name]) for name in ("parameters", "tokens", "steps", "seconds", "tokens_per_s")),
            x["rate"],
        ]
        for x in rows
    ]
    parts = [
        f"# {record['measures'][0].upper()}{record['measures'][1:]}",
        facts.table(columns, lines),
        f"Validation: {tokens} tokens. Seconds: of the training steps, on one thread. {facts.references()}.",
    ]
    if record["tuning"]:
        grid = [
            [name, *(bits(trials[rate]["bits_per_byte"], 3) for rate in settings["rates"]), best(trials)]
            for name, trials in record["tuning"].items()
        ]
        parts += [
            f"Learning rates, each tried for {settings['tuning_tokens']:,} tokens; bits per byte:",
            facts.table(["system", *settings["rates"], "chosen"], grid),
        ]
    if settings["set"]:
        parts.append("Set for all: " + ", ".join(f"`{key}={value}`" for key, value in settings["set"].items()) + ".")
    return "\n\n".join([*parts, facts.said(record)]) + "\n"


def bits(value: float | None, digits: int) -> str:
    return "diverged" if value is None else f"{value:.{digits}f}"


def count(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


# ---- the command ----------------------------------------------------------------------------------------------------


def parse(arguments: Sequence[str] | None = None) -> tuple[Plan, Path, float]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, default=Path("bench/results/text"), help="folder of the tables (%(default)s)"
    )
    parser.add_argument("--work", type=Path, default=Path("build/bench/text"), help="folder of the runs (%(default)s)")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--seconds", type=float, default=0.0, help="process time of each system (600)")
    length.add_argument("--tokens", type=int, default=0, help="tokens of each system")
    parser.add_argument("--systems", default=",".join(USUAL), help=f"of {', '.join(SYSTEMS)} (%(default)s)")
    parser.add_argument(
        "--rates", default="1e-3,2e-3,4e-3,8e-3,1.6e-2", help="learning rates that are tried (%(default)s)"
    )
    parser.add_argument("--tune-tokens", type=int, default=307_200, help="tokens a rate is tried for (%(default)s)")
    parser.add_argument("--validation-tokens", type=int, default=262_144, help="0 is all (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, help="a text file or a folder (the source of Python's standard library)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="in every spec; repeatable")
    parser.add_argument("--block", type=float, default=20.0, help="seconds of a block (%(default)s)")
    given = parser.parse_args(arguments)
    systems = tuple(given.systems.split(","))
    if unknown := [name for name in systems if name not in SYSTEMS]:
        parser.error(f"unknown system '{unknown[0]}': one of {', '.join(SYSTEMS)}")
    if wrong := [pair for pair in given.set if "=" not in pair]:
        parser.error(f"--set {wrong[0]}: expected KEY=VALUE")
    plan = Plan(
        systems=systems,
        rates=tuple(given.rates.split(",")),
        tune_tokens=given.tune_tokens,
        seconds=0.0 if given.tokens else given.seconds or 600.0,
        tokens=given.tokens,
        seed=given.seed,
        set=dict(pair.split("=", 1) for pair in given.set),
        text=given.data,
        validation_tokens=given.validation_tokens,
        work=given.work,
    )
    return plan, given.out, given.block


def main(arguments: Sequence[str] | None = None) -> int:
    plan, out, block = parse(arguments)
    torch.set_num_threads(1)
    with facts.alone(plan.work):
        print(run(plan, out, block))
    return 0


if __name__ == "__main__":
    sys.exit(facts.ended(main))
