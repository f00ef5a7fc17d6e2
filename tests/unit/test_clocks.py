"""Periods in the unit they are counted in."""

from __future__ import annotations

import pytest

from nlc.graph.nodes import Period, Unit
from tests.unit.programs import cell, model, refusals

BLOCK = "x = w(x)"  # a step is 4 sequences of 16 tokens: 64 tokens


def slow(every: str, more: str = "carry: model, rule: gd") -> str:
    return f"- {{name: s, every: {every}, objective: loss, {more}, memories: {{w: {{form: matrix}}}}}}"


@pytest.mark.parametrize(
    ("every", "period"),
    [
        ("64 tokens", Period(1, Unit.STEP)),
        ("192 tokens", Period(3, Unit.STEP)),
        ("8 sequences", Period(2, Unit.STEP)),
        ("5 steps", Period(5, Unit.STEP)),
        ("never", Period(0, Unit.NEVER)),
    ],
)
def test_a_memory_of_the_model_counts_steps(every: str, period: Period) -> None:
    graph = model(slow(every), BLOCK)
    assert graph["s.w"].period == graph["level:s"].period == period


@pytest.mark.parametrize(
    ("every", "message"),
    [
        ("100 tokens", "a step is 64 tokens (batch 4 x context 16); nearest: 1 step (64 tokens) or 2 steps (128"),
        ("20 tokens", "nearest: 1 step (64 tokens)"),
        ("6 sequences", "a step is 4 sequences; nearest: 1 step (4 sequences) or 2 steps (8 sequences)"),
    ],
)  # fmt: skip
def test_a_count_that_is_not_whole(every: str, message: str) -> None:
    (found,) = refusals(model, slow(every), BLOCK)
    assert found.startswith("NLC0701") and message in found


def test_the_outer_level_counts_steps_too() -> None:
    graph = model(
        "- {name: train, every: 128 tokens, objective: loss, rule: adamw, memories: rest}",
        "x = x + linear(x)",
        train=False,
    )
    assert graph["level:train"].period == Period(2, Unit.STEP)
    found = refusals(
        model,
        "- {name: t, every: 100 tokens, objective: loss, rule: adamw, memories: rest}",
        "x = linear(x)",
        train=False,
    )
    assert "level 't': 100 tokens is not a whole number of steps" in found[0]


def test_weights_that_count_tasks_are_refused_for_now() -> None:
    (found,) = refusals(model, slow("1 task"), BLOCK)
    assert found.startswith("NLC1001") and "weights updated every 1 task are not supported yet" in found


def test_tokens_stay_tokens_inside_a_sequence() -> None:
    graph = model(slow("5 tokens", "rule: gd"), BLOCK)
    assert graph["s.w"].period == Period(5, Unit.TOKEN)


@pytest.mark.parametrize("unit", ["2 sequences", "3 steps", "1 task"])
def test_a_state_of_one_sequence_counts_tokens(unit: str) -> None:
    (found,) = refusals(model, slow(unit, "rule: gd"), BLOCK)
    assert (
        found.startswith("NLC0703") and "its state lives for one sequence (count tokens, or say carry: model" in found
    )


def test_a_stream_counts_the_tokens_of_its_lane() -> None:
    made = model(slow("2 sequences", "carry: stream, rule: gd"), BLOCK)
    assert made["s.w"].period == Period(2 * made.sizes["context"], Unit.TOKEN)
    assert refusals(model, slow("2 steps", "carry: stream, rule: gd"), BLOCK)[0].startswith("NLC0703")
    assert model(slow("7 tokens", "carry: stream, rule: gd"), BLOCK)["s.w"].period == Period(7, Unit.TOKEN)


def test_a_chunk_is_a_multiple_of_its_period() -> None:
    level = "- {name: a, every: 3 tokens, chunk: 8, memories: {m: {form: matrix, keys: k, values: v}}}"
    (found,) = refusals(cell, level, "y = m(q)")
    assert found.startswith("NLC0702") and "(nearest: 6 or 9" in found
    assert cell(level.replace("8", "9"), "y = m(q)")["a.m"].chunk == 9


@pytest.mark.parametrize(
    ("rate", "varies"), [("0.1", False), ("learned(0.1)", False), ("e", True), ("0.5 * sum(k)", True)]
)
def test_whether_a_rate_varies(rate: str, varies: bool) -> None:
    level = f"- {{name: a, every: 1 token, rate: {rate}, memories: {{m: {{form: matrix, keys: k, values: v}}}}}}"
    inputs = "{k: [heads, head], v: [heads, head], q: [heads, head], e: [heads]}"
    graph = cell(level, "y = e * m(q)", inputs)
    assert graph["a.m"].rate_varies is varies


def test_attention_has_no_period() -> None:
    graph = cell("- {name: a, memories: {m: {form: attention, keys: k, values: v}}}", "y = m(q)")
    assert graph["a.m"].period == Period(0, Unit.TOKEN)
