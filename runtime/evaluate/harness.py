"""lm-evaluation-harness: its tasks, asked of a model that has a state (`pip install 'nlc[eval]'`).

    harness.evaluate(trained, ["piqa", "arc_easy"], limit=100)

A context is read once; every continuation goes on from the state after it, and no request sees what another has read.
Only what is installed is used: a task's data are found by the harness, on this machine or wherever it may look.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from runtime.errors import DATA_MISSING, USAGE, DataError, RunError
from runtime.session import Session
from runtime.session.decoding import decoder
from runtime.session.sampling import Sampling
from runtime.trained import Trained

PREFIX = "lm-eval:"  # before any other task of the harness, or the file or folder of one
NAMES = {  # by our name: theirs
    "piqa": "piqa",
    "hellaswag": "hellaswag",
    "winogrande": "winogrande",
    "arc_easy": "arc_easy",
    "arc_challenge": "arc_challenge",
    "siqa": "social_iqa",
    "boolq": "boolq",
    "lambada": "lambada_openai",
    "wikitext": "wikitext",
}


def named(task: str) -> str | None:
    """What the harness calls a task: one of NAMES, or what stands after the prefix; None where it is not for it."""
    return task.removeprefix(PREFIX) if task.startswith(PREFIX) else NAMES.get(task)


@dataclass(frozen=True, slots=True)
class Answers:
    """What the harness found: task -> metric -> value; versions of its tasks; learn: whether levels wrote."""

    learn: bool
    results: Mapping[str, Mapping[str, float]]
    items: Mapping[str, int]

    def as_dict(self) -> dict[str, Any]:
        return {"learn": "on" if self.learn else "off", "results": self.results, "items": self.items}


def evaluate(
    trained: Trained, tasks: Sequence[str], *, limit: int | None = None, ways: Sequence[bool] = (True,)
) -> list[Answers]:
    """Ask tasks by the harness's names, or files that describe them, with learning on or off as each of `ways` says.

    limit: the first so many items of each.
    Raises RunError and DataError as `ready` does.
    """
    lm_eval, manager, wanted = ready(tasks)
    model, answers = adapter(), []
    for learn in ways:
        found = lm_eval.simple_evaluate(
            model=model(trained, learn), tasks=wanted, limit=limit, task_manager=manager, bootstrap_iters=0,
            log_samples=False,
        )  # fmt: skip
        results = {
            task: {
                metric.removesuffix(",none"): float(value) for metric, value in row.items() if is_metric(metric, value)
            }
            for task, row in found["results"].items()
        }
        answers.append(Answers(learn, results, {task: int(n["effective"]) for task, n in found["n-samples"].items()}))
    return answers


def ready(tasks: Sequence[str]) -> tuple[Any, Any, list[str]]:
    """The harness, its TaskManager, and what it calls the tasks, which can be asked.

    Raises RunError where the harness is not installed or has no such task, DataError where its data cannot be had.
    """
    lm_eval, manager_of = library()
    files = [Path(task) for task in tasks if Path(task).suffix in (".yaml", ".yml") or "/" in task]
    for file in files:
        if not file.exists():
            raise DataError(f"no such file or folder: '{file}'")
    folders = sorted({str(file if file.is_dir() else file.parent) for file in files})
    manager = manager_of(include_path=folders or None, include_defaults=len(files) < len(tasks))  # a thousand files
    wanted = [name for task in tasks for name in within(task)]
    if unknown := [name for name in wanted if name not in manager.all_tasks]:
        raise RunError(f"lm-evaluation-harness has no task '{unknown[0]}'", USAGE)
    try:
        lm_eval.tasks.get_task_dict(wanted, manager)
    except Exception as error:  # no file, no network, no such set: each library that looks for it has errors of its own
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise DataError(f"the data of {', '.join(wanted)} cannot be had: {first}") from None
    return lm_eval, manager, wanted


def is_metric(name: str, value: object) -> bool:
    """acc,none and its like; not their errors, nor names and numbers of items."""
    return "," in name and "_stderr" not in name and isinstance(value, int | float)


def library() -> tuple[Any, Any]:
    """The harness and its TaskManager."""
    try:
        import lm_eval
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        message = "this task is lm-evaluation-harness's, which is not installed: pip install 'nlc[eval]'"
        raise RunError(f"{message} ({error})", DATA_MISSING) from None
    return lm_eval, TaskManager


def within(task: str) -> list[str]:
    """The names of a task: of a file or folder, those that it describes."""
    import yaml

    path = Path(task)
    if not path.exists() or ("/" not in task and not path.suffix):
        return [task]
    files = sorted(path.glob("*.yaml")) if path.is_dir() else [path]
    names = []
    for file in files:
        try:
            said = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError) as error:
            raise DataError(f"'{file}': {error}", USAGE) from None
        if isinstance(said, dict) and isinstance(said.get("task"), str):
            names.append(said["task"])
    if not names:
        wanted = "a key 'task' with its name is expected"
        raise DataError(f"'{task}' describes no task of lm-evaluation-harness: {wanted}", USAGE)
    return names


def adapter() -> type[Any]:
    """The class that the harness talks to; made when it is there."""
    from lm_eval.api.model import LM

    class Stateful(LM):  # type: ignore[misc]
        """Log-likelihoods and text of a model that reads one stream at a time."""

        def __init__(self, trained: Trained, learn: bool) -> None:
            super().__init__()
            self.reader = Reader(trained, learn)

        def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
            return self.reader.likelihoods([request.args for request in requests])

        def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
            return [self.reader.rolling(*request.args) for request in requests]

        def generate_until(self, requests: Sequence[Any]) -> list[str]:
            return [self.reader.until(*request.args) for request in requests]

    return Stateful


class Reader:
    """Requests of texts, answered from a session that begins anew for each context."""

    def __init__(self, trained: Trained, learn: bool) -> None:
        self.session = Session(trained, learn=learn)

    def begun(self, context: str) -> Session:
        """A session that has read what stands before a document, and the context."""
        session = self.session
        session.reset()
        session.begin()
        if len(ids := session.ids(context)):
            session.read(ids)
        return session

    def likelihoods(self, requests: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
        """(log p(continuation | context), whether each of its tokens was the likeliest), in the order of the requests.

        A context that several requests share is read once.
        """
        by_context: dict[str, list[int]] = {}
        for i, (context, _) in enumerate(requests):
            by_context.setdefault(context, []).append(i)
        found: list[tuple[float, bool]] = [(0.0, True)] * len(requests)
        for context, numbers in by_context.items():
            after = self.begun(context)
            for i in numbers:
                found[i] = self.scored(after.fork(), requests[i][1])
        return found

    def scored(self, session: Session, continuation: str) -> tuple[float, bool]:
        ids_T = session.ids(continuation)
        if not len(ids_T):
            return 0.0, True
        known = session.stream.logits
        assert known is not None
        rows = [known[None], session.feed(ids_T[:-1])] if len(ids_T) > 1 else [known[None]]
        log_TV = torch.log_softmax(torch.cat(rows).double(), -1)
        told_T = ids_T.to(log_TV.device)
        return float(log_TV.gather(1, told_T[:, None]).sum()), bool((log_TV.argmax(-1) == told_T).all())

    def rolling(self, text: str) -> float:
        """log p(text), every token after all before it: a state has no longest context."""
        session = self.begun("")
        before = session.stream.surprise.nats
        ids = session.ids(text)
        if len(ids):
            session.read(ids)
        return before - session.stream.surprise.nats

    def until(self, context: str, how: Mapping[str, Any]) -> str:
        """Text until one of the strings `until`, which is left out, or so many tokens: the likeliest, or drawn."""
        stops = [how["until"]] if isinstance(how.get("until"), str) else list(how.get("until") or ())
        most = int(how.get("max_gen_toks", 256))
        heat = float(how.get("temperature", 0.0)) if how.get("do_sample") else 0.0
        session, text = self.begun(context), ""
        said = decoder(session.trained.codec)
        for token in session.generate(most, Sampling(temperature=heat)):
            text += said.feed(token)
            if ends := [text.index(stop) for stop in stops if stop and stop in text]:
                return text[: min(ends)]
        return text + said.end()
