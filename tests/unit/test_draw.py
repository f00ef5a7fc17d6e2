"""Drawings: well formed, everything named, nothing written over anything else."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from nlc.graph.draw import to_dot, to_mermaid, to_svg
from nlc.graph.draw_levels import said_period, scene_of
from nlc.graph.draw_scene import COLOURS, shortened, width_of
from nlc.graph.graph import Graph
from nlc.graph.momenta import momenta, said
from nlc.graph.nodes import Memory
from nlc.graph.outline import Link, outline
from nlc.passes import build
from nlc.spec import load
from tests.unit.programs import cell, model

SHIPPED = ("hope", "hope_deep", "hope_attention", "titans_lmm", "linear_attention", "transformer")


def two_kinds() -> Graph:
    levels = """
    - {name: a, every: 1 token, read: after, memories: {m: {form: matrix, keys: k, values: v}}}
    - {name: f, memories: {see: {form: attention(window=8), keys: kk, values: vv}}}
    - {name: s, every: 2 steps, carry: model, objective: loss, rule: adamw, memories: {w: {form: 'mlp(hidden=2x)'}}}
    """
    more = """
    blocks:
      one: |
        k = l2norm(heads(linear(x)))
        v = k
        x = w(x) + linear(merge(m(k)))
      two: |
        kk = heads(linear(x))
        vv = heads(linear(x))
        x = x + linear(merge(see(kk)))
    stack: [one, two, one]
    """
    return model(levels, "", more=more)


def graphs() -> dict[str, Graph]:
    made = {name: build(load(name)) for name in SHIPPED}
    made["two kinds"] = two_kinds()
    made["bare"] = cell("- {name: a, every: 1 token, memories: {m: {form: matrix, keys: k, values: m(v)}}}", "y = m(q)")
    made["long names"] = cell(
        """
        - name: a_level_with_quite_a_long_name
          every: 1 token
          rate: sigmoid(sum(another_memory_with_a_long_name(k)))
          memories:
            a_memory_with_a_long_name: {form: matrix, keys: k, values: v}
            another_memory_with_a_long_name: {form: 'mlp(hidden=100x)', keys: k, values: v}
        """,
        "some_long_intermediate = a_memory_with_a_long_name(q)\ny = silu(some_long_intermediate)",
    )
    made["small"] = build(
        load(
            "hope",
            {
                "sizes.width": 32,
                "sizes.heads": 2,
                "levels.titans.every": "4 tokens",
                "levels.cms.memories.mid.every": "never",
            },
        )
    )
    m3 = {"levels.cms.memories.fast.rule": "m3(period=3)", "levels.train.rule": "m3", "levels.train.every": "2 steps"}
    made["slow momenta"] = build(load("hope", {"levels.titans.rule": "momentum", **m3}))
    mixed = "m: {form: matrix, keys: k, values: v, rule: momentum}, n: {form: matrix, keys: k, values: v}"
    made["some remember"] = cell(f"- {{name: a, every: 1 token, memories: {{{mixed}}}}}", "y = m(q) + n(q)")
    return made


GRAPHS = graphs()


@pytest.mark.parametrize("name", GRAPHS)
def test_texts_do_not_overlap_and_stay_inside(name: str) -> None:
    scene = scene_of(GRAPHS[name])
    width, height = scene.size()
    boxes = [(t.text, *t.extent()) for t in scene.texts]
    for i, (text, left, top, right, bottom) in enumerate(boxes):
        assert left >= 0 and right <= width + 24 and top >= 0 and bottom <= height + 24, text
        for other, a, b, c, d in boxes[i + 1 :]:
            assert right <= a or c <= left or bottom <= b or d <= top, f"{text!r} over {other!r}"


@pytest.mark.parametrize("name", GRAPHS)
def test_boxes_of_memories_do_not_overlap(name: str) -> None:
    scene = scene_of(GRAPHS[name])
    boxes = [b for b in scene.boxes if b.fill == "box"]
    for i, a in enumerate(boxes):
        for b in boxes[i + 1 :]:
            apart = a.x + a.width <= b.x or b.x + b.width <= a.x or a.y + a.height <= b.y or b.y + b.height <= a.y
            assert apart, (a, b)


@pytest.mark.parametrize("name", GRAPHS)
def test_lines_between_rail_and_memories_cross_no_box(name: str) -> None:
    scene = scene_of(GRAPHS[name])
    boxes = [b for b in scene.boxes if b.fill == "box"]
    for line in scene.lines:
        (x, top), (end, bottom) = line.points[0], line.points[-1]
        if x != end or line.colour not in ("query", "output", "key", "value", "rate", "retain"):
            continue
        top, bottom = min(top, bottom), max(top, bottom)
        crossed = [b for b in boxes if b.x < x < b.x + b.width and b.y < bottom - 1 and b.y + b.height > top + 1]
        assert not crossed, (line, crossed)


@pytest.mark.parametrize("name", GRAPHS)
def test_svg_is_whole_and_names_every_level(name: str) -> None:
    graph, text = GRAPHS[name], to_svg(GRAPHS[name])
    tree = ElementTree.fromstring(text)
    assert tree.tag == "{http://www.w3.org/2000/svg}svg"
    said = " ".join(tree.itertext())
    for level in graph.levels:
        assert level.name[:12] in said
    for memory in graph.of(Memory):
        assert memory.name[:8] in said


@pytest.mark.parametrize("name", GRAPHS)
def test_each_momentum_stands_in_a_level_of_its_own_with_its_frequency(name: str) -> None:
    """The band's name and period begin at its left; its boxes, each a memory of gradients, stand within its height."""
    graph, scene = GRAPHS[name], scene_of(GRAPHS[name])
    bands = [b for b in scene.boxes if b.fill == "band"]
    drawn = []
    for band in bands[:]:
        inside = [t for t in scene.texts if band.y < t.y < band.y + band.height]
        if band.x > 24:
            first, period, *names = (t.text for t in inside)
            drawn.append((first.split(" of ")[0], period, tuple(names)))
    assert len(bands) == len(graph.levels) + len(drawn)
    assert {*drawn} == {(m.rule, said_period(m.period, False), m.names) for m in momenta(graph)}


