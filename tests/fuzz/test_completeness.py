"""What the language has, random programs have: a new rule, form, operator or field is drawn, or this fails."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest

from nlc.cli import main
from nlc.graph.nodes import Period, Unit
from nlc.operators import OPERATORS
from nlc.passes import build
from nlc.spec import load, loads, rules
from nlc.spec.architecture import Architecture, Fields
from nlc.spec.fields import CARRIES, FORMS, OBJECTIVES, STARTS
from tests.fuzz.choices import Choose
from tests.fuzz.definition2 import misplaced
from tests.fuzz.illegal import BREAKS, broken
from tests.fuzz.language import PARAMETERS, choices
from tests.fuzz.legal import layer, program
from tests.fuzz.objectives import ALLOWED, objectives
from tests.fuzz.reduced import smaller
from tests.fuzz.written import written

MANY = 400
NOT_SAID = {"doc", "extends"}  # says nothing, or names a file
FROM_A_FILE = {"from"}


@cache
def specs() -> tuple[dict[str, Any], ...]:
    return tuple(make(Choose.seeded(seed)).spec for seed in range(MANY) for make in (program, layer))


@cache
def fields() -> dict[str, list[str]]:
    """field -> every value of it that is drawn, as text."""
    found: dict[str, list[str]] = {}
    for spec in specs():
        for level in spec["levels"]:
            memories = level["memories"].values() if isinstance(level["memories"], dict) else ()
            for section in (level, *memories):
                for name, value in section.items():
                    found.setdefault(name, []).append(str(value))
    return found


def called(field: str) -> set[str]:
    return {value.split("(")[0] for value in fields().get(field, ())}


def test_every_field_is_drawn() -> None:
    assert set(Fields.model_fields) <= set(fields())
    keys = {key for spec in specs() for key in spec}
    assert set(Architecture.model_fields) - NOT_SAID <= keys


def test_every_rule_form_objective_start_and_lifetime_is_drawn() -> None:
    assert set(rules()) <= called("rule")
    assert set(FORMS) <= called("form")
    assert set(OBJECTIVES) <= called("objective")
    assert set(STARTS) - FROM_A_FILE <= called("start")
    assert set(CARRIES) - {"sequence"} <= called("carry")


@pytest.mark.parametrize("field", [name for name in Fields.model_fields if choices(name)])
def test_every_word_of_a_field_is_drawn(field: str) -> None:
    assert set(choices(field)) <= set(fields()[field])


def test_every_parameter_can_be_drawn() -> None:
    for what, table in (("form", FORMS), ("objective", OBJECTIVES), ("start", STARTS)):
        for name, parameters in table.items():
            assert all((what, p) in PARAMETERS for p in parameters if name not in FROM_A_FILE), name


def test_every_operator_is_drawn() -> None:
    text = "\n".join(str(spec.get("block", spec.get("blocks"))) for spec in specs())
    named = {name: f"{name}(" for name, op in OPERATORS.items() if not op.symbol}
    signs = {name: f" {op.symbol} " for name, op in OPERATORS.items() if op.symbol and op.operands == (2, 2)}
    assert [name for name, sign in (named | signs).items() if sign not in text] == []


def test_every_operator_of_an_objective_is_drawn() -> None:
    text = "\n".join(objectives(Choose.seeded(seed)).text for seed in range(MANY))
    signs = {name: f" {OPERATORS[name].symbol} " if OPERATORS[name].symbol else f"{name}(" for name in ALLOWED}
    assert [name for name, sign in (signs | {"neg": "(-"}).items() if sign not in text] == []


def test_every_break_is_made() -> None:
    assert set(BREAKS) == {broken(Choose.seeded(seed)).what for seed in range(MANY)}


def test_every_program_has_layers_heads_and_a_level_that_fires_several_times() -> None:
    for seed in range(40):
        one = program(Choose.seeded(seed))
        graph = build(loads(one.text))
        assert len(graph.stack) >= 2 and graph.sizes["heads"] >= 2
        assert any(
            level.period.unit is Unit.TOKEN and 0 < level.period.count * 3 <= one.feeding.length
            for level in graph.levels
        )


def test_brute_force_sees_what_pass_levels_may_get_wrong() -> None:
    graph = build(load("hope"))
    assert misplaced(graph) == []
    from dataclasses import replace

    swapped = graph.with_nodes([replace(level, index=6 - level.index) for level in graph.levels])
    assert misplaced(swapped)
    slower = graph.with_nodes([replace(graph.levels[0], period=Period(200, Unit.TOKEN))])
    assert misplaced(slower)


@pytest.mark.parametrize("seed", range(3))
def test_a_broken_spec_ends_the_command_with_status_2(
    seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(broken(Choose.seeded(seed)).text, encoding="utf-8")
    assert main(["check", str(path)]) == 2
    said = capsys.readouterr()
    assert f"{path}:" in said.out + said.err and "Traceback" not in said.out + said.err


def test_reduction_keeps_what_fails() -> None:
    spec = program(Choose.seeded(3)).spec
    small = smaller(spec, lambda s: "train" in [level["name"] for level in s["levels"]] and "conv" in written(s)[0], 5)
    assert len(written(small)[0]) <= len(written(spec)[0])
