"""Update rules as data: the shipped files, and what is refused in one."""

from __future__ import annotations

import pytest

from nlc.diagnostics import Reporter, SpecError
from nlc.equations import to_text
from nlc.source import Position
from nlc.spec import load_rule, rules
from nlc.spec.rule import rule_from
from nlc.spec.text import parse

RULE = """\
nlc: 1
rule: slow
params: {lr: 1.0, beta: 0.9, period: 10}
levels:
  - every: 1 update
    state: {m: zeros}
    do: m = m + grad
  - every: period updates
    state: {o: zeros}
    do: |
      o = beta * o + m
      delta = -lr * o
"""


def read(text: str) -> object:
    report = Reporter()
    tree = parse(text, "r.yaml", report)
    report.check()
    assert tree is not None
    return rule_from(tree)


@pytest.mark.parametrize("name", rules())
def test_shipped_rules(name: str) -> None:
    rule = load_rule(name)
    assert rule.name == name and rule.doc and "lr" in rule.params
    assert {"delta", "weight"} & {target for level in rule.levels for assign in level.do for target in assign.targets}


def test_programs_are_trees() -> None:
    momentum = load_rule("momentum")
    assert momentum.levels[0].state == ("m",) and momentum.levels[0].every == 1
    assert to_text(momentum.levels[0].do[0]) == "m = beta * m - lr * grad"
    assert load_rule("adamw").params["betas"] == (0.9, 0.999)


def test_a_period_may_be_a_parameter() -> None:
    rule = read(RULE)
    assert [level.every for level in rule.levels] == [1, "period"]  # type: ignore[attr-defined]


def test_unknown_rule_suggests_nearest() -> None:
    with pytest.raises(SpecError) as error:
        load_rule("adamww", Position("t.yaml", 4, 2, 6))
    assert error.value.diagnostics[0].at.line == 4 and "did you mean 'adamw'?" in error.value.diagnostics[0].hint


@pytest.mark.parametrize(
    ("old", "new", "code", "line"),
    [
        pytest.param("do: m = m + grad", "do: m = m + gradd", "NLC0410", 7, id="unknown_name"),
        pytest.param("o = beta * o + m", "m = beta * o + m", "NLC0410", 11, id="two_writers"),
        pytest.param("delta = -lr * o", "lr = 1", "NLC0410", 12, id="parameter_written"),
        pytest.param("      delta = -lr * o\n", "", "NLC0410", 1, id="nothing_done"),
        pytest.param("period updates", "preiod updates", "NLC0401", 8, id="period"),
        pytest.param("{m: zeros}", "{m: ones}", "NLC0204", 6, id="state"),
        pytest.param("params:", "parms:", "NLC0201", 3, id="key"),
        pytest.param("beta: 0.9", "beta: high", "NLC0202", 3, id="parameter"),
        pytest.param("rule: slow\n", "", "NLC0203", 1, id="no_name"),
        pytest.param("levels:", "ranges: {gamma: '[0, 1]'}\nlevels:", "NLC0410", 4, id="range_of_nothing"),
        pytest.param("levels:", "ranges: {beta: 0 to 1}\nlevels:", "NLC0202", 4, id="no_range"),
        pytest.param("levels:", "ranges: {beta: '[0, 0.5]'}\nlevels:", "NLC0205", 4, id="default_outside_its_range"),
        pytest.param("m + grad", "m.T + grad", "NLC0303", 7, id="program"),
        pytest.param("nlc: 1", "nlc: 2", "NLC0210", 1, id="version"),
        pytest.param("nlc: 1\n", "x-nlc: 1\n", "NLC0203", 1, id="no_version"),
        pytest.param("1 update", "0 updates", "NLC0205", 5, id="period_0"),
        pytest.param("period: 10", "period: 2.5", "NLC0205", 8, id="broken_period"),
        pytest.param("period: 10", "period: 10, gamma: 1", "NLC0410", 3, id="parameter_not_read"),
        pytest.param("{m: zeros}", "{m: zeros, o: zeros}", "NLC0410", 9, id="state_of_two_levels"),
        pytest.param("{m: zeros}", "{m: zeros, n: zeros}", "NLC0410", 6, id="state_not_written"),
        pytest.param("o = beta * o + m", "o = beta * o + grad", "NLC0410", 6, id="state_not_read"),
        pytest.param("delta = -lr * o", "weight = weight - lr * o\n      delta = o", "NLC0410", 13, id="two_results"),
        pytest.param("m + grad", "m + grad / 0", "NLC0308", 7, id="no_number"),
        pytest.param("m + grad", "m + newton_schulz(grad, 2.5)", "NLC0410", 7, id="steps_not_whole"),
    ],
)
def test_refused(old: str, new: str, code: str, line: int) -> None:
    assert old in RULE
    with pytest.raises(SpecError) as error:
        read(RULE.replace(old, new, 1))
    assert (code, line) in [(d.code, d.at.line) for d in error.value.diagnostics]


@pytest.mark.parametrize("name", ["grad", "weight", "retain", "count", "rows", "delta"])
def test_a_name_that_every_rule_has_is_nobody_elses(name: str) -> None:
    for old, new, what in (("beta: 0.9", f"{name}: 0.9", "parameter"), ("{o: zeros}", f"{{{name}: zeros}}", "state")):
        with pytest.raises(SpecError) as error:
            read(RULE.replace(old, new))
        first = error.value.diagnostics[0]
        assert first.code == "NLC0410" and f"a {what} called '{name}'" in first.message