def test_a_slow_momentum_is_drawn_slower_than_its_level() -> None:
    said = " ".join(ElementTree.fromstring(to_svg(GRAPHS["slow momenta"])).itertext())
    assert "every 192 tokens" in said and "every 20 steps" in said and "…" not in said
    assert "momentum of m" in to_svg(GRAPHS["some remember"])


def test_svg_is_light_and_dark() -> None:
    text = to_svg(GRAPHS["hope"])
    light, dark = re.split(r"@media \(prefers-color-scheme:dark\)", text)
    for name, (by_day, by_night) in COLOURS.items():
        assert f".f-{name}{{fill:{by_day}}}" in light
        assert f".f-{name}{{fill:{by_night}}}" in dark
    assert not re.search(r'(fill|stroke)="#', text)  # every colour follows the scheme


def test_hope_outline() -> None:
    found = outline(GRAPHS["hope"])
    assert found.own_values == {"titans.key", "titans.value", "titans.eta", "titans.alpha", "titans.memory"}
    assert Link("titans.eta", "titans.memory", "rate", "rate") in found.links
    assert Link("titans.key", "titans.memory", "key", "k") in found.links
    assert Link("loss", "cms.fast", "error") in found.links
    assert Link("level:train", "titans.key", "initialises") in found.links
    assert not any(link.target == "cms.slow" and link.role == "error" for link in found.links)


@pytest.mark.parametrize("name", GRAPHS)
def test_mermaid_and_dot(name: str) -> None:
    graph = GRAPHS[name]
    mermaid, dot = to_mermaid(graph), to_dot(graph)
    remembered = momenta(graph)  # each in a level of its own
    assert mermaid.startswith("flowchart LR\n") and mermaid.count("subgraph") == mermaid.count("  end\n")
    assert mermaid.count("subgraph") == len(graph.levels) + len(remembered)
    assert dot.count("{") == dot.count("}") == len(graph.levels) + len(remembered) + 1
    for rule in remembered:
        assert f'"{said(rule)}"' in dot and said(rule) in mermaid
    for memory in graph.of(Memory):
        assert f'"{memory.id}"' in dot
    assert all(re.fullmatch(r"[A-Za-z_]\w*", word) for word in re.findall(r"^  (\S+) -", mermaid, re.MULTILINE))


def test_shortened_text_fits() -> None:
    for room in (20, 50, 90):
        assert width_of(shortened("a rather long text", 12, room), 12) <= max(room, width_of("…", 12))
    assert shortened("short", 12, 500) == "short"
