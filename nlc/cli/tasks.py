"""The command that shows tasks: what there is, one of them, and items of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from nlc.cli import completion
from nlc.cli.common import MOST_ITEMS, JsonOption, Stop, calm_threads, say, say_json

if TYPE_CHECKING:
    from nlc.spec import TaskSpec
    from runtime.evaluate.tasks import Items, Task


def register(app: typer.Typer) -> None:
    app.command()(tasks)


def tasks(
    task: Annotated[
        str | None,
        typer.Argument(metavar="[TASK]", help="A name, mqar(pairs=16), or a path.", autocompletion=completion.tasks),
    ] = None,
    items: Annotated[
        int, typer.Option("--items", min=0, max=MOST_ITEMS, help="Show so many of its training items.")
    ] = 1,
    json_: JsonOption = False,
) -> None:
    """List the tasks, or show one: knobs, tests, chance, items.

    Example: nlc tasks 'mqar(pairs=4, context=24)'
    """
    calm_threads()
    from nlc.spec import load_task
    from nlc.spec import tasks as shipped

    if task is None:
        every = [load_task(name) for name in shipped()]
        if json_:
            say_json({"tasks": [facts(one) for one in every]})
        else:
            wide = max(len(one.name) for one in every)
            say(
                "\n".join(
                    f"{one.name:{wide}}  chance {percent(facts(one)['chance']):>9}  {one.source}" for one in every
                )
            )
        return
    spec = load_task(task)
    found = facts(spec) | {"items_shown": examples(spec, items)}
    say_json(found) if json_ else say(text(spec, found))


def facts(spec: TaskSpec) -> dict[str, Any]:
    """As JSON: the task, and what follows from it."""
    task = runnable(spec)
    kind = task.kind()
    follows = {"doc": " ".join(spec.doc.split()), "sweep": [dict(s) for s in spec.sweep], "vocab": kind.vocab}
    return {**task.as_dict(), **follows, "chance": kind.chance}


def runnable(spec: TaskSpec) -> Task:
    """The task that makes items and trains."""
    from runtime.evaluate.tasks import Task

    return Task.read(spec.as_dict())


def examples(spec: TaskSpec, count: int) -> list[dict[str, Any]]:
    """Training items: tokens, and targets where something is asked; of bytes as text."""
    if not count:
        return []
    from runtime import exercise
    from runtime.errors import RunError

    task = runnable(spec)
    try:
        of = exercise.load(task)
    except RunError as error:
        raise Stop(error.status, str(error)) from None
    course = of.course(1)
    found = of.items("train", range(count) if course is None else course.numbers[:count])
    return [example(found, i, task.kind().vocab == 256 and task.kind().choices == range(256)) for i in range(count)]


def example(items: Items, i: int, text: bool) -> dict[str, Any]:
    tokens, targets = items.tokens[i].tolist(), items.targets[i].tolist()
    if not text:
        return {"tokens": tokens, "targets": [None if y < 0 else y for y in targets]}
    answers = [
        bytes(items.targets[i][items.answers[i] == n].tolist()).decode() for n in range(int(items.answers.max()) + 1)
    ]
    return {"text": bytes(tokens).decode("utf-8", errors="replace"), "answers": answers}


def percent(share: float | None) -> str:
    if share is None:
        return "-"
    return f"{100 * share:.3g} %" if share >= 1e-4 or not share else "< 0.01 %"


def text(spec: TaskSpec, found: dict[str, Any]) -> str:
    """For a person."""
    from textwrap import fill

    def changed(of: dict[str, Any]) -> str:
        return ", ".join(f"{knob} {value}" for knob, value in of.items()) or "as in training"

    lines = [spec.name, "", fill(found["doc"], 100), "", f"source    {spec.source}", f"items     {spec.items}"]
    lines += [f"knobs     {changed(found['knobs'])}", f"examples  {spec.examples or 'as many as there are steps for'}"]
    lines += [f"test      {name}: {changed(dict(change))}" for name, change in spec.changes.items()]
    lines += [f"sweep     {changed(degree)}" for degree in found["sweep"]]
    lines += [
        f"vocab     {found['vocab']}",
        f"chance    {percent(found['chance'])}",
        f"solved    {percent(spec.solved)}",
    ]
    for item in found["items_shown"]:
        if "text" in item:
            lines += ["", item["text"], "", f"answers   {', '.join(item['answers'])}"]
        else:
            wide = max(len(str(token)) for token in item["tokens"])
            rows = [item["tokens"], ["." if y is None else y for y in item["targets"]]]
            lines += ["", *(" ".join(f"{word:>{wide}}" for word in row) for row in rows)]
    return "\n".join(lines)
