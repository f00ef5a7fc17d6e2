"""What each objective reaches; memories and weights that nothing reaches."""

from __future__ import annotations

import pytest

from nlc.passes import build
from nlc.passes.gradients import reach
from nlc.spec import load
from tests.unit.programs import cell, model, refusals

DELTA = "- {name: a, every: 1 token, rule: gd, memories: {m: {form: matrix, keys: k, values: v}}}"
BLOCK = "k = heads(linear(x))\nv = heads(linear(x))\nx = x + linear(merge(m(k)))"


@pytest.mark.parametrize(
    "name", ["hope", "hope_deep", "hope_attention", "titans_lmm", "linear_attention", "transformer"]
)
def test_everything_in_a_shipped_spec_is_reached(name: str) -> None:
    graph = build(load(name))
    found = reach(graph)
    assert {m for level in graph.levels for m in level.memories} <= found.used
    assert {w for level in graph.levels for w in level.weights if not w.startswith("frame")} <= found.outer


def test_meta_first_order_reaches_rates_and_starts_not_keys_of_plain_descent() -> None:
    for rule, keys in (("gd", False), ("dgd", True)):
        level = (
            f"- {{name: a, every: 1 token, rule: {rule}, meta: first_order, "
            f"memories: {{m: {{form: matrix, keys: k, values: v}}}}}}"
        )
        graph = cell(level, "y = m(q)")
        assert ("k" in reach(graph).outer) is keys
        assert "v" not in reach(graph).outer


def test_a_projection_that_only_a_constant_gradient_sees_is_refused() -> None:
    found = refusals(
        model, DELTA.replace("rule: gd", "rule: gd, meta: first_order"), BLOCK.replace("m(k)", "m(heads(x))")
    )
    assert [f[:7] for f in found] == ["NLC0903", "NLC0903"]
    assert (
        "the weight blocks.0.k.linear is reached by no objective (no gradient passes on its way to the loss" in found[0]
    )


def test_meta_none_and_a_learned_start() -> None:
    found = refusals(model, DELTA.replace("rule: gd", "rule: gd, meta: none"), BLOCK)
    assert found[0].startswith("NLC0411") and "meta: none with a learned start" in found[0]
    level = "- {name: a, every: 1 token, meta: none, start: zeros, memories: {m: {form: matrix, keys: k, values: k}}}"
    graph = model(level, "k = heads(linear(x))\nx = x + linear(merge(m(k)))")
    assert graph["a.m"].weights == ()


def test_a_learned_rate_that_nothing_trains() -> None:
    level = (
        "- {name: a, every: 1 token, meta: none, start: zeros, rate: learned(0.1), "
        "memories: {m: {form: matrix, keys: k, values: k}}}"
    )
    (found,) = refusals(model, level, "k = heads(linear(x))\nx = x + linear(merge(m(k)))")
    assert (
        "the weight blocks.0.a.rate is reached by no objective (a constant state passes no gradient (meta: none)"
        in found
    )


def test_what_is_written_is_a_constant_at_first_order() -> None:
    level = DELTA.replace("values: v", "values: linear(v)").replace("{name: a,", "{name: a, meta: first_order,")
    (found,) = refusals(model, level, "k = heads(linear(x))\nv = k\nx = x + linear(merge(m(k)))")
    assert "a.m.values.linear is reached by no objective (a write's gradient is a constant (meta: first_order)" in found


def test_never_read() -> None:
    (found,) = refusals(model, DELTA, BLOCK.replace("m(k)", "k"))
    assert found.startswith("NLC0901") and "the block does not call m(...)" in found


def test_read_only_by_itself_is_never_read() -> None:
    (found,) = refusals(cell, DELTA.replace("values: v", "values: m(v)"), "y = q")
    assert found.startswith("NLC0901") and "nothing that leaves the block depends on m(...)" in found


def test_a_memory_read_in_a_field_of_another_is_read() -> None:
    levels = """
    - name: a
      every: 1 token
      rate: sigmoid(sum(n(k)))
      memories: {m: {form: matrix, keys: k, values: v}, n: {form: matrix, keys: k, values: v}}
    """
    assert "a.n" in reach(cell(levels, "y = m(q)")).used


def test_never_written() -> None:
    level = "- {name: a, every: 1 token, memories: {m: {form: matrix}}}"
    assert refusals(cell, level, "y = m(q)", inputs="{q: [heads, head]}")[0].startswith("NLC0902")
    still = cell(level.replace("1 token", "never"), "y = m(q)", inputs="{q: [heads, head]}")
    assert still["a.m"].pairs == ()


def test_no_loss_in_a_bare_program() -> None:
    level = "- {name: a, every: 2 tokens, objective: loss, memories: {m: {form: matrix}}}"
    found = refusals(cell, level, "y = m(q)", inputs="{q: [heads, head]}")
    assert found[0].startswith("NLC0903") and "a program with inputs has no loss" in found[0]


def test_an_output_that_does_not_lead_to_the_tokens_own_loss() -> None:
    levels = """
    - {name: c, every: 2 tokens, objective: loss, rule: gd, memories: {w: {form: matrix}}}
    - {name: a, every: 1 token, memories: {m: {form: matrix, keys: k, values: k}}}
    """
    (found,) = refusals(model, levels, "k = heads(w(x))\nx = x + linear(merge(m(heads(x))))")
    assert found.startswith("NLC0903") and "its output does not lead to the token's own loss" in found


def test_stop_passes_no_gradient() -> None:
    (found,) = refusals(model, "", "h = linear(x)\nx = x + linear(stop(h))")
    assert "the weight blocks.0.h.linear is reached by no objective (no gradient passes" in found


def test_a_value_that_nothing_uses() -> None:
    (found,) = refusals(model, "", "h = linear(x)\nx = x + linear(x)")
    assert "nothing that leaves the block depends on it" in found


def test_frozen_weights_need_no_gradient() -> None:
    levels = """
    - {name: still, every: never, memories: 'select(*.h.linear)'}
    """
    graph = model(levels, "h = linear(x)\nx = x + linear(stop(h))")
    assert graph["blocks.*.h.linear"].owner == "level:still"


def test_continuum_at_never() -> None:
    never = {f"levels.cms.memories.{m}.every": "never" for m in ("fast", "mid")}
    graph = build(load("hope", never), check=True)
    assert [level.name for level in graph.levels] == ["titans", "train", "cms.slow", "cms.fast_mid"]
