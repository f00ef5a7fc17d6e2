"""Folders of searches that nobody ran: journals line by line, with the variants that they speak of."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nlc.show import yaml_text
from nlc.spec import load

Line = dict[str, Any]

SMALL = {"sizes.width": 32, "sizes.layers": 1}
RULE, CHUNK = "levels.titans.rule", "levels.titans.chunk"
RULES = ["dgd", "gd", "momentum(beta=0.9)"]
CHUNKS = ["1", "16"]
TASKS: dict[str, dict[str, Any]] = {
    "recall": {
        "name": "mqar(pairs=4)",
        "tests": {"as trained": {}},
        "source": "Zoology, arXiv 2312.04927",
        "solved": 0.99,
    },
    "needle": {"name": "passkey", "tests": {"1k bytes": {}, "4k bytes": {}}, "source": "RULER, arXiv 2404.06654"},
}


def head(**changed: Any) -> Line:
    """Two rungs: all variants on the first task, three go on to both with three seeds."""
    rungs = [
        {"tasks": ["recall"], "steps": 100, "tokens": None, "seeds": 1, "keep": 3, "rank_by": "recall.accuracy"},
        {"tasks": list(TASKS), "steps": 300, "tokens": None, "seeds": 3, "keep": None, "rank_by": "recall.accuracy"},
    ]
    told: Line = {
        "record": "search", "at": 1.0, "version": 1, "nlc": "0.1.0", "torch": "2.13.0", "python": "3.11",
        "machine": {"processor": "made up", "cores": 2}, "digest": "d" * 64, "name": "which-rule",
        "doc": "Which update rule of titans recalls most?", "base": ["hope"], "axes": {RULE: RULES, CHUNK: CHUNKS},
        "tasks": TASKS, "sizes": {name: {"sizes.context": 64, "sizes.vocab": 64} for name in TASKS},
        "rank_by": "recall.accuracy", "better": "higher", "rungs": rungs, "set": SMALL, "specs": {},
        "budget": {"params": 100_000, "state_bytes": None, "steps": 300, "trials": 12},
        "tune": {"lr": [0.001, 0.004], "weight_decay": [0.1], "steps": 100}, "seed": 0,
    }  # fmt: skip
    return told | changed


def trial(number: int, settings: Mapping[str, str], **changed: Any) -> Line:
    cost = {"params": 90_000 + number, "state_bytes": 4096 * (1 + number % 3), "flops": 200_000 - 9_000 * number}
    told: Line = {
        "record": "trial", "at": 2.0, "trial": f"t{number:03}", "generation": 0, "base": "hope",
        "settings": dict(settings), "edits": [], "parents": [], "hash": f"{number:064x}", "status": "ok",
        "rescaled": [], "cost": dict.fromkeys(TASKS, cost), "file": f"variants/t{number:03}.yaml",
    }  # fmt: skip
    return told | changed


def run(trial: str, task: str = "recall", rung: int = 0, seed: int = 0, accuracy: float = 0.5, **changed: Any) -> Line:
    """A run with a curve; of the needle with a map."""
    steps, low, high = (100, 300)[rung], max(0.0, accuracy - 0.04), min(1.0, accuracy + 0.04)
    at = list(range(10, steps + 1, 10))
    told: Line = {
        "record": "run", "at": 3.0, "run": f"{trial}-{task}-{steps}-s{seed}-lr0.004", "trial": trial, "task": task,
        "steps": steps, "seed": seed, "rung": rung, "purpose": "score", "lr": 0.004, "weight_decay": 0.1,
        "status": "ok", "scores": {f"{task}.accuracy": accuracy, f"{task}.loss": 3 - 2 * accuracy},
        "intervals": {f"{task}.accuracy": [low, high]}, "retries": 0,
        "curve": {
            "step": at, "tokens": [512 * n for n in at], "train/loss": [3 - 2 * accuracy * n / steps for n in at],
            "val/accuracy": [accuracy * n / steps if n % 50 == 0 else None for n in at],
        },
        "cost": {"params": 90_000, "state_bytes": 4096, "flops": 200_000, "tokens": 512 * steps, "seconds": 30.5,
                 "peak_memory": 3 * 2**28},
    }  # fmt: skip
    if task == "needle":
        told["maps"] = [
            {"test": test, "context": context, "learn": "on", "by": "depth", "cells": [
                {"at": depth, "accuracy": round(accuracy * less * (1 - abs(depth - 0.5) / 2), 3), "low": 0.1,
                 "high": 0.9, "answers": 40} for depth in (0.0, 0.25, 0.5, 0.75, 1.0)]}
            for test, context, less in (("1k bytes", 1024, 1.0), ("4k bytes", 4096, 0.5))
        ]  # fmt: skip
    return told | changed


def failed(trial: str, status: str, error: str, **changed: Any) -> Line:
    return run(trial, status=status, error=error, scores={}, intervals={}, **changed)


DIAGNOSTIC = {
    "code": "NLC0801", "severity": "error", "file": "which-rule.yaml", "line": 8, "column": 28,
    "message": "'gd' has no parameter 'beta'", "hint": "gd takes lr", "notes": [],
}  # fmt: skip


def whole() -> list[Line]:
    """Everything that can happen, once: ranks, a duplicate, a refusal, failures, mutants, two rungs, the end."""
    rng, lines = random.Random(0), [head()]
    scores: dict[str, float] = {}
    number = 0
    for rule in RULES:
        for chunk in CHUNKS:
            number += 1
            id, labels = f"t{number:03}", {RULE: rule, CHUNK: chunk}
            if number == 4:
                lines.append(trial(number, labels, status="duplicate", of="t003"))
            elif number == 6:
                error = "which-rule.yaml:8:28: error: 'gd' has no parameter 'beta'"
                refused = {"status": "rejected", "diagnostics": [DIAGNOSTIC], "error": error, "hash": None, "cost": {}}
                lines.append(trial(number, labels, **refused))
            else:
                scores[id] = round(0.9 - 0.1 * number + 0.02 * rng.random(), 3)
                lines.append(trial(number, labels, rescaled=["sizes.width 32 -> 28: 98,112 of 100,000 params (98 %)"]))
    lines.append(failed("t005", "crashed", "Traceback\n  File x\nRuntimeError: <b>shapes</b> do not fit"))
    del scores["t005"]
    lines += [run(id, accuracy=value) for id, value in scores.items()]
    for number, (parents, edit) in enumerate(MUTANTS, 7):
        id = f"t{number:03}"
        told = {"generation": 1 + (number > 8), "parents": parents, "edits": [{"edit": edit, "kind": "rule"}]}
        lines.append(trial(number, {}, **told))
        if number == 8:
            lines.append(failed(id, "not_finite", "loss is not finite at step 30", purpose="score"))
        else:
            scores[id] = round(0.5 + 0.04 * number, 3)
            lines.append(run(id, accuracy=scores[id]))
    kept = sorted(scores, key=lambda id: -scores[id])[:3]
    lines.append({"record": "rung", "at": 4.0, "rung": 0, "rank_by": "recall.accuracy", "scores": scores, "kept": kept})
    final = {}
    for id in kept:
        found = [round(min(1.0, scores[id] + 0.02 * seed), 3) for seed in range(3)]
        final[id] = sum(found) / 3
        for seed, value in enumerate(found):
            lines.append(run(id, rung=1, seed=seed, accuracy=value))
            lines.append(run(id, "needle", rung=1, seed=seed, accuracy=value))
    kept = sorted(final, key=lambda id: -final[id])
    lines.append({"record": "rung", "at": 5.0, "rung": 1, "rank_by": "recall.accuracy", "scores": final, "kept": kept})
    runs = sum(line["record"] == "run" for line in lines)
    lines.append(
        {"record": "end", "at": 6.0, "trials": number, "runs": runs, "seconds": 30.5 * runs, "winner": kept[0]}
    )
    return lines


MUTANTS = (
    (["t001"], "memory cms.fast: every 64 tokens -> 32 tokens"),
    (["t003"], "level titans: rule dgd -> gd"),
    (["t007"], "level titans: objective l2 -> dot, which is a sentence long enough to be cut where there is no room"),
    (["t007", "t002"], "level titans comes from t002"),
)


def variants() -> Iterator[tuple[str, Mapping[str, object]]]:
    """Trial, and what it changes of hope, of those that reach the last rung."""
    changes = {RULE: "gd", CHUNK: "16"}
    yield from {"t001": {RULE: "dgd"}, "t009": changes, "t010": {CHUNK: "1"}, "t007": {CHUNK: "16"}}.items()


def folder(path: Path, lines: Sequence[Line], texts: bool = True) -> Path:
    """The folder of a search with this journal."""
    (path / "variants").mkdir(parents=True)
    (path / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    for id, changes in variants() if texts else ():
        text = yaml_text(load("hope", {**SMALL, **changes}).resolved())
        (path / "variants" / f"{id}.yaml").write_text(text, encoding="utf-8")
    return path
