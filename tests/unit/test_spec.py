"""Specs: reading, extending, setting, typing, checking, and where each value came from."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from nlc.diagnostics import SpecError
from nlc.graph.hash import graph_hash
from nlc.passes import build
from nlc.period import Period, Unit
from nlc.source import Position
from nlc.spec import Architecture, Spec, load, loads, schema, shipped
from nlc.spec.fields import Select, parse_period, parse_select, parse_stack
from nlc.spec.resolve import to_yaml

AT = Position("t.yaml", 3, 5)

CELL = """\
nlc: 1
name: cell
sizes: {width: 32, heads: 2, layers: 2, vocab: 256, context: 128}
levels:
  - name: titans
    every: 1 token
    chunk: 16
    rate: 0.5
    memories:
      key: {form: matrix, keys: k, values: v}
      deep: {form: 'mlp(hidden=4x)', keys: k, values: [v, k], rule: dgd, carry: model}
  - name: train
    every: 1 step
    objective: loss
    rule: adamw(lr=1e-3)
    memories: rest
block: |
  k = linear(x)

  v = linear(x)
  x = x + key(k)
"""


def folder(tmp_path: Path, **files: str) -> Path:
    for name, text in files.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    return tmp_path


def codes(text: str, set: dict[str, object] | None = None) -> list[tuple[str, int, int]]:
    with pytest.raises(SpecError) as error:
        loads(text, "t.yaml", set)
    return [(d.code, d.at.line, d.at.column) for d in error.value.diagnostics]


@pytest.mark.parametrize("name", shipped())
def test_shipped_specs_load_and_resolve(name: str) -> None:
    spec = load(name)
    assert spec.source == f"specs/architectures/{name}.yaml"
    again = loads(to_yaml(spec.resolved()), "resolved.yaml")
    assert again.resolved() == spec.resolved()
    assert graph_hash(build(again)) == graph_hash(build(spec))


def test_values_are_kept_as_written() -> None:
    titans = loads(CELL).model.level("titans")
    assert titans.rate == "0.5" and titans.chunk == 16 and titans.objective is None
    assert isinstance(titans.memories, dict)
    assert titans.memories["deep"].values == ["v", "k"] and titans.memories["key"].values == "v"


def test_every_path_has_a_place() -> None:
    spec = loads(CELL, "t.yaml")
    assert spec.at("levels.titans.rate") == Position("t.yaml", 8, 11, 3)
    assert spec.at("levels.titans.rate", key=True).column == 5
    assert spec.at("levels.titans.memories.key.form") == Position("t.yaml", 10, 19, 6)
    assert spec.at("levels.titans.memories.key.rate") == spec.at("levels.titans.rate")  # inherited
    assert spec.at("levels.titans.memories.key.meta") == spec.at("levels.titans.memories.key")  # not said: the memory
    assert spec.at("levels.titans.memories.deep.values.1").column == 59
    assert (spec.at("block").line, spec.at("block").column) == (18, 3)
    assert spec.place("block")(spec.model.block.index("v ") if spec.model.block else 0, 1) == Position(
        "t.yaml", 20, 3, 1
    )
    assert spec.said("sizes.width") and not spec.said("sizes.head")


def test_origins() -> None:
    spec = loads(CELL, "t.yaml", {"levels.titans.chunk": 32})
    assert spec.origin("levels.titans.rate") == "t.yaml:8"
    assert spec.origin("levels.titans.chunk") == "--set"
    assert spec.origin("levels.titans.memories.key.rate") == "levels.titans.rate (t.yaml:8)"
    assert spec.origin("levels.titans.read") == "default chunk"
    assert spec.origin("levels.titans.memories.deep.start") == "default random"
    assert spec.origin("run.steps") == "default 2000"
    assert spec.origin("tied") == "default true"
    with pytest.raises(KeyError):
        spec.origin("levels.titans.rat")


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(CELL.encode())))
    assert load("-").source == "<stdin>"


class TestExtends:
    def test_merges_mappings_and_levels_by_name(self, tmp_path: Path) -> None:
        over = """\
