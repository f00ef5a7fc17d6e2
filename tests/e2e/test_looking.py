"""check, show, graph, explain, schema: every shipped spec, JSON, exit statuses, streams, speed."""

from __future__ import annotations

import errno
import io
import json
import os
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from tests.e2e.command import ROOT, SHIPPED, Run, answers_within

BROKEN = "nlc: 1\nname: broken\nsizes: {width: 64\n"
WRONG = (ROOT / "specs" / "architectures" / "transformer.yaml").read_text().replace("rule: adamw", "rule: adamv")


# ---- every shipped spec -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", SHIPPED)
def test_check_accepts_every_shipped_spec(nlc: Run, spec: str) -> None:
    ended = nlc("check", spec)
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.startswith(f"{spec}: ok (")


@pytest.mark.parametrize("spec", SHIPPED)
def test_graph_draws_every_shipped_spec(nlc: Run, spec: str, tmp_path: Path) -> None:
    texts = {form: nlc("graph", spec, "--format", form) for form in ("text", "mermaid", "dot", "json", "svg")}
    assert all(ended.status == 0 and ended.err == "" and len(ended.out) > 200 for ended in texts.values())
    json.loads(texts["json"].out)
    assert ElementTree.fromstring(texts["svg"].out).tag.endswith("svg")
    ended = nlc("graph", spec, "--format", "svg", "-o", "drawn/levels.svg")
    assert (ended.status, ended.out) == (0, "")
    assert (tmp_path / "drawn" / "levels.svg").read_text().strip() == texts["svg"].out.strip()


@pytest.mark.parametrize("spec", SHIPPED)
def test_explain_has_every_part(nlc: Run, spec: str) -> None:
    ended = nlc("explain", spec)
    assert (ended.status, ended.err) == (0, "")
    for part in (
        "Levels, fastest first",
        "Memories",
        "How each is computed, and why",
        "Cost",
        "per sequence",
        "per token",
    ):
        assert part in ended.out
    assert all(line == line.rstrip() for line in ended.out.splitlines())
    facts = json.loads(nlc("explain", spec, "--json").out)
    assert [level["index"] for level in facts["levels"]] == sorted(level["index"] for level in facts["levels"])
    assert all(recurrence["reason"] for recurrence in facts["recurrences"])


@pytest.mark.parametrize("spec", SHIPPED)
def test_show_prints_the_file_as_written(nlc: Run, spec: str) -> None:
    ended = nlc("show", spec)
    written = (ROOT / "specs" / "architectures" / f"{spec}.yaml").read_text()
    if "extends:" not in written:
        assert ended.out == written


@pytest.mark.parametrize("spec", SHIPPED)
def test_a_resolved_spec_means_the_same(nlc: Run, spec: str, tmp_path: Path) -> None:
    (tmp_path / "resolved.yaml").write_text(nlc("show", spec, "--resolved").out)
    assert nlc("check", "resolved.yaml").status == 0
    first, second = (json.loads(nlc("explain", name, "--json").out) for name in (spec, "resolved.yaml"))
    assert first | {"file": ""} == second | {"file": ""}


# ---- what each command says ---------------------------------------------------------------------------------------


def test_explain_says_how_often_each_level_of_hope_fires(nlc: Run) -> None:
    facts = json.loads(nlc("explain", "hope", "--json").out)
    fires = {level["name"]: level["fires"] for level in facts["levels"]}
    assert fires["cms.fast"] == 8 and fires["cms.mid"] == 2  # a write at token 512 has no reader, and is made
    assert any("the running chunk (up to 63 tokens back) is invisible" in note for note in facts["notes"])


def test_explain_says_that_a_level_never_fires(nlc: Run) -> None:
    said = {n: nlc("explain", "hope", "--set", f"sizes.context={n}").out for n in (255, 256)}
    assert "cms.mid: every 256 tokens reaches the context of 255, so it never fires" in said[255]
    assert "reaches the context of 256, so it fires after the last token and nothing reads it" in said[256]


def test_explain_after_a_pass_prints_the_graph(nlc: Run) -> None:
    ended = nlc("explain", "hope", "--after", "clocks")
    assert ended.status == 0 and ended.out == nlc("graph", "hope", "--after", "clocks").out
    wrong = nlc("explain", "hope", "--after", "clock")
    assert wrong.status == 2 and "did you mean 'clocks'?" in wrong.err


