"""From a candidate to a variant: sizes that meet a budget, rates, structure laid over the base."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from nlc.diagnostics import Diagnostic, SpecError
from nlc.passes import build
from nlc.source import Position
from nlc.spec import load, loads
from nlc.variants.axes import combinations
from nlc.variants.budget import Cost, fit
from nlc.variants.fields import TuneFields
from nlc.variants.rates import Rates, grid, rated
from nlc.variants.variant import Variant, chosen, cost_of, make
from tests.unit.variants.searched import lessons, searched


def variants(text: str) -> list[Variant]:
    search = searched(text)
    return [make(chosen(search, c), search, tuple(lessons(search).values())) for c in combinations(search.axes)]


@pytest.mark.parametrize("budget", [{"params": 9000}, {"state_bytes": 2000}, {"flops": 30_000, "params": 12_000}])
def test_a_budget_is_met_by_the_largest_size_that_keeps_it(budget: dict[str, int]) -> None:
    said = ", ".join(f"{name}: {limit}" for name, limit in budget.items())
    base = "set: {sizes.heads: 2, sizes.layers: 1, sizes.width: 48}\ntasks: [mqar]\nbase: deltanet\n"
    (found,) = variants(f"{base}budget: {{{said}}}\n")
    width = found.fitted.sizes.get("sizes.width", 48)

    def cost(width: int) -> dict[str, int]:
        sizes = {"sizes.width": width, "sizes.context": 8, "sizes.vocab": 16}
        return cost_of(build(loads(found.text, "v", sizes)))

    assert width % 4 == 0 and dict(found.fitted.costs["mqar"]) == cost(width)
    assert all(cost(width)[name] <= limit for name, limit in budget.items())
    assert any(cost(width + 4)[name] > limit for name, limit in budget.items())
    assert found.fitted.lines and f"48 -> {width}" in found.fitted.lines[0]


def test_a_budget_that_no_size_meets_is_refused_where_it_is_said() -> None:
    (found,) = variants("base: deltanet\ntasks: [mqar]\nset: {sizes.heads: 2, sizes.layers: 1}\nbudget: {params: 50}\n")
    assert found.status == "rejected" and "no sizes.width keeps the budget" in found.error
    assert [found.diagnostics[0][key] for key in ("code", "line", "column")] == ["NLC1206", 6, 1]


def test_a_size_that_does_not_compile_begins_beside_it_where_the_budget_changes_it() -> None:
    text = "base: deltanet\ntasks: [mqar]\nset: {sizes.width: 32, sizes.layers: 1}\naxes: {sizes.heads: [2, 3, 37]}\n"
    two, three, _ = variants(f"{text}budget: {{params: 20000}}\n")
    assert (two.status, three.status) == ("ok", "ok") and three.fitted.sizes["sizes.width"] % 6 == 0
    assert three.fitted.lines[0].startswith("sizes.width 32 -> ")
    (_, heads, _) = variants(f"{text}budget: {{params: 20000}}\nrescale: sizes.heads\n")
    assert heads.fitted.lines[0].startswith("sizes.heads 3 -> ")
    none = variants(f"{text}budget: {{params: 9}}\nrescale: sizes.layers\n")[2]
    assert "width 32 does not divide into 37 heads" in none.error
    assert variants(text)[1].status == "rejected"


def test_what_compiles_at_no_size_is_tried_at_a_few() -> None:
    asked = []

    def measure(sizes: Mapping[str, int]) -> Mapping[str, Cost]:
        asked.append(dict(sizes))
        raise SpecError([Diagnostic("NLC0602", at, f"error {len(asked)}")])

    at, spec = Position("s.yaml", 1, 1), load("deltanet", {"sizes.width": 30, "sizes.heads": 2})
    with pytest.raises(SpecError, match="error 1 "):
        fit(measure, {"params": 9}, spec, ["sizes.width"], at)
    assert asked == [{}, *({"sizes.width": width} for width in (28, 32, 24, 36))]


@pytest.mark.parametrize(
    "more", ["budget: {tokens: 16}\n", "rungs: [{tokens: 16}]\n", "rungs: [{tokens: 16}]\nbudget: {trials: 2}\n"]
)
def test_a_step_of_more_tokens_than_a_run_has_is_rejected(more: str) -> None:
    text = (
        f"base: deltanet\ntasks: [mqar]\nset: {{sizes.heads: 2, sizes.layers: 1}}\n{more}axes: {{run.batch: [2, 3]}}\n"
    )
    two, three = variants(text)
    assert (two.status, three.status) == ("ok", "rejected")
    assert [three.diagnostics[0][key] for key in ("code", "line", "column")] == ["NLC1206", 6, 1]
    assert "one step of task 'mqar' learns from 24 tokens, and a run may from 16" in three.error


def test_rates_are_set_in_the_rule_of_the_network() -> None:
    spec = load("hope")
    assert rated(spec, Rates(lr=0.01, weight_decay=0.2)) == {
        "levels.train.rule": "adamw(lr=0.01, betas=(0.9, 0.95), weight_decay=0.2)"
    }
    assert grid(spec, TuneFields(lr=[0.1, 0.2], weight_decay=[0.0, 0.1])) == tuple(
        Rates(lr, decay) for lr in (0.1, 0.2) for decay in (0.0, 0.1)
    )


def test_a_rule_without_weight_decay_and_a_rate_that_is_a_number() -> None:
    spec = load("linear_attention", {"levels.train.rule": "gd", "levels.train.rate": "0.5"})
    assert grid(spec, TuneFields(lr=[0.1], weight_decay=[0.0, 0.1])) == (Rates(0.1, None),)
    assert rated(spec, Rates(lr=0.1, weight_decay=0.2)) == {"levels.train.rate": 0.1}


def test_structure_is_laid_over_the_base() -> None:
    text = """base: linear_attention
tasks: [mqar]
axes:
  wiring:
    choices:
      as it is: {}
      with a continuum:
        levels: [{name: cms, objective: loss, rule: gd, rate: 0.01, meta: first_order,
                  memories: {fast: {form: 'mlp(hidden=2x)', every: 4 tokens}}}]
        block: |
          h = rmsnorm(x)
          q = heads(linear(h))
          k = heads(linear(h))
          v = heads(linear(h))
          x = x + linear(merge(memory(q)))
          x = x + fast(rmsnorm(x))
"""
    plain, more = variants(text)
    assert (plain.status, more.status) == ("ok", "ok"), more.error
    assert [level.name for level in loads(more.text, "v").model.levels] == ["attention", "train", "cms"]


def test_a_level_is_taken_away_by_null() -> None:
    spec = load("linear_attention", {"block": "x = x + linear(rmsnorm(x))\n", "levels.attention": "null"})
    assert [level.name for level in spec.model.levels] == ["train"]


def test_a_bare_program_has_nothing_to_train_on() -> None:
    search = searched("base: tests/specs/dgd-cell.yaml\ntasks: [mqar]\n")
    found = make(chosen(search, {}), search, tuple(lessons(search).values()))
    assert found.status == "rejected" and "bare program" in found.error