nlc: 1
name: over
extends: base.yaml
sizes: {width: 64}
levels:
  - name: titans
    rate: null           # takes away
    memories: {key: {values: linear(v)}}
  - {name: extra, every: 2 steps, memories: select(blocks.*)}
"""
        spec = load(folder(tmp_path, base=CELL, over=over) / "over.yaml")
        titans = spec.model.level("titans")
        assert [level.name for level in spec.model.levels] == ["titans", "train", "extra"]
        assert spec.model.sizes["width"] == 64 and spec.model.sizes["heads"] == 2
        assert titans.rate is None and titans.chunk == 16
        assert isinstance(titans.memories, dict) and titans.memories["key"].values == "linear(v)"
        assert titans.memories["key"].keys == "k"
        assert spec.origin("levels.titans.chunk").endswith("base.yaml:7")
        assert spec.origin("sizes.width").endswith("over.yaml:4")

    def test_a_shipped_spec_by_name(self, tmp_path: Path) -> None:
        spec = load(folder(tmp_path, mine="nlc: 1\nname: mine\nextends: hope\nsizes: {width: 64}\n") / "mine.yaml")
        assert spec.model.sizes["width"] == 64 and spec.model.level("titans")

    def test_a_folder_below_and_back(self, tmp_path: Path) -> None:
        below = tmp_path / "sub"
        below.mkdir()
        (below / "mid.yaml").write_text("nlc: 1\nname: mid\nextends: ../base.yaml\n")
        over = "nlc: 1\nname: over\nextends: sub/mid.yaml\n"
        assert load(folder(tmp_path, base=CELL, over=over) / "over.yaml").model.name == "over"

    @pytest.mark.parametrize(
        ("target", "code"),
        [
            ("hop", "NLC0208"), ("bse.yaml", "NLC0208"), ("../x.yaml", "NLC0207"), ("/etc/passwd.yaml", "NLC0207"),
            ("over.yaml", "NLC0206"), ("link.yaml", "NLC0207"),
        ],
    )  # fmt: skip
    def test_refused(self, tmp_path: Path, target: str, code: str) -> None:
        (tmp_path / "x.yaml").write_text(CELL)
        inner = tmp_path / "inner"
        inner.mkdir()
        (inner / "link.yaml").symlink_to(tmp_path / "x.yaml")
        folder(inner, base=CELL, over=f"nlc: 1\nname: over\nextends: {target}\n")
        with pytest.raises(SpecError) as error:
            load(inner / "over.yaml")
        assert [d.code for d in error.value.diagnostics] == [code]


class TestSet:
    @pytest.mark.parametrize(
        ("key", "value", "path"),
        [
            ("sizes.width", "64", ("sizes", "width", 64)),
            ("sizes.head", 8, ("sizes", "head", 8)),
            ("run.batch", "3", ("run", "batch", 3)),
            ("tied", "false", ("tied", False)),
            ("name", "other", ("name", "other")),
        ],
    )
    def test_typed(self, key: str, value: object, path: tuple[object, ...]) -> None:
        node: object = loads(CELL, set={key: value}).model
        for part in path[:-1]:
            node = node[part] if isinstance(node, dict) else getattr(node, str(part))
        assert node == path[-1]

    def test_levels_and_memories_by_name(self) -> None:
        spec = loads(
            CELL, set={"levels.titans.rate": "sigmoid(linear(x, out=1))", "levels.titans.memories.key.chunk": "8"}
        )
        titans = spec.model.level("titans")
        assert titans.rate == "sigmoid(linear(x, out=1))"
        assert isinstance(titans.memories, dict) and titans.memories["key"].chunk == 8

    def test_null_takes_away(self) -> None:
        assert loads(CELL, set={"levels.titans.rate": None}).model.level("titans").rate is None

    def test_a_block_from_python(self) -> None:
        block = "k = linear(x)\nx = x + key(k)\n"
        assert loads(CELL, set={"block": block}).model.block == block

    @pytest.mark.parametrize(
        ("key", "value", "found"),
        [
            ("sizes.widht", 8, ("NLC0209", 1, 7)),
            ("levels.titan.rate", 1, ("NLC0209", 1, 8)),
            ("levels.titans.rat", 1, ("NLC0209", 1, 15)),
            ("levels.titans.memories.kee.chunk", 1, ("NLC0209", 1, 24)),
            ("name.first", "x", ("NLC0209", 1, 6)),
            ("levels.titans.chunk", "many", ("NLC0202", 1, 21)),
            ("levels.titans.rate", "sigmoid(x", ("NLC0302", 1, 27)),
            ("levels.titans.every", "1 tokn", ("NLC0401", 1, 23)),
            ("sizes.width", "[1", ("NLC0106", 1, 13)),
            ("run.seed", str(2**63), ("NLC0205", 1, 10)),
            ("run.clip", ".inf", ("NLC0205", 1, 10)),
            ("run.precision", "float16", ("NLC0204", 1, 15)),
            ("name", "../x", ("NLC0212", 1, 6)),
            ("name", ".x", ("NLC0212", 1, 6)),
        ],
    )
    def test_refused(self, key: str, value: object, found: tuple[str, int, int]) -> None:
        assert codes(CELL, {key: value}) == [found]


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        pytest.param("chunk: 16", "chnk: 16", [("NLC0201", 7, 5)], id="unknown_key"),
        pytest.param("nlc: 1\n", "", [("NLC0203", 1, 1)], id="no_version"),
        pytest.param("nlc: 1", "nlc: 2", [("NLC0210", 1, 6)], id="version"),
        pytest.param("rate: 0.5", "rule: dgdd", [("NLC0402", 8, 11)], id="rule"),
        pytest.param("rate: 0.5", "rate: 0.5\n    rule: gd(lr=0.1)", [("NLC0408", 9, 17)], id="two_rates"),
        pytest.param("form: matrix", "form: matrx", [("NLC0403", 10, 19)], id="form"),
        pytest.param("hidden=4x", "hiden=4x", [("NLC0405", 11, 25)], id="form_parameter"),
        pytest.param("chunk: 16", "objective: huber", [("NLC0405", 7, 16)], id="objective_without_its_parameter"),
        pytest.param("chunk: 16", "objective: l3", [("NLC0404", 7, 16)], id="objective"),
        pytest.param("chunk: 16", "start: ones", [("NLC0406", 7, 12)], id="start"),
        pytest.param("chunk: 16", "start: learned(ones)", [("NLC0406", 7, 20)], id="learned_start"),
        pytest.param("chunk: 16", "start: from(checkpoint:../a)", [("NLC0406", 7, 17)], id="start_outside"),
        pytest.param("chunk: 16", "start: from(/etc/passwd)", [("NLC0406", 7, 17)], id="start_no_checkpoint"),
        pytest.param("chunk: 16", "start: from(checkpoint:)", [("NLC0406", 7, 17)], id="start_nowhere"),
        pytest.param("chunk: 16", "carry: foo", [("NLC0204", 7, 12)], id="carry"),
        pytest.param("chunk: 16", "read: befor", [("NLC0204", 7, 11)], id="read"),
        pytest.param("chunk: 16", "chunk: '16'", [("NLC0202", 7, 13)], id="number_as_text"),
        pytest.param("chunk: 16", "chunk:", [("NLC0203", 7, 5)], id="no_value"),
        pytest.param("1 token", "64", [("NLC0401", 6, 12)], id="no_unit"),
        pytest.param("rest", "all", [("NLC0407", 16, 15)], id="selection"),
        pytest.param("deep:", "key2-:", [("NLC0212", 11, 7)], id="name"),
        pytest.param("name: train", "name: titans", [("NLC0211", 12, 11)], id="level_twice"),
        pytest.param("width: 32, ", "", [("NLC0203", 3, 1)], id="no_width"),
        pytest.param("  v = linear(x)", "  v = x.T", [("NLC0303", 20, 8)], id="block"),
        pytest.param("nlc: 1\n", "nlc: 1\ntied: no\n", [("NLC0202", 2, 7)], id="no_is_text"),
    ],
)
def test_refused(old: str, new: str, found: list[tuple[str, int, int]]) -> None:
    assert old in CELL
    assert codes(CELL.replace(old, new, 1)) == found


def test_notes_are_not_read() -> None:
    text = CELL.replace("nlc: 1", "nlc: 1\nx-why: because").replace(
        "    chunk: 16", "    x-note: {a: 1}\n    chunk: 16"
    )
    assert loads(text).model.level("titans").chunk == 16


def test_another_kind_of_file() -> None:
    assert codes("nlc: 1\nsearch: which-rule\nbase: hope\n") == [("NLC0210", 2, 1)]


class TestFields:
    @pytest.mark.parametrize(
        ("text", "period"),
        [
            ("1 token", Period(1, Unit.TOKEN)),
            ("64 tokens", Period(64, Unit.TOKEN)),
            ("4k tokens", Period(4000, Unit.TOKEN)),
            ("1.5M tokens", Period(1_500_000, Unit.TOKEN)),
            ("2 steps", Period(2, Unit.STEP)),
            ("1 sequence", Period(1, Unit.SEQUENCE)),
            ("never", Period(0, Unit.NEVER)),
            ("3 tasks", Period(3, Unit.TASK)),
        ],
    )
    def test_period(self, text: str, period: Period) -> None:
        assert parse_period(text, AT) == period
        assert parse_period(str(period), AT) == period

    @pytest.mark.parametrize(
        "text", ["64", "0 tokens", "1.5 tokens", "tokens", "2 fortnights", "-1 token", "", "1k", "1 token extra"]
    )
    def test_not_a_period(self, text: str) -> None:
        with pytest.raises(SpecError):
            parse_period(text, AT)

    @pytest.mark.parametrize(
        ("text", "select"),
        [
            ("rest", Select(("*",), rest=True)),
            ("select(blocks.*, rank=2, except=*.conv)", Select(("blocks.*",), 2, ("*.conv",))),
            ("select(a.*, b.*, except=[*.conv, *.start])", Select(("a.*", "b.*"), None, ("*.conv", "*.start"))),
            ("select(rank=1)", Select(("*",), 1)),
        ],
    )
    def test_select(self, text: str, select: Select) -> None:
        assert parse_select(text, AT) == select

    @pytest.mark.parametrize(
        ("text", "column"),
        [("all", 5), ("select(a-b)", 12), ("select(rnk=2)", 12), ("select(rank=x)", 17), ("select(a]b)", 5)],
    )
    def test_not_a_selection(self, text: str, column: int) -> None:
        with pytest.raises(SpecError) as error:
            parse_select(text, AT)
        assert error.value.diagnostics[0].at.column == column

    def test_selection_takes(self) -> None:
        select = parse_select("select(blocks.*, rank=2, except=*.conv)", AT)
        assert select.takes("blocks.0.h.linear", 2)
        assert not select.takes("blocks.0.h.conv", 2) and not select.takes("blocks.0.h.rmsnorm", 1)
        assert not select.takes("embedding", 2)

    @pytest.mark.parametrize(
        ("items", "layers", "stack"),
        [
            (["a", "b"], 4, ("a", "b", "a", "b")),
            (["a", "3 * b"], None, ("a", "b", "b", "b")),
            (["a", "3*b"], 4, ("a", "b", "b", "b")),
        ],
    )
    def test_stack(self, items: list[str], layers: int | None, stack: tuple[str, ...]) -> None:
        assert parse_stack(items, [AT] * len(items), ["a", "b"], layers) == stack

    @pytest.mark.parametrize(("items", "layers"), [(["a", "b"], 3), (["a", "2 * b"], 4), (["c"], 1), (["0 * a"], None)])
    def test_not_a_stack(self, items: list[str], layers: int | None) -> None:
        with pytest.raises(SpecError):
            parse_stack(items, [AT] * len(items), ["a", "b"], layers)


class TestSchema:
    def test_every_field_is_described(self) -> None:
        found = schema()
        for name, definition in {"Architecture": found, **found["$defs"]}.items():
            for field, described in definition["properties"].items():
                assert described.get("description"), f"{name}.{field}"

    def test_is_json_and_closed(self) -> None:
        found = schema()
        assert json.loads(json.dumps(found)) == found
        assert not found["additionalProperties"] and "^x-" in found["patternProperties"]
        assert "null" not in json.dumps(found)

    def test_has_every_key_of_the_models(self) -> None:
        assert set(schema()["properties"]) == set(Architecture.model_fields)


def test_loading_imports_nothing_heavy() -> None:
    code = "import sys, nlc.spec; nlc.spec.load('hope'); print({'torch', 'networkx', 'jinja2'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_spec_is_frozen() -> None:
    spec: Spec = loads(CELL)
    with pytest.raises(Exception, match="frozen"):
        spec.model.name = "other"


def test_a_folder_does_not_hide_a_shipped_spec(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hope").mkdir()
    assert load("hope").model.name == "hope"


@pytest.mark.parametrize(
    ("name", "key", "value", "code"),
    [
        ("hope", "levels.titans.objective", "lp(0)", "NLC0405"),
        ("hope", "levels.titans.objective", "huber(-1)", "NLC0405"),
        ("hope", "levels.train.rule", "dgd", "NLC1001"),
        ("hope", "levels.titans.memories.memory.form", "mlp(hidden=0)", "NLC0405"),
        ("hope", "levels.titans.memories.key.normalise_hidden", "true", "NLC0411"),
        ("transformer", "levels.attention.memories.memory.form", "attention(window=0)", "NLC0405"),
        ("transformer", "levels.attention.memories.memory.form", "attention(persistent=-1)", "NLC0405"),
        ("transformer", "levels.attention.rule", "gd", "NLC0411"),
        ("linear_attention", "levels.attention.retain", "2", "NLC0505"),
        ("linear_attention", "levels.attention.retain", "-0.5", "NLC0505"),
        ("linear_attention", "levels.attention.out", "0", "NLC0505"),
        ("transformer", "levels.attention.every", "2 tokens", "NLC0411"),
    ],
)
def test_check_refuses_what_nothing_could_compute(name: str, key: str, value: str, code: str) -> None:
    with pytest.raises(SpecError) as error:
        build(load(name, {key: value}))
    assert [(d.code, d.at.file) for d in error.value.diagnostics] == [(code, "--set")]


@pytest.mark.parametrize("call", ["dropout(x, 1)", "norm(x, 0) * x", "linear(x, out=0)", "param([0])", "conv(x, -1)"])
def test_numbers_of_operators_are_in_range(call: str) -> None:
    with pytest.raises(SpecError) as error:
        build(loads(CELL.replace("x = x + key(k)", f"x = x + {call}").replace(", carry: model", ""), "t.yaml"))
    assert ("NLC0505", 21) in [(d.code, d.at.line) for d in error.value.diagnostics]


def test_a_resolved_spec_of_attention_loads_again() -> None:
    resolved = load("transformer").resolved()
    assert "rule" not in resolved["levels"][0]
    assert graph_hash(build(loads(to_yaml(resolved)))) == graph_hash(build(load("transformer")))
