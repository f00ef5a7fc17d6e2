"""A search's journal -> page, Markdown and data: every number is the journal's, whatever the search was like."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

import pytest

from nlc.cli.begun import keep_bases
from nlc.cli.searched import facts
from nlc.page.search import SearchFacts, as_data, markdown, page
from nlc.page.search.effects import effects
from nlc.page.search.front import points
from nlc.variants.search import load_search

from . import journals
from .journals import CHUNK, DIAGNOSTIC, RULE, Line, failed, folder, head, run, trial, whole
from .markup import Element, read

SECTIONS = [
    "board", "front", "axes", "curves", "maps", "lineage", "finalists", "rejected", "failed", "duplicates", "setup",
]  # fmt: skip
T_2 = 4.303  # Student's t of three seeds


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> SearchFacts:
    return facts(folder(tmp_path_factory.mktemp("searches") / "whole", whole()))


@pytest.fixture(scope="module")
def shown(told: SearchFacts) -> Element:
    return read(page(told))


def section(document: Element, name: str) -> Element:
    return document.one("section", id=name)


def cells(table: Element) -> list[list[str]]:
    return [[x.text for x in row.all() if x.tag in ("th", "td")] for row in table.one("tbody").all("tr")]


def journal(record: str, **wanted: Any) -> list[Line]:
    return [x for x in whole() if x["record"] == record and all(x.get(k) == v for k, v in wanted.items())]


def test_it_is_one_file_that_loads_nothing(shown: Element) -> None:
    assert not shown.all("script") and not shown.all("img") and not shown.all("iframe")
    assert [x.attributes["href"] for x in shown.all("link")] == ["data:,"]
    assert all(x.attributes["href"].startswith("#") for x in shown.all("a"))
    assert [x.attributes["id"] for x in shown.all("section")] == SECTIONS
    assert {x.attributes["href"] for x in shown.one("nav").all("a")} == {f"#{name}" for name in SECTIONS}
    assert shown.one("h1").text == "which-rule" and shown.one(class_="chip").text == "finished"


def test_the_leaderboard_has_the_mean_of_the_seeds_and_its_interval(shown: Element) -> None:
    rows = {row[1]: row for row in cells(section(shown, "board").one("table"))}
    assert [row[0] for row in rows.values()] == ["1", "2", "3", "4", "5", "6", "-", "-", "-", "-"]
    for place, id in enumerate(journal("rung", rung=1)[0]["kept"], 1):
        seeds = [x["scores"]["recall.accuracy"] for x in journal("run", trial=id, task="recall", rung=1)]
        spread = (sum((x - mean(seeds)) ** 2 for x in seeds) / 2) ** 0.5
        half = T_2 * spread / 3**0.5
        wanted = (
            f"{100 * mean(seeds):.1f} % ({100 * (mean(seeds) - half):.1f} to {100 * min(1, mean(seeds) + half):.1f})"
        )
        cost = journal("trial", trial=id)[0]["cost"]["recall"]
        assert rows[id][0] == str(place) and rows[id][3] == wanted and rows[id][5] == "3"
        assert rows[id][7:10] == [f"{cost[key]:,}" for key in ("params", "state_bytes", "flops")]
    assert [rows[id][-1] for id in ("t004", "t005", "t006", "t008")] == [
        "same as t003", "crashed", "rejected", "not finite",
    ]  # fmt: skip
    assert len(section(shown, "board").all("svg")) == 6


def test_the_figures_count_the_journal(shown: Element) -> None:
    text, runs = shown.one("dl").text, journal("run")
    assert f"{len(runs)} runs" in text and "2 came to nothing" in text and "1 illegal" in text
    seconds = round(sum(x["cost"]["seconds"] for x in runs))
    assert f"{seconds // 60} min {seconds % 60:02} s" in text and f"{len(journal('trial'))} trials" in text


def test_the_front_is_what_no_other_beats(told: SearchFacts, shown: Element) -> None:
    for rung in (0, 1):
        found = points(told, rung)
        for p in found:
            better = [
                q for q in found if q.score >= p.score and q.state_bytes <= p.state_bytes and q.flops <= p.flops
                and (q.score, q.state_bytes, q.flops) != (p.score, p.state_bytes, p.flops)
            ]  # fmt: skip
            assert p.front is not bool(better)
        assert {p.trial for p in found} == set(journal("rung", rung=rung)[0]["scores"])
        assert {p.trial: round(p.score, 9) for p in found} == {
            id: round(score, 9) for id, score in journal("rung", rung=rung)[0]["scores"].items()
        }
    last, first = section(shown, "front").all("table")
    assert [row[0] for row in cells(last)] == [p.trial for p in points(told, 1) if p.front]
    assert [row[0] for row in cells(first)] == [p.trial for p in points(told, 0) if p.front]
    assert len(section(shown, "front").all("svg")) == 8  # two rungs, two costs, wide and narrow


def test_an_axis_compares_what_is_equal_in_all_else(told: SearchFacts) -> None:
    rule, chunk = effects(told)
    score = journal("rung", rung=0)[0]["scores"]
    assert (rule.axis, chunk.axis) == (RULE, CHUNK)
    dgd, gd, momentum = rule.values
    assert dict(dgd.points) == {id: score[id] for id in ("t001", "t002")}
    assert dict(gd.points) == {"t003": score["t003"]}  # t004 is the same architecture: one observation
    assert (momentum.tried, momentum.points, momentum.mean) == (2, (), None)
    assert gd.paired is not None and gd.paired.n == 2 and dgd.paired is None
    gained = mean([score["t003"] - score["t001"], score["t003"] - score["t002"]])
    assert gd.paired.mean == pytest.approx(gained, abs=1e-12)
    assert {trial for value in chunk.values for trial, _ in value.points} == {"t001", "t002", "t003", "t004"}


def test_curves_are_the_journals(told: SearchFacts, shown: Element) -> None:
    for found in as_data(told)["curves"]:
        (line,) = journal("run", run=found["run"])
        assert {key: found[key] for key in line["curve"]} == line["curve"]
    assert len(section(shown, "curves").all("h3")) == 2
    names = {x.one("title").text.split(":")[0] for x in section(shown, "curves").all("text", class_="name")}
    assert names == {x.one("b").text for x in section(shown, "curves").one(class_="legend").all("li")}


def test_a_heat_map_pools_the_answers_of_all_seeds(told: SearchFacts, shown: Element) -> None:
    maps = section(shown, "maps").all("figure")
    kept = journal("rung", rung=1)[0]["kept"]
    assert [x.one("figcaption").text.split()[0] for x in maps] == kept
    for map, id in zip(maps, kept, strict=True):
        runs = journal("run", trial=id, task="needle")
        for i, (name, *shown_cells) in enumerate(cells(map.one("table"))):
            asked = [x["maps"][i]["cells"] for x in runs]
            assert name == ("1k bytes, 1,024 tokens", "4k bytes, 4,096 tokens")[i]
            assert shown_cells == [
                f"{100 * mean(c['accuracy'] for c in same):.0f}" for same in zip(*asked, strict=True)
            ]
    assert as_data(told)["maps"][0]["rows"][0][2][0]["answers"] == 120


def test_lineage_names_the_edits_and_marks_the_way_to_the_best(shown: Element) -> None:
    rows = {row[0]: row for row in cells(section(shown, "lineage").one("table"))}
    assert rows["t010"][1:4] == ["2", "t007 x t002", "level titans comes from t002"]
    assert set(rows) == {"t001", "t002", "t003", "t007", "t008", "t009", "t010"}
    names = [x.inside[0] for x in section(shown, "lineage").all("text", class_="name")]
    assert {str(name).split()[0] for name in names} == {"t001", "t002", "t007", "t010"}


def test_a_finalist_stands_beside_its_base_in_the_languages_own_terms(told: SearchFacts, shown: Element) -> None:
    found = {x.one("summary").one("b").text: x for x in section(shown, "finalists").all("details")}
    assert list(found) == journal("rung", rung=1)[0]["kept"]
    keys = {row[0]: row[1:] for row in cells(found["t009"].all("table")[0])}
    assert keys == {RULE: ["dgd", "gd"], CHUNK: ["64", "16"]}
    assert "+ memory titans.memory: matrix, l2, rule gd" in found["t009"].one("pre").text
    assert [x.text for x in found["t009"].all("h3")] == [
        "When each level of base hope is updated", "When each level of t009 is updated",
    ]  # fmt: skip
    assert "it says the same as its base" in found["t001"].text
    diff = {x["trial"]: x["diff"] for x in as_data(told)["finalists"]}
    assert {"path": CHUNK, "before": 64, "after": 16} in diff["t009"]["keys"] and diff["t001"]["keys"] == []


def test_what_came_to_nothing_is_told_with_its_place_and_reason(shown: Element) -> None:
    ((_, _, code, place, message, hint),) = cells(section(shown, "rejected").one("table"))
    assert (code, place) == (DIAGNOSTIC["code"], "which-rule.yaml:8:28")
    assert (message, hint) == (DIAGNOSTIC["message"], DIAGNOSTIC["hint"])
    rows = cells(section(shown, "failed").one("table"))
    assert [(row[0], row[3], row[4]) for row in rows] == [
        ("t005", "crashed", "RuntimeError: <b>shapes</b> do not fit"),
        ("t008", "not finite", "loss is not finite at step 30"),
    ]
    (same,) = cells(section(shown, "duplicates").one("table"))
    assert same[:4] == ["t004", "rule=gd, chunk=16", "t003", "rule=gd, chunk=1"]


def test_markdown_and_data_say_what_the_page_says(told: SearchFacts, shown: Element) -> None:
    text, data = markdown(told), as_data(told)
    assert text.count("\n## ") == len(SECTIONS) and "```diff\nlevels.titans.chunk:\n-   64\n+   1\n" in text
    for row in cells(section(shown, "board").one("table")):
        assert f"| {' | '.join(row)} |" in text
    assert "| NLC0801 | which-rule.yaml:8:28 | 'gd' has no parameter 'beta' | gd takes lr |" in text
    assert [row["trial"] for row in data["leaderboard"]] == [
        row[1] for row in cells(section(shown, "board").one("table"))
    ]
    assert data["winner"] == journal("end")[0]["winner"] and [x["trial"] for x in data["rejected"]] == ["t006"]
    assert "RuntimeError: &lt;b>shapes" in text
    last = journal("run", trial="t010", task="recall", rung=1, seed=0)[0]["curve"]["val/accuracy"][-1]
    assert any(
        line.startswith("| t010 | recall | Validation") and line.endswith(f"| {last:.3g} |")
        for line in text.splitlines()
    )
    json.dumps(data, allow_nan=False)


def lower() -> list[Line]:
    """Bits per byte of a text: less is better, nothing is a share."""
    rung = {"tasks": ["text"], "steps": 100, "tokens": None, "seeds": 1, "keep": None, "rank_by": "text.bits_per_byte"}
    asked = {"rank_by": "text.bits_per_byte", "better": "lower", "tasks": {"text": {}}, "rungs": [rung]}
    cost = {"text": {"params": 9, "state_bytes": 0, "flops": 9}}
    lines = [head(**asked, sizes={}, axes={RULE: ["dgd", "gd"]})]
    for number, (rule, bits) in enumerate((("dgd", 2.5), ("gd", 2.25)), 1):
        lines.append(trial(number, {RULE: rule}, cost=cost))
        lines.append(run(f"t{number:03}", "text", scores={"text.bits_per_byte": bits}, intervals={}))
    return lines


def refused(number: int) -> Line:
    return trial(number, {RULE: "gd"}, status="rejected", error="a:1:1: error: no", diagnostics=[], hash=None, cost={})


ODD: dict[str, Callable[[], list[Line]]] = {
    "begun": lambda: [head()],
    "one trial": lambda: [head(axes={}), trial(1, {}), run("t001")],
    "one trial, not run yet": lambda: [head(), trial(1, {RULE: "dgd", CHUNK: "1"})],
    "only crashes": lambda: [head(), trial(1, {RULE: "dgd"}), failed("t001", "crashed", ""), trial(2, {RULE: "gd"}),
                             failed("t002", "overtime", "longer than 60 s"), {"record": "end", "winner": None}],
    "only refusals": lambda: [head(), refused(1), refused(2), {"record": "end", "winner": None}],
    "a compiler that failed": lambda: [head(), trial(1, {}, status="crashed", error="CompilerBug: no")],
    "no curve": lambda: [head(), trial(1, {}), run("t001", curve={})],
    "scores of nought": lambda: [head(), trial(1, {}), run("t001", accuracy=0.0), trial(2, {}),
                                 run("t002", accuracy=0.0)],
    "less is better": lower,
    "a parent that is lost": lambda: [head(), trial(2, {}, parents=["t001"], edits=[{"edit": "e", "kind": "k"}])],
    "a duplicate of what is lost": lambda: [head(), trial(2, {RULE: "gd"}, status="duplicate", of="t001")],
    "a run of what is lost": lambda: [head(), run("t007")],
    "old": lambda: [{k: v for k, v in head().items() if k in ("record", "tasks", "rank_by", "rungs")}, trial(1, {})],
}  # fmt: skip


@pytest.mark.parametrize("lines", ODD.values(), ids=list(ODD))
def test_any_search_has_a_page(tmp_path: Path, lines: Callable[[], list[Line]]) -> None:
    told = facts(folder(tmp_path / "s", lines(), texts=False))
    document = read(page(told))
    assert [x.attributes["id"] for x in document.all("section")] == SECTIONS
    for x in document.all("section"):
        assert x.all("table") or x.all("svg") or x.all("details") or x.all(class_="none")
    assert "nan" not in {x.text for x in document.all("text")} and "None" not in document.one("main").text
    json.dumps(as_data(told), allow_nan=False)
    assert markdown(told).startswith("# ")


def test_a_search_without_a_survivor_says_so(tmp_path: Path) -> None:
    document = read(page(facts(folder(tmp_path / "s", ODD["only crashes"](), texts=False))))
    chip = document.one(class_="chip")
    assert (chip.text, chip.attributes["class"]) == ("finished, and no variant has a score", "chip bad")
    assert (
        "no variant has a score" in section(document, "front").text and len(section(document, "failed").all("tr")) == 3
    )


def test_less_is_better_where_the_search_says_so(tmp_path: Path) -> None:
    told = facts(folder(tmp_path / "s", lower(), texts=False))
    board = cells(section(read(page(told)), "board").one("table"))
    assert [row[1] for row in board] == ["t002", "t001"] and board[0][3] == "2.2500"
    assert [p.trial for p in points(told, 0) if p.front] == ["t002"]


def test_a_variant_that_is_gone_or_altered_is_named(tmp_path: Path) -> None:
    place = folder(tmp_path / "s", whole())
    (place / "variants/t009.yaml").unlink()
    (place / "variants/t010.yaml").write_text("nlc: 1\nname: broken\n")
    document = read(page(facts(place)))
    alert = document.one(class_="alert").text
    assert "variants/t009.yaml cannot be read: No such file or directory" in alert
    assert "variants/t010.yaml is not a legal spec" in alert
    assert "the spec of t009 or of its base 'hope' cannot be read" in section(document, "finalists").text


def test_a_base_that_has_changed_since_is_named(tmp_path: Path) -> None:
    lines = whole()
    lines[0]["specs"] = {"hope": "0" * 64}
    assert "another one now than the search began with" in facts(folder(tmp_path / "s", lines)).notices[0]
    lines[0]["base"] = ["mine.yaml"]
    for line in lines:
        line.update({"base": "mine.yaml"} if line["record"] == "trial" else {})
    place = folder(tmp_path / "other", lines)
    assert facts(place).notices == ["bases/mine.yaml cannot be read: No such file or directory"]


def test_a_base_that_is_a_file_is_kept_and_compared(tmp_path: Path) -> None:
    source = tmp_path / "mine.yaml"
    source.write_text("nlc: 1\nname: mine\nextends: hope\nlevels: [{name: titans, chunk: 32}]\n")
    text = f"base: mine.yaml\nset: {{sizes.width: 32, sizes.layers: 1}}\naxes: {{{RULE}: [dgd, gd]}}\n"
    (tmp_path / "s.yaml").write_text(f"nlc: 1\nsearch: s\n{text}tasks: [mqar]\nbudget: {{steps: 2}}\n")
    lines = whole()
    for line in lines:
        line.update({"base": "mine.yaml"} if line["record"] == "trial" else {})
    place = folder(tmp_path / "folder", lines)
    keep_bases(load_search(str(tmp_path / "s.yaml")), place)
    source.unlink()
    told = facts(place)
    diff = {x["trial"]: x["diff"] for x in as_data(told)["finalists"]}
    assert list(told.notices) == [] and {"path": CHUNK, "before": 32, "after": 16} in diff["t009"]["keys"]


def test_the_journals_here_are_like_those_of_searches() -> None:
    assert {line["record"] for line in journals.whole()} == {"search", "trial", "run", "rung", "end"}
