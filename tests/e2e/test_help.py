"""Every command's --help: quick, and with an example that runs as typed."""

from __future__ import annotations

import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest
import typer

from nlc.cli import GROUPS, application
from nlc.cli import named as command_name
from tests.e2e.command import Run, answers_within

TINY = ["sizes.width=16", "sizes.heads=2", "sizes.layers=1", "sizes.context=32", "run.batch=2", "run.steps=2",
        "run.warmup=1"]  # fmt: skip
SETS = [word for setting in TINY for word in ("--set", setting)]
OF_A_TASK = [word for setting in TINY if "context" not in setting for word in ("--set", setting)]
IN_ORDER = [word for word in TINY if not word.startswith(("sizes.context", "run.steps", "run.warmup"))]  # it says them
SMALLER = {  # what the tests append, so that an example takes seconds
    "verify": ["--set", "sizes.width=16", "--set", "sizes.layers=1"],
    "train": ["--data", "text.txt", *SETS],
    "demo": ["--data", "text.txt", *SETS],
    "continual": [
        "--task",
        "class_incremental(tasks=2, classes=2, shots=4)",
        "--items",
        "2",
        *(word for setting in IN_ORDER for word in ("--set", setting)),
    ],
    "tokenizer": ["--data", "text.txt"],
    "search": ["--dry-run"],
    "bench": ["--rows", "step-muon", "--divide", "32"],
}
STEPS = re.compile(r"--steps \d+")  # of an example; the tests take two


def commands() -> list[str]:
    """Every command as typed: nlc, nlc check, ..., nlc tokenizer train."""
    found = ["nlc"]
    root = typer.main.get_command(application())
    for name, command in root.commands.items():
        found.append(f"nlc {name}")
        found += [f"nlc {name} {below}" for below in getattr(command, "commands", ())]
    return found


def examples(nlc: Run, command: str) -> list[str]:
    ended = nlc(*shlex.split(command)[1:], "--help")
    assert ended.status == 0 and ended.err == ""
    return re.findall(r"^\s*Example: (.*)$", ended.out, re.MULTILINE)


@pytest.mark.parametrize("command", commands())
def test_help_has_an_example_that_fits_a_line(nlc: Run, command: str) -> None:
    """A line of help is 78 wide: what is longer is wrapped, and cannot be copied."""
    shown = examples(nlc, command)
    assert shown and all(example.startswith("nlc ") and len(example) <= 62 for example in shown)
    if command != "nlc":
        assert all(example.startswith(command) for example in shown)


def small(example: str) -> list[str]:
    words = shlex.split(STEPS.sub("", example))[1:]
    if "--resume" in words or words[:2] == ["tokenizer", "inspect"]:
        return words
    if "--task" in words:
        return [*words, *OF_A_TASK]
    return [*words, *SMALLER.get(words[0], [])]


def test_examples_run_as_typed(nlc: Run, tmp_path: Path) -> None:
    """In one folder: an example may look at what another has made."""
    (tmp_path / "text.txt").write_text("what is written once is read many times; " * 400)
    shown = [example for command in commands() for example in examples(nlc, command)]
    first = [example for example in shown if example.startswith(("nlc train", "nlc tokenizer train"))]
    for example in [*first, *(other for other in dict.fromkeys(shown) if other not in first)]:
        ended = nlc(*small(example))
        assert ended.status == 0, (example, ended.err)


def test_every_module_says_which_commands_it_has() -> None:
    """`nlc` imports the module of a command by this table."""
    for module, names in GROUPS.items():
        app = typer.Typer()
        import_module(f"nlc.cli.{module}").register(app)
        found = [command_name(info) for info in app.registered_commands] + [i.name for i in app.registered_groups]
        assert found == list(names)


def test_help_imports_nothing_of_the_compiler(process: Run) -> None:
    """It would cost more than the rest of the help."""
    code = "import sys; from nlc.cli import main; "
    code += f"[main([*command.split()[1:], '--help']) for command in {commands()!r}]; "
    code += "print(); print(sorted({'networkx', 'torch', 'nlc.spec', 'nlc.graph', 'nlc.passes'} & set(sys.modules)))"
    assert process(python=("-c", code)).out.splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", commands())
def test_help_comes_within_three_tenths_of_a_second(process: Run, command: str) -> None:
    answers_within(0.3, process, [*command.split()[1:], "--help"], "typer, typer.rich_utils", times=1.8)
