"""The text of `nlc explain` and `nlc show`: counts, drawing, columns, origins."""

from __future__ import annotations

import pytest

from nlc import show
from nlc.explain import explain, rule_text, uses_gram
from nlc.graph.nodes import Level, Memory
from nlc.passes import build
from nlc.report import COLUMNS, binary, decimal, report, table, timeline
from nlc.spec import load


@pytest.mark.parametrize("context", [1, 63, 64, 65, 500, 512])
def test_fires_counts_writes_as_a_run_does(context: int) -> None:
    facts = explain(build(load("hope", {"sizes.context": context})))
    for level in facts.levels:
        if level.period.endswith(("token", "tokens")):
            period = int(level.period.split()[0])
            assert level.fires == sum(1 for seen in range(1, context + 1) if seen % period == 0), level.name


@pytest.mark.parametrize("context", [64, 500, 512, 4096])
def test_timeline_marks_every_part_of_a_sequence_that_holds_an_update(context: int) -> None:
    facts = explain(build(load("hope", {"sizes.context": context})))
    rows = {
        line.split()[0]: line for line in timeline(facts).splitlines() if line.startswith("  ") and "|" in line[10:]
    }
    left = rows["titans"].index("|")
    for name, period in (("titans", 1), ("cms.fast", 64), ("cms.mid", 256)):
        columns = {t * COLUMNS // context for t in range(1, context + 1) if t % period == 0}
        for column in columns if name in rows else ():
            near = rows[name][
                max(left, left + column - 1) : left + column + 2
            ]  # an update on a border may go either way
            assert "|" in near, (name, column)


def test_a_program_without_levels_inside_a_sequence_has_no_timeline() -> None:
    assert timeline(explain(build(load("transformer")))) == ""


def test_rule_text_leaves_defaults_out() -> None:
    graph = build(load("hope"))
    texts = {level.name: rule_text(level.rule, graph, level.rate) for level in graph.of(Level) if level.rule}
    assert texts["train"] == "adamw(lr=0.004, betas=(0.9, 0.95), weight_decay=0.1)"
    assert texts["cms.slow"] == "adamw(lr=0.0003)"


def test_uses_gram_is_read_off_the_program() -> None:
    rules = {m.name: m.rule for m in build(load("hope")).of(Memory)}
    assert uses_gram(rules["key"]) and not uses_gram(rules["fast"])


def test_notes_warn_of_what_a_spec_does_not_show() -> None:
    chosen = {
        "sizes.context": 500,
        "levels.titans.tail": "drop",
        "levels.titans.memories.memory.normalise_hidden": False,
    }
    notes = " / ".join(explain(build(load("hope_deep", chosen))).notes)
    assert "hidden activations are not normalised" in notes
    assert "the last 52 are dropped at the end of a call (tail: drop)" in notes
    assert "invisible to these memories" in notes


def test_table_aligns_columns() -> None:
    assert table([["a", "1"], ["long", "100"]], right={1}) == "  a       1\n  long  100"


def test_quantities_have_units() -> None:
    assert (binary(512), binary(1536), binary(3 << 20)) == ("512 B", "1.5 KiB", "3.0 MiB")
    assert (decimal(12), decimal(34_800_000)) == ("12 ", "34.8 M")


def test_every_resolved_value_has_an_origin() -> None:
    spec = load("hope_deep", {"run.batch": "3"})
    found = {o.path: o for o in show.origins(spec, "levels") + show.origins(spec, "run")}
    assert all(o.origin for o in found.values())
    assert found["run.batch"].value == 3 and found["run.batch"].origin == "--set"
    assert found["levels.titans.memories.memory.form"].origin.startswith("specs/architectures/hope_deep.yaml:")
    assert found["levels.titans.memories.key.form"].origin.startswith("specs/architectures/hope.yaml:")
    (inherited,) = show.origins(spec, "levels.titans.memories.key.read")
    assert (inherited.value, inherited.origin) == ("chunk", "default chunk")


def test_an_unknown_path_has_no_origin_but_a_hint() -> None:
    spec = load("hope")
    assert show.origins(spec, "levels.titan.rate") == []
    assert "levels.titans.rate" in show.nearest(spec, "levels.titan.rate")


def test_a_field_that_a_level_leaves_to_its_memories_is_answered_by_them() -> None:
    found = show.origins(load("hope"), "levels.cms.chunk")
    assert [(o.path.split(".")[3], o.value, o.origin) for o in found] == [
        ("fast", 1, "default 1"),
        ("mid", 1, "default 1"),
    ]
    (head,) = show.origins(load("hope"), "sizes.head")
    assert (head.value, head.origin) == (64, "default width / heads")


def test_the_text_says_which_updates_it_counts() -> None:
    said = " ".join(report(explain(build(load("titans_lmm")))).split())
    assert "per sequence: as `levels fired` of a run counts them" in said
    assert "per sequence: as" not in report(explain(build(load("transformer"))))