def test_explain_says_which_recurrences_a_kernel_computes(nlc: Run) -> None:
    facts = json.loads(nlc("explain", "hope", "--target", "cuda", "--json").out)
    placed = {r["lowering"]: r["placed"] for r in facts["recurrences"]}
    assert placed["shared_product"].startswith("a kernel: the key is a read of key over its norm")
    assert placed["segment"] == "PyTorch: 'segment' has no kernel"
    wrong = nlc("explain", "hope", "--target", "gpu")
    assert wrong.status == 2 and "gpu" in wrong.err


def test_explain_documents_a_code(nlc: Run) -> None:
    ended = nlc("explain", "NLC0402")
    assert ended.status == 0 and ended.out.startswith("NLC0402: an unknown update rule")
    assert nlc("explain", "nlc0402").out == ended.out
    assert json.loads(nlc("explain", "NLC0402", "--json").out)["title"] == "an unknown update rule"
    assert nlc("explain", "NLC9999").status == 2


def test_show_says_where_a_value_came_from(nlc: Run) -> None:
    ended = nlc("show", "hope", "--why", "levels.titans.rate")
    assert "sigmoid(linear(eta(u), out=1))" in ended.out and "specs/architectures/hope.yaml:" in ended.out
    ended = nlc("show", "hope", "--why", "sizes.width", "--set", "sizes.width=64")
    assert ended.out.split() == ["sizes.width:", "64", "--set"]
    assert "levels.titans.rate" in nlc("show", "hope", "--why", "levels.titan.rate").err


def test_set_changes_the_graph_and_is_typed(nlc: Run) -> None:
    facts = json.loads(nlc("explain", "hope", "--json", "--set", "levels.cms.memories.mid.every=never").out)
    assert "never written" in {level["when"] for level in facts["levels"]}
    assert nlc("check", "hope", "--set", "sizes.width=wide").status == 2


def test_schema_is_a_json_schema(nlc: Run) -> None:
    schema = json.loads(nlc("schema").out)
    assert schema["$schema"].startswith("https://json-schema.org/") and "levels" in schema["properties"]


# ---- statuses and streams -----------------------------------------------------------------------------------------


