"""Commands that look at a spec: check, show, graph, explain, schema.  None of them imports torch."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nlc.cli import completion
from nlc.cli.common import (
    JsonOption,
    MemoryOption,
    SetOption,
    SpecArgument,
    Status,
    Stop,
    TargetOption,
    called,
    choose,
    note,
    say,
    say_json,
    say_or_write,
    settings,
)
from nlc.target import Target

if TYPE_CHECKING:
    from nlc.graph.graph import Graph
    from nlc.spec import RuleSpec, TaskSpec
    from nlc.variants.search import Search

AfterOption = Annotated[
    str | None, typer.Option("--after", metavar="PASS", help="The graph as it is after this pass.", show_default=False)
]
OutFile = Annotated[Path | None, typer.Option("-o", "--out", metavar="FILE", help="Write to a file, not to stdout.")]


class Format(StrEnum):
    text = "text"
    mermaid = "mermaid"
    dot = "dot"
    json = "json"
    svg = "svg"


def register(app: typer.Typer) -> None:
    for command in (check, show, graph, explain, schema):
        app.command()(command)


def check(
    specs: Annotated[
        list[str], typer.Argument(metavar="SPEC", help="Paths, shipped names, or -.", autocompletion=completion.specs)
    ],
    set_: SetOption = None,
    json_: JsonOption = False,
) -> int:
    """Check specs, rules, tasks and searches: spelling, shapes, clocks, causality.

    Example: nlc check hope --set sizes.width=96
    """
    from nlc import passes
    from nlc.diagnostics import SpecError
    from nlc.graph.choices import rule_of
    from nlc.graph.unheeded import unheeded
    from nlc.inherit import inherited
    from nlc.spec import load

    chosen, results = settings(set_), []
    for spec in specs:
        result: dict[str, Any] = {"spec": called(spec), "ok": True, "diagnostics": []}
        try:
            if (rule := rule_in(spec, chosen)) is not None:
                rule_of(rule)  # which makes the forms of its memories
                result |= {"rule": rule.name, "params": dict(rule.params)}
                results.append(result)
                if not json_:
                    say(f"{spec}: ok (a rule of {counted(len(rule.levels), 'level')})")
                continue
            if (task := task_in(spec, chosen)) is not None:
                result |= {"task": task.name, "items": task.items, "knobs": dict(task.knobs)}
                results.append(result)
                if not json_:
                    say(f"{spec}: ok (a task with {counted(len(task.tests), 'test set')})")
                continue
            if (search := search_in(spec, chosen)) is not None:
                result |= {"search": search.name, "base": list(search.bases), "tasks": list(search.tasks)}
                results.append(result)
                if not json_:
                    axes, learned = counted(len(search.axes), "axis", "axes"), counted(len(search.tasks), "task")
                    say(f"{spec}: ok (a search over {axes}, {learned})")
                continue
            loaded = load(spec, chosen)
            result |= summary(made := passes.build(loaded)) | inherited(made).as_dict()
            result |= {"rules": hiding} if (hiding := loaded.rules.hiding()) else {}
            result |= {"warnings": [w.as_dict() for w in warnings]} if (warnings := unheeded(made)) else {}
            if not json_:
                say(f"{called(spec)}: ok ({sentence(result)})")
                for line in (*hidden(hiding), *(warning.text("warning") for warning in warnings)):
                    note(line)
        except SpecError as error:
            result |= {"ok": False, "diagnostics": [d.as_dict() for d in error.diagnostics]}
            if not json_:
                note(str(error))
        results.append(result)
    ok = all(result["ok"] for result in results)
    if json_:
        say_json({"ok": ok, "specs": results})
    return Status.DONE if ok else Status.USAGE


def show(
    spec: SpecArgument,
    resolved: Annotated[bool, typer.Option("--resolved", help="Every value, defaults filled in.")] = False,
    why: Annotated[
        str | None, typer.Option("--why", metavar="PATH", help="Where a value came from, e.g. levels.titans.rate.")
    ] = None,
    set_: SetOption = None,
    json_: JsonOption = False,
) -> None:
    """Show a spec or a rule: as written, resolved, or where one value came from.

    Example: nlc show hope --why levels.titans.rate
    """
    from nlc import show as text
    from nlc.spec import load

    if (rule := rule_in(spec, settings(set_))) is not None:
        if why is not None:
            raise Stop(Status.USAGE, f"{spec} is a rule: every value stands in it; --why is for specs")
        say_json(rule.written()) if json_ else say(text.rule_text(rule))
        return
    loaded = load(spec, settings(set_))
    if why is not None:
        origins = text.origins(loaded, why)
        if not origins:
            raise Stop(Status.USAGE, f"nothing in {called(spec)} is called '{why}'{text.nearest(loaded, why)}")
        say_json([asdict(o) for o in origins]) if json_ else say(text.aligned(origins))
    elif json_:
        say_json(loaded.resolved() if resolved else text.as_written(loaded))
    else:
        say(text.resolved_text(loaded) if resolved else text.written_text(loaded))


def graph(
    spec: SpecArgument,
    format_: Annotated[Format, typer.Option("--format", help="How to draw it.")] = Format.text,
    out: OutFile = None,
    after: AfterOption = None,
    set_: SetOption = None,
    json_: JsonOption = False,
) -> None:
    """Print or draw the graph of a spec.

    Example: nlc graph hope --format svg -o build/hope.svg
    """
    if json_ and format_ not in (Format.text, Format.json):
        raise Stop(Status.USAGE, f"--json and --format {format_.value} say different things: give one")
    format_ = Format.json if json_ else format_
    say_or_write(drawn(built(spec, settings(set_), after), format_), out)


def explain(
    what: Annotated[
        str,
        typer.Argument(
            metavar="SPEC|CODE",
            help="A spec, a rule, or a diagnostic code such as NLC0301.",
            autocompletion=completion.specs,
        ),
    ],
    after: AfterOption = None,
    target: TargetOption = Target.CPU,
    memory: MemoryOption = None,
    set_: SetOption = None,
    json_: JsonOption = False,
) -> None:
    """Explain a spec (levels, recurrences, cost), a rule or a code.

    Example: nlc explain hope
    """
    if re.fullmatch(r"(?i)NLC\d+", what) and not Path(what).exists():
        explain_code(what.upper(), json_)
        return
    if after is not None:
        say_or_write(drawn(built(what, settings(set_), after), Format.json if json_ else Format.text), None)
        return
    from nlc.explain import explain as facts
    from nlc.inherit import inherited
    from nlc.report import report

    if (rule := rule_in(what, settings(set_))) is not None:
        from nlc.explain_rule import explain_rule, report_rule

        known = explain_rule(rule)
        say_json(asdict(known)) if json_ else say(report_rule(known))
        return
    from nlc import passes
    from nlc.spec import load

    loaded = load(what, settings(set_, memory=memory))
    made = passes.build(loaded, target=target)
    found, begins, hiding = facts(made), inherited(made), loaded.rules.hiding()
    if json_:
        say_json(asdict(found) | begins.as_dict() | ({"rules": hiding} if hiding else {}))
        return
    starts = "".join(f"\n  {line}" for line in begins.lines())
    own = "".join(f"\n  {line}" for line in hidden(hiding))
    say(
        report(found).removesuffix("\n")
        + (f"\n\nStarts\n{starts}" if starts else "")
        + (f"\n\nRules\n{own}" if own else "")
    )


def explain_code(code: str, json_: bool) -> None:
    from nlc.diagnostics import CODES, suggest
    from nlc.diagnostics import explain as text

    if code not in CODES:
        raise Stop(Status.USAGE, f"unknown code '{code}': {suggest(code, CODES)}")
    say_json({"code": code, **asdict(CODES[code])}) if json_ else say(text(code).removesuffix("\n"))


class Of(StrEnum):
    architecture = "architecture"
    task = "task"
    search = "search"


def schema(
    of: Annotated[Of, typer.Option("--of", help="Which kind of file.")] = Of.architecture,
    out: OutFile = None,
    json_: Annotated[bool, typer.Option("--json", help="As it is anyway; accepted as everywhere.")] = False,
) -> None:
    """Print the JSON Schema of a spec, for editors.

    Example: nlc schema -o build/architecture.schema.json
    """
    from nlc.spec import schema as json_schema
    from nlc.spec import task_schema
    from nlc.variants.schema import search_schema

    made = {Of.architecture: json_schema, Of.task: task_schema, Of.search: search_schema}[of]
    say_or_write(json.dumps(made(), indent=2), out)


def rule_in(argument: str, chosen: dict[str, str | object]) -> RuleSpec | None:
    """The rule that an argument is: a rule file, or a shipped rule's name; None where it is a spec."""
    from nlc.spec.rulebook import find_rule

    rule = find_rule(argument)
    if rule is not None and chosen:
        raise Stop(
            Status.USAGE, f"{argument} is a rule, which takes no --set: a level that names it gives its parameters"
        )
    return rule


