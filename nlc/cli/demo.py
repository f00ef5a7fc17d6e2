"""`nlc demo`: the whole way on one model, by the functions that the other commands call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nlc.cli.common import SetOption, Status, Stop, calm_threads, say, say_or_write, settings
from nlc.cli.runs import DataOption, HowToRun, run

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
    """Check, draw, compile and train hope in ten minutes.

    Example: nlc demo --steps 100
    """
    calm_threads()
    from nlc.cli.specs import Format, drawn
    from nlc.explain import explain
    from nlc.passes import build
    from nlc.report import levels_text, timeline
    from nlc.spec import load
    from runtime.directory import fresh

    chosen = settings(set_)
    if steps is not None and chosen.setdefault("run.steps", steps) is not steps:
        raise Stop(Status.USAGE, "--steps and --set run.steps say the same: give one")
    spec = load(SPEC, chosen)
    graph = build(spec)
    facts = explain(graph)
    folder = out or fresh("demo")

    heading(1, "the spec", f"nlc show {SPEC}")
    say(f"{spec.source} is legal. Its block, applied {spec.model.sizes['layers']} times:\n")
    say_code(spec.model.block or "")

    heading(2, "what learns, and how often", f"nlc explain {SPEC}")
    say(levels_text(facts) + "\n")
    say(timeline(facts) + "\n")
    say_or_write(drawn(graph, Format.svg), folder / "levels.svg")

    heading(3, "the program", f"nlc compile {SPEC}")
    say_excerpts(spec, folder / "code")

    heading(4, "training on real text", typed(chosen))
    status = run(spec, folder, HowToRun({"--data": data}))
    if status == Status.DONE:
        say(after(folder))
    return status


# ---- what it prints -----------------------------------------------------------------------------------------------


def heading(number: int, title: str, command: str) -> None:
    say("\n" + painted(f"== {number} of 4: {title} ".ljust(101, "="), "bold cyan"))
    say("   " + painted(command, "bold") + "\n")


def painted(text: str, style: str = "") -> str:
    """For a terminal, in colours: of `style`, or of Python code.  For anything else, the text."""
    from rich.console import Console
    from rich.syntax import Syntax

    console = Console(soft_wrap=True, highlight=False)
    if not console.is_terminal:
        return text
    with console.capture() as shown:
        code = Syntax("", "python", theme="ansi_dark", background_color="default")
        console.print(text if style else code.highlight(text), style=style or None, markup=False, end="")
    return shown.get().rstrip("\n")


def say_code(text: str) -> None:
    say(painted("\n".join(f"    {line}".rstrip() for line in text.rstrip("\n").splitlines())))


def say_excerpts(spec: Spec, folder: Path) -> None:
    """Part of the generated block, and the training loop."""
    from nlc.compile import compile

    files = compile(spec).files
    for name, begins in (("model.py", "    def forward("), ("train.py", "        for step in ")):
        lines = files[name].splitlines()
        first = next(i for i, line in enumerate(lines) if line.startswith(begins))
        shown = block(lines[first:])
        say(f"{folder / name}, {len(lines)} lines; from line {first + 1}:\n")
        say_code("\n".join([*shown[:EXCERPT], *["    ..."] * (len(shown) > EXCERPT)]))
        say("")


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
    more = {
        f"nlc eval {folder} --learn off": "the same weights, learning off at test time",
        f"nlc explain {SPEC}": "how each memory is computed and why; cost",
        f"nlc train {SPEC} --set levels.cms.memories.mid.every=never": "a memory fewer",
        "nlc train transformer": "the baseline",
        f"nlc show {SPEC} > mine.yaml": "change it; nlc check mine.yaml says what it makes of it",
    }
    width = max(map(len, more))
    lines = "\n".join(f"    {command:{width}}  {why}" for command, why in more.items())
    title = painted("Where to go from here", "bold cyan")
    kept = f"{folder / 'loss.png'}: the loss curve; {folder / 'code'}: the program that ran"
    return f"\n{title}\n\n    {kept}\n{lines}\n"
