"""Facts of a run -> page: every claim of the page is there, whatever the run was like."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from nlc.explain import explain
from nlc.page import Facts, Sample, as_data, page
from nlc.passes import build
from nlc.show import resolved_text
from nlc.spec import load

from .markup import Element, read

SECTIONS = ["loss", "levels", "time", "paths", "samples", "cost", "spec", "versions"]
LEVELS = {"hope": ["titans", "cms.fast", "cms.mid", "train", "cms.slow"], "transformer": ["train"]}
MEMORIES = {"hope": ["titans.key", "titans.memory", "cms.fast"], "transformer": []}


def rows(spec: str, n: int = 12) -> list[dict[str, Any]]:
    """What a run writes: a row every ten steps, a validation every twenty."""
    found: list[dict[str, Any]] = []
    for i in range(1, n + 1):
        row = {
            "step": 10 * i,
            "tokens": 2560 * i,
            "seconds": 2.0 * i,
            "train/loss": 2 + 3 / i,
            "perf/tokens_per_s": 1280.0,
        }
        for j, level in enumerate(LEVELS[spec]):
            row |= {
                f"level/{level}/fires": 2560 * i // 4**j,
                f"level/{level}/update": 0.5 / i,
                f"level/{level}/rate": 0.1,
            }
        for memory in MEMORIES[spec]:
            row |= {f"memory/{memory}/norm": 8 - 1 / i, f"memory/{memory}/surprise": 1 + 1 / i}
        found.append(row)
        if i % 2 == 0:
            bits = (2 + 3 / i) / math.log(2)
            judged = {"val/loss": 2 + 3 / i, "val/bits_per_byte": bits, "val/tokens": 512}
            found.append({"step": 10 * i, "tokens": 2560 * i, "seconds": 2.0 * i, **judged})
    return found


def facts(shipped: str = "hope", **changed: Any) -> Facts:
    loaded = load(shipped, {"sizes.width": 64, "sizes.context": 256, "run.steps": 120})
    graph = build(loaded)
    lock = {
        "name": shipped,
        "steps": 120,
        "seed": 0,
        "environment": {"libraries": {"torch": "2.13.0"}},
        "code": {"a": "b"},
    }
    made = Facts(
        name=shipped, path=f"runs/{shipped}", rows=rows(shipped), lock=lock, resolved=resolved_text(loaded),
        spec=loaded, graph=graph, explained=explain(graph), checkpoint="step-000120",
        samples=[Sample("greedy", "GREMIO:\n", "Good <b>morrow</b> & so on")], missing={},
    )  # fmt: skip
    return replace(made, **changed)


@pytest.fixture(scope="module")
def hope() -> Element:
    return read(page([facts()]))


def test_it_is_one_file_that_loads_nothing(hope: Element) -> None:
    assert not hope.all("script") and not hope.all("img") and not hope.all("iframe")
    assert [x.attributes["href"] for x in hope.all("link")] == ["data:,"]
    assert all(x.attributes["href"].startswith("#") for x in hope.all("a"))
    style = " ".join(x.text for x in hope.all("style"))
    assert "url(" not in style and "@import" not in style and "prefers-color-scheme: dark" in style
    assert hope.one("html").attributes["lang"] == "en" and hope.one("meta", name="viewport")


def test_every_part_is_there(hope: Element) -> None:
    assert [x.attributes["id"] for x in hope.all("section")] == SECTIONS
    assert {x.attributes["href"] for x in hope.one("nav").all("a")} == {f"#{name}" for name in SECTIONS}
    assert hope.one("h1").text == "hope" and "Self-referential Titans" in hope.one(class_="lede").text
    assert hope.one(class_="chip").text == "finished 120 steps"
    figures = hope.one("dl").text
    assert "bits per byte" in figures and "30.7k tokens" in figures and "parameters" in figures


def section(document: Element, name: str) -> Element:
    return document.one("section", id=name)


def test_loss_is_drawn_against_tokens_with_validation(hope: Element) -> None:
    wide, narrow = section(hope, "loss").all("svg")
    for picture in (wide, narrow):
        names = {x.one("title").text.split(":")[0] for x in picture.all("text", class_="name")}
        assert names == {"training", "validation"}
        assert len(picture.all("circle", class_="mark")) == 6
        assert any(x.text.endswith(" tokens") for x in picture.all("text", class_="tick"))


def test_every_level_has_its_panels_fastest_first(hope: Element) -> None:
    levels = section(hope, "levels").all("article")
    assert [x.one("h3").text for x in levels] == [f"{i} {name}" for i, name in enumerate(LEVELS["hope"], 1)]
    titles = [x.text.split()[0] for x in levels[0].all("figcaption")]
    assert titles == ["Update", "Rate", "Memory", "Surprise"]
    assert {x.one("title").text.split(":")[0] for x in levels[0].all("figure")[2].all("text", class_="name")} == {
        "key",
        "memory",
    }
    assert "every token" in levels[0].one(class_="clock").text and "dgd on l2" in levels[0].one(class_="clock").text
    firing = section(hope, "levels").all("svg")[0]
    assert {x.one("title").text.split(":")[0] for x in firing.all("text", class_="name")} == set(LEVELS["hope"])


def test_the_timeline_marks_every_update(hope: Element) -> None:
    sequence, _, steps, _ = section(hope, "time").all("svg")
    lanes = [x.text.split()[0] for x in sequence.all("text", class_="level")]
    assert lanes == LEVELS["hope"]
    marks = [len(sequence.all("rect", class_=f"fc{i}")) for i in range(5)]
    assert marks == [1, 4, 1, 1, 0]  # a band, 64 and 256 tokens of 256, each step, never within a step
    assert [len(steps.all("rect", class_=f"fc{i}")) for i in range(5)] == [1, 16, 4, 4, 2]
    assert len(sequence.all("path", class_="chunk")) == 4


def test_text_and_picture_count_the_same_updates(hope: Element) -> None:
    sequence, *_ = section(hope, "time").all("svg")
    clocks = {x.one("h3").text: x.one(class_="clock").text for x in section(hope, "levels").all("article")}
    for i, (level, count) in {0: ("titans", 256), 1: ("cms.fast", 4), 2: ("cms.mid", 1)}.items():
        (clock,) = (text for name, text in clocks.items() if name.endswith(level))
        said = [x.text for x in sequence.all("text", class_="tick") if "update" in x.text][i]
        updates = f"{count} update{'s' * (count > 1)}"
        assert f"{updates} in a sequence" in clock and said.startswith(updates)


def test_a_period_longer_than_a_sequence_is_drawn_as_never_over_steps() -> None:
    spec = load("hope", {"sizes.width": 64, "sizes.context": 96, "run.steps": 120})
    graph = build(spec)
    *_, steps, _ = section(read(page([facts(spec=spec, graph=graph, explained=explain(graph))])), "time").all("svg")
    lanes = [x.text.split()[0] for x in steps.all("text", class_="level")]
    marks = {name: len(steps.all("rect", class_=f"fc{i}")) for i, name in enumerate(lanes)}
    assert (marks["cms.fast"], marks["cms.mid"]) == (
        4,
        0,
    )  # cms.fast, every 64 of 96 tokens, begins anew with each sequence; cms.mid, every 256


def test_sentences_stand_only_where_they_are_true(hope: Element) -> None:
    other = read(page([facts("transformer")]))
    assert "learning as it goes" in section(hope, "samples").text
    assert "learning as it goes" not in section(other, "samples").text
    assert "large mark" not in section(hope, "loss").text
    longer = [*rows("hope"), {"step": 120, "tokens": 30720, "val/bits_per_byte": 3.0, "val/tokens": 8192}]
    assert "large mark at the end" in section(read(page([facts(rows=longer)])), "loss").text


def test_the_graph_is_coloured_by_gradient_paths(hope: Element) -> None:
    picture = section(hope, "paths").one("figure")
    used = {name for x in picture.all("path") for name in x.attributes.get("class", "").split()}
    assert {"s-through", "s-first", "s-plain"} <= used and "s-stopped" not in used
    assert {"key", "value", "eta", "alpha", "memory", "fast", "mid", "slow"} <= set(picture.text.split())


def test_samples_are_text_not_markup(hope: Element) -> None:
    sample = section(hope, "samples").one("pre")
    assert sample.text == "GREMIO: Good <b>morrow</b> & so on" and sample.one("span").text == "GREMIO:"


def test_the_spec_says_where_each_value_comes_from(hope: Element) -> None:
    lines = [[cell.text for cell in row.all("td")] for row in section(hope, "spec").all("tr")]
    assert ["width: 64", "--set"] in lines
    assert any(a == "chunk: 64" and "hope.yaml:" in b for a, b in lines)
    assert ["o = merge(memory(q))", ""] in lines


def test_cost_and_versions_are_tables(hope: Element) -> None:
    assert "parameters" in section(hope, "cost").text and "shared_product (chunk 64)" in section(hope, "cost").text
    assert "environment.libraries.torch 2.13.0" in section(hope, "versions").text
    assert "code.a" not in section(hope, "versions").text


def test_two_runs_share_their_axes() -> None:
    document = read(page([facts("hope"), facts("transformer")]))
    assert document.one("h1").text == "hope and transformer"
    assert len(document.one("header").one(class_="legend").all("li")) == 2
    wide = section(document, "loss").all("svg")[0]
    assert {x.text.split(" ")[0] for x in wide.all("text", class_="name")} == {"hope", "transformer"}
    results, differences = section(document, "results").all("table")
    assert [x.text for x in results.all("thead")[0].all("th")] == ["", "hope", "transformer"]
    keys = {row.one("th").text: [x.text for x in row.all("td")] for row in differences.one("tbody").all("tr")}
    assert keys["levels.titans"][1] == "-" and keys["levels.train.rule"][0].startswith("adamw(lr=4e-3")
    assert "sizes.width" not in keys and "name" not in keys
    train = next(x for x in section(document, "levels").all("article") if x.one("h3").text.endswith("train"))
    assert [x.text.split(":")[0] for x in train.all(class_="clock")] == ["hope", "transformer"]


BROKEN: dict[str, dict[str, Any]] = {
    "no rows": {"rows": [], "missing": {"metrics": "the run ended before its first row of metrics"}},
    "one row": {"rows": rows("hope", 1)},
    "all null": {"rows": [{k: None if "/" in k else v for k, v in row.items()} for row in rows("hope", 3)]},
    "null at the end": {
        "rows": [*rows("hope", 4), {"step": 50, "tokens": 12800, "train/loss": None}],
        "diverged": "here",
    },
    "huge and tiny": {
        "rows": [{**row, "train/loss": 1e30 / row["step"], "level/titans/rate": 1e-30} for row in rows("hope", 3)]
    },
    "negative": {"rows": [{**row, "train/loss": -1.0, "level/titans/fires": 0} for row in rows("hope", 3)]},
    "rows that lack tokens": {"rows": [{"step": 1}, {"step": 2, "train/loss": 3.0}]},
    "no spec": {
        "spec": None,
        "graph": None,
        "explained": None,
        "resolved": "",
        "missing": {"spec": "no resolved.yaml"},
    },
    "no samples": {"samples": [], "checkpoint": "", "missing": {"samples": "no whole checkpoint"}},
    "no lock": {"lock": {}},
}


@pytest.mark.parametrize("changed", BROKEN.values(), ids=list(BROKEN))
def test_any_run_has_a_page(changed: dict[str, Any]) -> None:
    run = facts(**changed)
    document = read(page([run]))
    assert [x.attributes["id"] for x in document.all("section")] == SECTIONS
    for reason in run.missing.values():
        assert reason in document.one("main").text
    assert "nan" not in page([run]).replace("nan,", "") and "inf" not in {x.text for x in document.all("text")}
    read(page([run, facts("transformer")]))
    json.dumps(as_data([run]), allow_nan=False)


def test_a_run_that_diverged_says_where() -> None:
    found = facts(
        diverged_at=7,
        diverged="first not finite: 'titans.key' of layer 1, at token 12",
        warnings=["step 10: memory titans.key is about to explode"],
    )
    document = read(page([found]))
    assert document.one(class_="chip").attributes["class"] == "chip bad"
    assert "diverged at step 7. first not finite: 'titans.key' of layer 1" in document.one(class_="alert").text
    assert "about to explode" in document.one(class_="alert").text


def test_what_was_not_finite_is_a_gap_and_a_mark() -> None:
    found = rows("hope", 6)
    for row in found[4:6]:
        row["memory/cms.fast/norm"] = None
    level = section(read(page([facts(rows=found)])), "levels").all("article")[1]
    panel = next(x for x in level.all("figure") if x.one("figcaption").text.startswith("Memory"))
    assert len(panel.all("path", class_="lost")) >= 1
    assert panel.one("path", class_="curve").attributes["d"].count("M") == 2


def test_a_long_run_stays_a_small_page() -> None:
    many = [{**row, "step": i, "tokens": 100 * i} for i, row in enumerate(rows("hope", 1)[:1] * 20_000)]
    assert len(page([facts(rows=many)])) < 1_500_000


def test_data_holds_what_the_page_shows() -> None:
    found = as_data([facts()])
    (run,) = found["runs"]
    assert run["curves"]["train/loss"][0] == (2560, 5.0) and run["ended"] == "finished 120 steps"
    assert run["spec"]["sizes"]["width"] == 64 and ["  width: 64", "--set"] in run["origins"]
    assert run["explained"]["cost"]["parameters"] > 0 and found["differences"] == []