def task_in(argument: str, chosen: dict[str, str | object]) -> TaskSpec | None:
    """The task that an argument is: a task file, or a shipped task's name; None where it is a spec."""
    from nlc.spec import find_task, shipped

    task = None if argument in shipped() else find_task(argument)
    if task is not None and chosen:
        raise Stop(Status.USAGE, f"{argument} is a task, which takes no --set: mqar(pairs=16) changes a shipped one")
    return task


def hidden(rules: dict[str, str]) -> list[str]:
    """Rules of a spec's own that go by the name of a shipped one."""
    return [f"rule '{name}' is that of {place}, in place of the shipped one" for name, place in rules.items()]


def search_in(argument: str, chosen: dict[str, str | object]) -> Search | None:
    """The search that an argument is: a search file, or a shipped search's name; None where it is a spec."""
    from nlc.spec import shipped

    if argument in shipped():
        return None
    from nlc.variants.search import find_search

    search = find_search(argument)
    if search is not None and chosen:
        raise Stop(Status.USAGE, f"{argument} is a search, which takes no --set: its set: changes the base")
    return search


def counted(n: int, what: str, several: str = "") -> str:
    return f"{n} {what if n == 1 else several or what + 's'}"


# ---- steps the commands share -------------------------------------------------------------------------------------


