"""A search file: what is refused, where, and what may be said; every combination of axes, with conditions."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest

from nlc.cli.common import Stop
from nlc.cli.search import check_there, materials
from nlc.diagnostics import SpecError
from nlc.spec import load_task
from nlc.variants.axes import combinations, settings
from nlc.variants.schema import search_schema
from nlc.variants.scores import IN_ORDER, measures, scores
from nlc.variants.search import find_search, load_search, searches
from tests.unit.variants.searched import searched

REST = "tasks: [mqar]\nbase: hope\n"

WRONG = {
    "unknown key": (REST + "axis: {}", [("NLC0201", 5, 1)]),
    "unknown key of a section": (REST + "budget: {param: 4}", [("NLC0201", 5, 10)]),
    "no such base": ("tasks: [mqar]\nbase: hop\n", [("NLC0101", 4, 7)]),
    "no such task": ("tasks: [mqr]\nbase: hope\n", [("NLC1101", 3, 9)]),
    "two tasks of one name": ("tasks: [mqar, mqar(pairs=4)]\nbase: hope\n", [("NLC0211", 3, 15)]),
    "an axis without values": (REST + "axes: {a.b: {when: {}}}", [("NLC1202", 5, 8)]),
    "a value twice": (REST + "axes: {a.b: [1, 1]}", [("NLC1202", 5, 8)]),
    "values and choices": (REST + "axes: {a: {values: [1], choices: {x: {}}}}", [("NLC1202", 5, 8)]),
    "a condition on a later axis": (REST + "axes: {a: {values: [1], when: {b: 1}}, b: [1]}", [("NLC1203", 5, 32)]),
    "a condition on no value": (REST + "axes: {b: [1], a: {values: [1], when: {b: 2}}}", [("NLC1203", 5, 43)]),
    "conditions that never hold together": (
        REST + "axes: {a: [x, y], b: {values: [p], when: {a: x}}, c: {values: [1], when: {a: y, b: p}}}",
        [("NLC1203", 5, 51)],
    ),
    "a condition on none of the values": (
        REST + "axes: {b: [1], a: {values: [1], when: {b: []}}}",
        [("NLC1203", 5, 16)],
    ),
    "a score of no task": (REST + "rank_by: parity.accuracy", [("NLC1204", 5, 10)]),
    "a score of no metric": (REST + "rank_by: mqar.acuracy", [("NLC1204", 5, 10)]),
    "a score of no test": (REST + "rank_by: mqar[longest].accuracy", [("NLC1204", 5, 10)]),
    "a rung's score of no metric": (REST + "rungs: [{steps: 1, rank_by: mqar.bits}]", [("NLC1204", 5, 9)]),
    "a score that the last rung does not have": (
        "base: hope\ntasks: [parity, mqar]\nrank_by: mqar.loss\nrungs: [{tasks: [mqar], keep: 1}, {tasks: [parity]}]",
        [("NLC1204", 5, 10)],
    ),
    "a score that the last rung does not rank by": (
        REST + "rank_by: mqar.loss\nrungs: [{steps: 1, keep: 1}, {rank_by: mqar.accuracy}]",
        [("NLC1205", 5, 10)],
    ),
    "a task that is called as a folder": ("tasks: {../x: mqar}\nbase: hope\n", [("NLC1207", 3, 15)]),
    "a rung of no task": (REST + "rungs: [{tasks: [parity]}]", [("NLC1204", 5, 9)]),
    "nobody is kept": (REST + "rungs: [{steps: 1}, {steps: 2}]", [("NLC1205", 5, 9)]),
    "kept for nothing": (REST + "rungs: [{steps: 1, keep: 2}]", [("NLC1205", 5, 9)]),
    "steps and tokens": (REST + "budget: {steps: 1, tokens: 2}", [("NLC1205", 5, 1)]),
    "steps of no task that is known": (
        "base: hope\ntasks: mqr\nrungs: [{steps: 2, keep: 1}, {steps: 4}]",
        [("NLC1101", 4, 8)],
    ),
    "steps of what is learned in order": (
        "base: hope\ntasks: [clinc150, mqar]\nrungs: [{tasks: [clinc150], steps: 1, keep: 2}, {steps: 9}]",
        [("NLC1205", 5, 9)],
    ),
    "all and more are kept": (REST + "rungs: [{keep: .inf}, {steps: 2}]", [("NLC0205", 5, 16)]),
    "a text that no file can be": (REST + 'data: "a\\0b"', [("NLC0208", 5, 8)]),
    "a base that no file can be": ('tasks: [mqar]\nbase: "a\\0b.yaml"\n', [("NLC0208", 4, 8)]),
    "a draw without end": (REST + "sampler: random", [("NLC1205", 5, 10)]),
    "a batch of one that nsga2 puts together": (
        REST + "budget: {trials: 2}\nsampler: {name: nsga2, batch: 1}",
        [("NLC1205", 6, 10)],
    ),
    "a sampler of numbers only": (REST + "budget: {trials: 2}\nsampler: cmaes", [("NLC0204", 6, 10)]),
    "a grid that nobody lists": (
        REST + "axes: {" + ", ".join(f"sizes.a{i}: [1, 2, 3, 4, 5, 6, 7, 8]" for i in range(10)) + "}",
        [("NLC1205", 5, 1)],
    ),
    "mutants that leave no trial for a draw": (
        REST + "axes: {a.b: [1, 2, 3]}\nbudget: {trials: 3}\nmutate: {generations: 1, population: 3}",
        [("NLC1205", 7, 1)],
    ),
    "a size that no base has": (REST + "rescale: [sizes.widht, sizes.width]", [("NLC0503", 5, 11)]),
    "a size without its path": (REST + "rescale: width", [("NLC0503", 5, 10)]),
    "sizes that every task sets": (
        REST + "set: {sizes.context: 99}\naxes: {sizes.vocab: [9, 8], a: {choices: {b: {sizes: {vocab: 9}}}}}\n"
        "rescale: [sizes.width, sizes.context]",
        [("NLC1205", 5, 7), ("NLC1205", 6, 8), ("NLC1205", 6, 55), ("NLC1205", 7, 24)],
    ),
    "another sampler": (REST + "sampler: best", [("NLC0204", 5, 10)]),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_refused_where_it_stands(name: str) -> None:
    text, expected = WRONG[name]
    with pytest.raises(SpecError) as refused:
        searched(text)
    assert [(d.code, d.at.line, d.at.column) for d in refused.value.diagnostics] == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (REST + "tune: {lr: [0]}", ["an item of 'lr' is 0; above 0 is expected"]),
        (REST + "limits: {seconds: -1}", ["'seconds' is -1; above 0 is expected"]),
        (REST + "sampler: cmaes", ["'sampler' is the text 'cmaes'"]),
        ("base: hope\ntaskss: mqar", ["'tasks' is missing", "unknown key 'taskss'"]),
        ("base: hope\ntasks: {p: [parity]}", ["'p' is a list; text is expected"]),
        ("base: hope\ntasks: [mqar, '']", ["an item of 'tasks' is empty"]),
        ("base: hope\ntasks: {}", ["'tasks' is empty"]),
        ("base: [[hope]]\ntasks: [mqar]", ["an item of 'base' is a list; text is expected"]),
        ("base:\ntasks: [mqar]", ["'base' has no value"]),
        ("tasks: [mqar]", ["'base' is missing"]),
    ],
)
def test_one_fault_is_said_once_by_the_key_that_it_is_of(text: str, said: list[str]) -> None:
    with pytest.raises(SpecError) as refused:
        searched(text)
    assert [d.message for d in refused.value.diagnostics] == said


def test_what_is_wrong_with_the_yaml_is_refused_where_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    for more, code in {
        "seeds: 1\nseeds: 7": "NLC0107",
        "axes: {sizes.layers: [1], sizes.layers: [2]}": "NLC0107",
        "<<: {seeds: 5}": "NLC0109",
        "budget: !!map {steps: 2}": "NLC0109",
        "set: {levels.train.rule: adamw(lr=1, weight_decay=0)}": "NLC0110",
    }.items():
        path.write_text(f"nlc: 1\nsearch: s\n{REST}{more}\n")
        with pytest.raises(SpecError) as refused:
            find_search(str(path))
        assert [d.code for d in refused.value.diagnostics] == [code]
    path.write_text("nlc: 1\nextends: hope\nname: a\nname: b\n")
    assert find_search(str(path)) is None


def test_an_axis_applies_under_its_condition_only() -> None:
    search = searched(
        "base: [deltanet, hope]\ntasks: [mqar]\naxes:\n"
        "  levels.delta.objective: {values: [l2, dot], when: {base: deltanet}}\n  sizes.heads: [1, 2]\n"
    )
    found = list(combinations(search.axes))
    assert len(found) == 2 * 2 + 2
    assert [one.get("levels.delta.objective") for one in found] == ["l2", "l2", "dot", "dot", None, None]


def test_an_axis_applies_under_a_condition_on_one_that_has_a_condition() -> None:
    chain = "axes: {a: [x, y], b: {values: [p, q], when: {a: [x]}}, c: {values: [1, 2], when: {a: [x, y], b: q}}}"
    assert len(list(combinations(searched(REST + chain).axes))) == 1 + 2 + 1


def test_a_choice_changes_several_things_and_null_takes_one_away() -> None:
    search = searched(
        REST + "axes:\n  cms:\n    choices: {none: {}, no mid: {levels.cms.memories.mid: null, sizes.width: 64}}\n"
    )
    found = settings(search.axes, {"cms": "no mid"})
    assert list(found) == ["levels.cms.memories.mid", "sizes.width"] and found["sizes.width"].value.value == 64


def test_a_size_that_an_axis_or_one_of_the_bases_has_may_be_changed() -> None:
    laid = "axes: {deep: {choices: {a: {sizes: {inner: 4}}, b: {sizes: {outer: 4}}}}, sizes.hidden: [1, 2]}\n"
    searched(REST + laid + "rescale: [sizes.inner, sizes.hidden, sizes.head]")


def test_shipped_searches_are_legal_and_the_schema_knows_their_keys() -> None:
    known = set(search_schema()["properties"])
    assert "which-rule" in searches()
    for name in searches():
        assert load_search(name).fields.model_fields_set <= known


def test_every_score_of_a_task_has_a_name() -> None:
    from runtime.evaluate.tasks.continual.measures import DEFINITIONS

    found = list(scores({"state": load_task("parity"), "bytes": load_task("text"), "order": load_task("clinc150")}))
    assert {"state.accuracy", "state[256 bits].off.loss", "state.whole_items", "bytes.bits_per_byte"} <= set(found)
    assert "state[as trained].accuracy" not in found and "state.bits_per_byte" not in found
    assert ("accuracy", *DEFINITIONS) == IN_ORDER
    ordered = [name for name in found if name.startswith("order.") and ".off" not in name]
    assert ordered == [f"order.{metric}" for metric in IN_ORDER]
    for knobs, metrics in (("mixed=1", IN_ORDER[:2]), ("tasks=1", IN_ORDER[:4]), ("tasks=1, mixed=1", IN_ORDER[:4])):
        told = scores({"c": load_task(f"class_incremental({knobs})")})
        assert [name for name in told if ".off" not in name] == [f"c.{metric}" for metric in metrics]


def test_the_measures_that_have_names_are_those_that_can_be_told() -> None:
    from runtime.evaluate.tasks.continual.measures import measured

    apart, mixed, single = [[0.5, 0.5], [0.5, 0.5]], [[None, None], [0.5, 0.5]], [[0.5]]
    for R, knobs in ((apart, "tasks=2"), (mixed, "tasks=2, mixed=1"), (single, "tasks=1")):
        told = {name for name, value in asdict(measured(R, [0.1] * len(R))).items() if value is not None}
        assert {"accuracy", *told} == set(measures(load_task(f"class_incremental({knobs})")))


def test_data_is_for_the_tasks_that_read_some(tmp_path: Path) -> None:
    made_up, told = "class_incremental(tasks=1, classes=2, shots=4)", tmp_path / "texts"
    told.mkdir()
    for name in ("one", "other"):
        (told / f"{name}.txt").write_text("some words\n" * 400)
    both = searched(f"tasks: {{made_up: '{made_up}', read: 'text_domains(domains=2, context=32)'}}\nbase: hope\n")
    own, built_in = (
        {name: of.lessons.digest for name, of in materials(one).items() if of.lessons}
        for one in (replace(both, data=told), both)
    )
    assert own.keys() == {"made_up", "read"} and own["made_up"] == built_in["made_up"]
    assert own["read"] != built_in["read"]
    with pytest.raises(Stop, match="data is for tasks that read it, and none of these does"):
        check_there(replace(searched(f"tasks: ['{made_up}', mqar]\nbase: hope\n"), data=told))
