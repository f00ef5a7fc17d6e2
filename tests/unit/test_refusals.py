"""What a spec cannot mean is refused where it stands, with what to write instead."""

from __future__ import annotations

from pathlib import Path

import pytest
from programs import cell, model, refusals, values

from nlc.constants import constant, impossible
from nlc.diagnostics import SpecError
from nlc.equations import parse_expression
from nlc.passes import build
from nlc.source import Position
from nlc.spec import load, loads
from nlc.spec.rule import Interval, load_rule, rules

AT = Position("t.yaml", 1, 1)
MATRIX = "- {{name: a, every: 1 token{}, memories: {{m: {{form: matrix, keys: k, values: v}}}}}}"


def matrix(more: str) -> str:
    return MATRIX.format(f", {more}" if more else "")


def where(text: str) -> list[tuple[str, int, int]]:
    """(code, line, column) of everything a text is refused for."""
    with pytest.raises(SpecError) as error:
        build(loads(text, "t.yaml"))
    return [(d.code, d.at.line, d.at.column) for d in error.value.diagnostics]


def said(key: str, value: object, spec: str = "hope") -> str:
    """The one refusal of a shipped spec with one value set: `code place: message (hint)`."""
    with pytest.raises(SpecError) as error:
        build(load(spec, {key: value}))
    (d,) = error.value.diagnostics
    return f"{d.code} {d.at.file}:{d.at.column}: {d.message} ({d.hint})"


class TestConstants:
    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("1 / 2", 0.5), ("6 / 2", 3), ("2 ** 3", 8), ("2 ** -1", 0.5), ("0.99 ** 100", 0.99**100),
            ("-heads + 5", 3), ("log(1)", 0.0), ("exp(0)", 1.0), ("sqrt(heads * 8)", 4.0),
            ("x / 2", None), ("1 / 0", None), ("(-1) ** 0.5", None), ("abs(2)", None),
        ],
    )  # fmt: skip
    def test_value(self, text: str, value: float | None) -> None:
        assert constant(parse_expression(text, AT), {"heads": 2}) == value

    def test_a_whole_quotient_of_whole_numbers_is_whole(self) -> None:
        assert isinstance(constant(parse_expression("6 / 2", AT), {}), int)

    @pytest.mark.parametrize(
        ("text", "column"),
        [
            ("1 / 0", 3), ("x / 0", 3), ("x / (heads - 2)", 3), ("x * (2 / 0) + 1", 8), ("log(-1)", 1), ("log(0)", 1),
            ("(-1) ** 0.5", 6), ("0 ** -1", 3), ("10 ** 400", 4), ("exp(1000)", 1), ("sqrt(1 - heads)", 1),
            ("linear(x, out=1 / 0)", 17), ("[1, 2 / 0]", 7), ("x[1 / 0]", 5), ("1e200 * 1e200", 7), ("x < 1 / 0", 7),
        ],
    )  # fmt: skip
    def test_no_finite_real_number(self, text: str, column: int) -> None:
        ((at, _),) = impossible(parse_expression(text, AT), {"heads": 2})
        assert at.column == column

    @pytest.mark.parametrize("text", ["x / y", "x / heads", "log(x)", "1e300", "x ** 0.5", "0 * x"])
    def test_what_may_be(self, text: str) -> None:
        assert impossible(parse_expression(text, AT), {"heads": 2}) == []

    def test_every_equation_and_field_is_looked_at(self) -> None:
        level = matrix(
            "rate: 1 / 0, retain: log(-1), out: 8 / 0, objective: sum(M - v) / 0, rule: momentum(beta=1 / 0)"
        )
        found = refusals(cell, level, "y = m(q / (heads - 2)) * (-1) ** 0.5")
        assert [f.split(":")[0] for f in found] == ["NLC0308 7"] * 5 + ["NLC0308 9"] * 2
        assert "'q / (heads - 2)' divides by 0" in found[5] and "is not a finite real number" in found[6]

    def test_a_value_named_like_a_size_is_no_number(self) -> None:
        assert refusals(values, "head = linear(x)\ny = x / (head - 4)", sizes="{width: 12, heads: 3}") == []

    def test_a_number_of_yaml_is_finite(self) -> None:
        assert said("levels.titans.rate", "1e400").startswith("NLC0205 --set:20: level 'titans': 'rate' is 1e400;")
        assert said("levels.titans.retain", ".nan").startswith("NLC0205")