def built(spec: str, chosen: dict[str, str | object], after: str | None = None) -> Graph:
    """The graph of a spec after all passes, or after one of them."""
    from nlc import passes
    from nlc.spec import load

    if after is not None:
        choose(after, [name for name, *_ in passes.PASSES], "pass")
    return passes.build(load(spec, chosen), after=after or "")


def drawn(graph: Graph, format_: Format) -> str:
    from nlc.graph import draw, dump

    match format_:
        case Format.text:
            return dump.to_text(graph)
        case Format.json:
            return dump.to_json(graph)
        case Format.mermaid:
            return draw.to_mermaid(graph)
        case Format.dot:
            return draw.to_dot(graph)
        case Format.svg:
            return draw.to_svg(graph)


def summary(graph: Graph) -> dict[str, Any]:
    from nlc.graph.nodes import Memory

    return {
        "name": graph.name,
        "levels": [level.name for level in graph.levels],
        "memories": len(graph.of(Memory)),
        "memories_in_all_layers": sum(graph.stack.count(memory.block) for memory in graph.of(Memory)),
        "kinds": len(set(graph.stack)),
        "layers": len(graph.stack),
        "parameters": graph.cost.parameters if graph.cost else None,
    }


def sentence(result: dict[str, Any]) -> str:
    alike = result["kinds"] < 2
    levels, memories = len(result["levels"]), result["memories" if alike else "memories_in_all_layers"]
    where = "each layer" if alike else f"{result['layers']} layers of {result['kinds']} kinds"
    said = f"{levels} level{'s' * (levels != 1)}, {memories} memor{'ies' if memories != 1 else 'y'} in {where}"
    return said + (f", {result['parameters']:,} parameters" if result["parameters"] is not None else "")
