"""`nlc demo`: the whole way on one model, by the functions that the other commands call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nlc.cli.common import SetOption, Status, calm_threads, say, say_or_write, settings
from nlc.cli.runs import DataOption, run

if TYPE_CHECKING:
    from nlc.spec import Spec

SPEC = "hope"
EXCERPT = 26  # lines of generated code shown


def register(app: typer.Typer) -> None:
    app.command()(demo)


def demo(
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Fewer steps than the spec's own.")] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", metavar="DIR", help="Keep the run in this folder.")] = None,
    data: DataOption = None,
    set_: SetOption = None,
) -> int:
    """Check, draw, compile and train hope in ten minutes."""
    calm_threads()
    from nlc.cli.specs import Format, drawn
    from nlc.explain import explain
    from nlc.passes import build
    from nlc.report import levels_text, timeline
    from nlc.spec import load
    from runtime.directory import fresh

    chosen = ({"run.steps": steps} if steps else {}) | settings(set_)
    spec = load(SPEC, chosen)
    graph = build(spec)
    facts = explain(graph)
    folder = out or fresh("demo")

    heading(1, "the spec", f"nlc show {SPEC}")
    say(f"{spec.source} is legal. Its block, applied {spec.model.sizes['layers']} times:\n")
    say(indented(spec.model.block or ""))

    heading(2, "what learns, and how often", f"nlc explain {SPEC}")
    say(levels_text(facts) + "\n")
    say(timeline(facts) + "\n")
    say_or_write(drawn(graph, Format.svg), folder / "levels.svg")

    heading(3, "the program", f"nlc compile {SPEC}")
    say(excerpts(spec, folder / "code"))

    heading(4, "training on real text", typed(chosen))
    status = run(spec, folder, data)
    if status == Status.DONE:
        say(after(folder))
    return status


# ---- what it prints -----------------------------------------------------------------------------------------------


def heading(number: int, title: str, command: str) -> None:
    say(f"\n== {number} of 4: {title} ".ljust(101, "=") + f"\n   {command}\n")


def indented(text: str) -> str:
    return "\n".join(f"    {line}".rstrip() for line in text.rstrip("\n").splitlines())


def excerpts(spec: Spec, folder: Path) -> str:
    """Part of the generated block, and the training loop."""
    from nlc.compile import compile

    files = compile(spec).files
    parts = []
    for name, begins in (("model.py", "    def forward("), ("train.py", "        for step in ")):
        lines = files[name].splitlines()
        first = next(i for i, line in enumerate(lines) if line.startswith(begins))
        shown = block(lines[first:])
        parts += [
            f"{folder / name}, {len(lines)} lines; from line {first + 1}:\n",
            indented("\n".join(shown[:EXCERPT])),
        ]
        parts += ["        ...\n" if len(shown) > EXCERPT else ""]
    return "\n".join(parts).rstrip()


def block(lines: Sequence[str]) -> list[str]:
    """The first line and what is indented below it, moved to the left margin."""
    margin = len(lines[0]) - len(lines[0].lstrip())
    below = takewhile(lambda line: not line or line.startswith(" " * (margin + 1)), lines[1:])
    return [line[margin:] for line in (lines[0], *below)]


def typed(chosen: Mapping[str, object]) -> str:
    """The same as `nlc train` would be told, one setting a line."""
    words = [f"{key}={value}" for key, value in chosen.items()]
    quoted = [f"--set '{word}'" if " " in word else f"--set {word}" for word in words]
    return " \\\n       ".join([f"nlc train {SPEC}", *quoted])


def after(folder: Path) -> str:
    return f"""
Where to go from here

    {folder / "loss.png"}: the loss curve; {folder / "code"}: the program that ran
    nlc eval {folder} --learn off                          the same weights, learning off at test time
    nlc explain hope                                     how each memory is computed and why; cost
    nlc train hope --set levels.cms.memories.mid.every=never
    nlc train transformer                                the baseline
    nlc show hope > mine.yaml                            change it; nlc check mine.yaml says what it makes of it
"""