class TestRanges:
    @pytest.mark.parametrize(
        ("key", "value", "message"),
        [
            ("levels.titans.rate", "-0.1", "rate is -0.1 (0 or more is expected)"),
            ("levels.titans.rule", "momentum(beta=1.5)", "'beta' of 'momentum' is 1.5 (from -1 to 1 is expected)"),
            ("levels.train.rule", "adamw(lr=-1e-3)", "'lr' of 'adamw' is -0.001 (0 or more is expected)"),
            ("levels.train.rule", "adamw(betas=(0.9, 1))", "'betas' of 'adamw' is 1 (from 0 to below 1 is expected)"),
            ("levels.train.rule", "adamw(eps=-1)", "'eps' of 'adamw' is -1 (0 or more is expected)"),
            ("levels.train.rule", "adamw(weight_decay=0 - 1)", "'weight_decay' of 'adamw' is 0 - 1 (0 or more"),
        ],
    )
    def test_outside(self, key: str, value: str, message: str) -> None:
        if key.endswith("rule") and "titans" in key:
            with pytest.raises(SpecError) as error:
                load("hope", {key: value, "levels.titans.rate": None})
            (d,) = error.value.diagnostics
            found = f"{d.code}: {d.message} ({d.hint})"
        else:
            found = said(key, value)
        assert found.startswith("NLC0405") and message in found

    def test_a_memory_takes_the_ranges_of_the_rule_it_inherits(self) -> None:
        assert "memory 'cms.fast': rate is -1" in said("levels.cms.memories.fast.rate", -1)

    def test_a_value_of_the_block_has_no_range(self) -> None:
        assert refusals(cell, matrix("rate: -0.5 * sum(k)"), "y = m(q)") == []

    @pytest.mark.parametrize("name", rules())
    def test_every_shipped_rule_has_ranges(self, name: str) -> None:
        rule = load_rule(name)
        assert set(rule.ranges) == {param for param, value in rule.params.items() if not isinstance(value, bool)}

    def test_interval(self) -> None:
        half, above = Interval.read("[0, 1)"), Interval.read("(-0.5, inf)")
        assert half is not None and above is not None
        assert [half.holds(n) for n in (-0.1, 0, 0.9, 1)] == [False, True, True, False]
        assert [above.holds(n) for n in (-0.5, 1e9)] == [False, True]
        assert (str(half), str(above)) == ("from 0 to below 1", "above -0.5")
        assert Interval.read("0 to 1") is None


class TestFieldsThatSayNothing:
    @pytest.mark.parametrize(
        ("more", "field"),
        [
            ("normalise_hidden: true", "normalise_hidden"),
            ("retain_to: start", "retain_to"),
            ("grad_at: kept", "grad_at"),
        ],
    )
    def test_of_a_level_and_of_a_memory(self, more: str, field: str) -> None:
        (of_level,) = refusals(cell, matrix(more), "y = m(q)")
        (of_memory,) = refusals(cell, matrix("").replace("values: v", f"values: v, {more}"), "y = m(q)")
        assert of_level.startswith("NLC0411") and "level 'a': " in of_level and f"'{field}' says nothing" in of_level
        assert "memory 'a.m': " in of_memory

    def test_meta_of_what_the_model_carries(self) -> None:
        fields = "name: s, every: 1 step, carry: model, objective: loss, rule: gd, meta: {}"
        level = f"- {{{{{fields}, memories: {{{{w: {{{{form: matrix}}}}}}}}}}}}"
        (found,) = refusals(model, level.format("none"), "x = x + w(x)")
        assert found.startswith("NLC0411") and "'meta' says nothing" in found
        assert refusals(model, level.format("full"), "x = x + w(x)") == []

    def test_a_field_of_a_level_may_serve_some_of_its_memories(self) -> None:
        levels = """
        - name: a
          every: 1 token
          retain_to: start
          normalise_hidden: true
          memories:
            m: {form: matrix, keys: k, values: v}
            n: {form: mlp(hidden=1x), keys: k, values: v, retain: 0.9}
        """
        assert refusals(cell, levels, "y = m(q) + n(q)") == []

    def test_one_value_turns_a_memory_off(self) -> None:
        never = {f"levels.cms.memories.{name}.every": "never" for name in ("fast", "mid", "slow")}
        build(load("hope", never))

    def test_an_input_that_nothing_uses(self) -> None:
        (found,) = refusals(cell, matrix(""), "y = m(q)", "{k: [2, 4], v: [2, 4], q: [2, 4], w: [4]}")
        assert found.startswith("NLC0905 4: nothing uses the input 'w'")
        never = matrix("").replace("1 token", "never")
        assert refusals(cell, never, "y = m(q)") == []  # k and v wait, as the fields that name them do

    def test_an_output_listed_twice(self) -> None:
        (found,) = refusals(cell, matrix(""), "y = m(q)", outputs="[y, y]")
        assert found.startswith("NLC0211 5: the output 'y' is listed twice")

    @pytest.mark.parametrize("retain", ["learned(1.5)", "1.5", "learned(3 / 2)"])
    def test_retain_is_a_share(self, retain: str) -> None:
        (found,) = refusals(cell, matrix(f"retain: {retain}"), "y = m(q)")
        assert found.startswith("NLC0505") and "1.5, and it is the share" in found


