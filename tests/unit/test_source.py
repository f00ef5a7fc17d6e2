"""YAML text to a tree: values typed by YAML 1.2, and every character of every value at its place in the file."""

from __future__ import annotations

import pytest

from nlc.diagnostics import Reporter
from nlc.source import Mapping, Position, Scalar, Sequence, Tree, line_of, place_from
from nlc.spec.text import parse

TEXT = """\
nlc: 1
a: {k: 'mlp(a, ''b'')', rate: 0.5, n: no, e: 1e-3, t: true, z: ~}
b: "x\\ty = \\"z\\" end"
c: foo bar
   baz + qux
d: |  # a comment on the header

  h = 1

  x = 2
    y = 3
e: >
  folded text
  more text
f: [1, .5, 0x1f, yes, 'true', 1_000]
"""


def tree_of(text: str, file: str = "t.yaml") -> Mapping:
    report = Reporter()
    tree = parse(text, file, report)
    assert isinstance(tree, Mapping) and not report.found
    return tree


def scalars(tree: Tree) -> list[Scalar]:
    match tree:
        case Scalar():
            return [tree]
        case Mapping(entries, _):
            return [s for entry in entries.values() for s in scalars(entry.value)]
        case Sequence(items, _):
            return [s for item in items for s in scalars(item)]


def test_every_character_has_its_place() -> None:
    for scalar in scalars(tree_of(TEXT)):
        for offset, char in enumerate(scalar.text):
            if not char.isspace():
                at = scalar.place(offset)
                assert (line_of(at.file, at.line) or "")[at.column - 1] == char, (scalar, offset)


def test_values_are_typed_by_yaml_1_2() -> None:
    tree = tree_of(TEXT)
    inner = tree.get("a")
    assert isinstance(inner, Mapping)
    assert {k: e.value.value for k, e in inner.entries.items() if isinstance(e.value, Scalar)} == {
        "k": "mlp(a, 'b')", "rate": 0.5, "n": "no", "e": 0.001, "t": True, "z": None,
    }  # fmt: skip
    assert [s.value for s in scalars(tree.get("f") or tree)] == [1, 0.5, 31, "yes", "true", "1_000"]


def test_a_block_begins_at_its_first_line() -> None:
    block = tree_of(TEXT).get("d")
    assert isinstance(block, Scalar)
    assert block.at == Position("t.yaml", 8, 3, 5)
    assert block.text == "h = 1\n\nx = 2\n  y = 3\n"
    assert place_from(block.at, block.text)(7, 1) == block.place(7)


def test_keys_have_places() -> None:
    inner = tree_of(TEXT).get("a")
    assert isinstance(inner, Mapping)
    assert (inner.entries["rate"].at.line, inner.entries["rate"].at.column) == (2, 25)


def test_carriage_returns_are_line_ends() -> None:
    tree = tree_of("a: 1\r\nb: |\r\n  x = 1\r\n  y = 2\r\n")
    block = tree.get("b")
    assert isinstance(block, Scalar)
    at = block.place(block.text.index("y"))
    assert (at.line, at.column) == (4, 3)


def test_aliases_stand_for_what_they_name() -> None:
    tree = tree_of("x-form: &form mlp(hidden=4x)\na: *form\n")
    assert [s.text for s in scalars(tree)] == ["mlp(hidden=4x)"] * 2


@pytest.mark.parametrize(
    ("text", "code", "line", "column"),
    [
        pytest.param("a: [1, 2", "NLC0106", 1, 4, id="bracket"),
        pytest.param("a: 'x\n", "NLC0106", 1, 4, id="quote"),
        pytest.param("a:\n\t- b", "NLC0105", 2, 1, id="tab"),
        pytest.param("a: 1\nb: 2\na: 3", "NLC0107", 3, 1, id="duplicate"),
        pytest.param("a: *u", "NLC0106", 1, 4, id="no_anchor"),
        pytest.param("a: &x [*x]", "NLC0108", 1, 8, id="alias_in_itself"),
        pytest.param("a: !!python/name:os.system x", "NLC0109", 1, 4, id="tag"),
        pytest.param("a: 1\n--- \nb: 2", "NLC0109", 2, 1, id="two_documents"),
        pytest.param("b: &b {c: 1}\na:\n  <<: *b", "NLC0109", 3, 3, id="merge_key"),
        pytest.param("a: {k: f(x, y)}", "NLC0110", 1, 8, id="comma_in_braces"),
        pytest.param("? [a]\n: b", "NLC0202", 1, 3, id="list_as_key"),
        pytest.param("# nothing\n", "NLC0104", 0, 0, id="only_a_comment"),
        pytest.param('a: "\\ud83d\\ude00"', "NLC0103", 1, 5, id="half_of_a_surrogate_pair"),
        pytest.param('"\\udfff": b', "NLC0103", 1, 2, id="half_of_a_surrogate_pair_as_key"),
        pytest.param("[" * 500, "NLC0108", 1, 41, id="deep"),
    ],
)
def test_text_that_is_refused(text: str, code: str, line: int, column: int) -> None:
    report = Reporter()
    parse(text, "t.yaml", report)
    assert [(d.code, d.at.line, d.at.column) for d in report.found] == [(code, line, column)]


def test_an_expression_cut_by_braces_is_put_together_again() -> None:
    report = Reporter()
    tree = parse("a: {k: f(x, y, g(z), 1), m: 2}", "t.yaml", report)
    assert tree is not None and [s.value for s in scalars(tree)] == ["f(x, y, g(z), 1)", 2]
    assert len(report.found) == 1


def test_an_expression_with_a_bracket_in_braces_says_what_to_do() -> None:
    report = Reporter()
    parse("a: {k: f(x=[1, 2])}", "t.yaml", report)
    assert [d.hint for d in report.found] == ["put quotes around an expression with a bracket in it"]