def test_a_broken_spec_is_status_2_and_silent_on_stdout(nlc: Run, tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text(BROKEN)
    for command in (["check"], ["explain"], ["graph"], ["show"], ["compile"]):
        ended = nlc(*command, "broken.yaml")
        assert (ended.status, ended.out) == (2, "")
        assert ended.err.startswith("broken.yaml:") and "error:" in ended.err


def test_check_goes_on_after_a_broken_spec(nlc: Run, tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text(WRONG)
    ended = nlc("check", "wrong.yaml", "transformer")
    assert ended.status == 2
    assert "did you mean 'adam'?" in ended.err and ended.out.startswith("transformer: ok")


def test_json_diagnostics_have_positions(nlc: Run, tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text(WRONG)
    checked = json.loads(nlc("check", "wrong.yaml", "hope", "--json").out)
    assert [spec["ok"] for spec in checked["specs"]] == [False, True] and checked["ok"] is False
    explained = nlc("explain", "wrong.yaml", "--json")
    assert explained.status == 2 and explained.err == ""
    for found in (checked["specs"][0]["diagnostics"], json.loads(explained.out)["diagnostics"]):
        (diagnostic,) = found
        line = WRONG.splitlines()[diagnostic["line"] - 1]
        assert line[diagnostic["column"] - 1 :].startswith("adamv")
        assert diagnostic["code"] == "NLC0402" and "adamw" in diagnostic["hint"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["chek", "hope"], "chek"),
        (["check"], "missing argument"),
        (["check", "hope", "--jsn"], "--jsn"),
        (["check", "hope", "--set", "width"], "KEY=VALUE"),
        (["check", "hope", "--set", "run.batch=2", "--set", "run.batch=3"], "twice"),
        (["graph", "hope", "--format", "png"], "png"),
        (["show", "hope", "--why", "levels.nobody"], "levels.nobody"),
        (["train", "hope", "--steps", "0"], "--steps"),
        (["train", "hope", "--name", "a", "--out", "b"], "--name"),
        (["train", "hope", "--steps", "5", "--set", "run.steps=6"], "--steps"),
        (["demo", "--steps", "2", "--set", "run.steps=3"], "--steps and --set run.steps say the same"),
        (["eval", "nowhere"], "nowhere"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_wrong_use_is_status_2_and_one_line(nlc: Run, arguments: list[str], said: str) -> None:
    ended = nlc(*arguments)
    assert (ended.status, ended.out) == (2, "")
    assert len(ended.err.splitlines()) == 1 and said in ended.err and ended.err.startswith("nlc")


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ("eval runs/none", 2, "no such run directory: 'runs/none'"),
        ("check", 2, "nlc check: missing argument 'SPEC' (see nlc check --help)"),
        ("check hope --set x", 2, "--set x: expected KEY=VALUE, for example --set sizes.width=64"),
        ("graph hope --format svg", 2, "--json and --format svg say different things: give one"),
        ("tokenizer inspect none.json", 4, "cannot read 'none.json': No such file or directory"),
    ],
)
def test_a_failure_is_json_where_json_is_asked_for(nlc: Run, arguments: str, status: int, said: str) -> None:
    ended = nlc(*arguments.split(), "--json")
    assert (ended.status, ended.err) == (status, "")
    assert json.loads(ended.out) == {"ok": False, "status": status, "error": said}


def test_graph_and_schema_take_json(nlc: Run, tmp_path: Path) -> None:
    assert nlc("graph", "transformer", "--json").out == nlc("graph", "transformer", "--format", "json").out
    assert nlc("schema", "--json").out == nlc("schema").out
    (tmp_path / "wrong.yaml").write_text(WRONG)
    ended = nlc("graph", "wrong.yaml", "--json")
    assert ended.status == 2 and [d["code"] for d in json.loads(ended.out)["diagnostics"]] == ["NLC0402"]


def test_no_command_prints_help_and_is_status_2(nlc: Run) -> None:
    ended = nlc()
    assert ended.status == 2 and "Commands:" in ended.out


def test_standard_input_is_a_spec(process: Run) -> None:
    hope = (ROOT / "specs" / "architectures" / "hope.yaml").read_text()
    ended = process("check", "-", stdin=hope)
    assert (ended.status, ended.err) == (0, "") and ended.out.startswith("<stdin>: ok")
    ended = process("check", "-", stdin="")
    assert ended.status == 2 and ended.err.startswith("<stdin>:") and "error:" in ended.err


def test_a_closed_pipe_is_no_error(process: Run) -> None:
    command = "import subprocess, sys; p = subprocess.Popen([sys.executable, '-m', 'nlc', 'graph', 'hope'], "
    command += "stdout=subprocess.PIPE, stderr=subprocess.PIPE); p.stdout.close(); print(p.stderr.read(), p.wait())"
    assert process(python=("-c", command)).out.strip() == "b'' 0"


class Full(io.StringIO):
    """A standard output whose disk is full."""

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("check hope", "nlc: standard output: No space left on device\n"),
        ("graph hope", "nlc: standard output: No space left on device\n"),
        ("diff hope hope --json", "nlc: standard output: No space left on device\n"),
        ("--help", "nlc: No space left on device\n"),
    ],
)
def test_a_full_standard_output_is_one_line(
    nlc: Run, arguments: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", Full())
    ended = nlc(*arguments.split())
    assert (ended.status, ended.err) == (4, said)


# ---- light on its feet --------------------------------------------------------------------------------------------


def test_looking_at_a_spec_does_not_import_torch(process: Run) -> None:
    for arguments in (["--help"], ["check", *SHIPPED], ["explain", "hope"], ["graph", "hope"], ["show", "hope"]):
        code = f"import sys; from nlc.cli import main; status = main({arguments!r}); print(); "
        code += "print(status, sorted({'torch', 'matplotlib', 'codegen', 'runtime'} & set(sys.modules)))"
        assert process(python=("-c", code)).out.splitlines()[-1] == "0 []"


@pytest.mark.parametrize("arguments", [["--help"], ["check", "hope"]], ids=" ".join)
def test_answers_within_half_a_second(process: Run, arguments: list[str]) -> None:
    answers_within(0.5, process, arguments, "typer, pydantic.main, ruamel.yaml", times=3.5)


def test_output_is_plain_where_there_is_no_terminal(process: Run) -> None:
    for arguments in (["--help"], ["explain", "hope"], ["check", "nowhere"]):
        ended = process(*arguments, FORCE_COLOR="", NO_COLOR="1")
        assert "\x1b" not in ended.out + ended.err


def test_python_module_and_version(process: Run) -> None:
    import nlc as package

    assert process("--version").out == f"nlc {package.__version__}\n"
    assert sys.version_info >= (3, 11)