class TestNames:
    @pytest.mark.parametrize("name", ["'a\"b'", '"p\'q"', "'a.b'", "''", "'1a'", '"a\\n"'])
    def test_a_weight_is_called_by_a_word(self, name: str) -> None:
        (found,) = refusals(values, f"y = linear(x, name={name})")
        assert found.startswith("NLC0212 7:") and "is not the name of a weight" in found
        assert refusals(values, "y = linear(x, name=_a1) + linear(x, name='_a1')") == []

    @pytest.mark.parametrize("name", ["self", "state", "learn", "final"])
    def test_an_input_is_not_called_like_an_argument(self, name: str) -> None:
        (found,) = refusals(values, f"y = linear({name})", inputs=f"{{{name}: [width]}}")
        assert found.startswith("NLC0504 4:") and "call the input something else" in found


def test_the_prediction_is_no_call() -> None:
    (found,) = refusals(cell, matrix("objective: sum(abs(M(k) - v))"), "y = m(q)")
    assert found.startswith("NLC0404 7: level 'a': 'M' is called") and "sum(abs(M - v))" in found
    assert refusals(cell, matrix("objective: sum(abs(M - v))"), "y = m(q)") == []


@pytest.mark.parametrize("field", ["retain", "rate"])
def test_learned_says_where_it_begins(field: str) -> None:
    (found,) = refusals(cell, matrix(f"{field}: learned"), "y = m(q)")
    assert found.startswith("NLC0505") and "learned(0.9)" in found


BLOCKS = "nlc: 1\nname: t\nsizes: {width: 8, layers: 2, vocab: 9, context: 4}\n"
TRAIN = "levels:\n  - {name: train, every: 1 step, objective: loss, rule: adamw, memories: rest}\n"


def test_a_block_that_is_not_in_the_stack() -> None:
    text = f"{BLOCKS}{TRAIN}blocks:\n  a: x = x + linear(x)\n  b: x = x + linear(x)\nstack: [a]\n"
    assert where(text) == [("NLC0409", 8, 3)]


def test_a_folded_block() -> None:
    text = f"{BLOCKS}{TRAIN}block: >\n  h = linear(x)\n  x = x + h\n"
    assert where(text) == [("NLC0305", 6, 1)]
    build(loads(text.replace("  h = linear(x)\n", "").replace("+ h", "+ linear(x)")))  # of one line, it is the same


class TestSettings:
    @pytest.mark.parametrize("value", ["hope", "../x.yaml"])
    def test_extends_cannot_be_set(self, value: str) -> None:
        assert said("extends", value).startswith("NLC0209 --set:1: 'extends' cannot be set")

    def test_nothing_is_no_value(self) -> None:
        key = "levels.titans.rate"
        assert said(key, "").startswith("NLC0203 --set:15: 'rate' has no value (null takes the key away)")
        assert load("hope", {key: "null"}).model.level("titans").rate is None

    def test_nothing_is_no_value_where_a_spec_extends_another(self, tmp_path: Path) -> None:
        path = tmp_path / "over.yaml"
        path.write_text("nlc: 1\nname: over\nextends: hope\nrun:\n  clip:\n")
        with pytest.raises(SpecError, match="'clip' has no value"):
            load(path)
        path.write_text("nlc: 1\nname: over\nextends: hope\nrun:\n  clip: null\n")
        assert load(path).model.run.clip == 1.0

    def test_a_section_that_is_not_there(self) -> None:
        found = said("inputs.k", "[4]")
        assert "the spec has no 'inputs'" in found and "--set 'inputs={k: ...}'" in found
