"""The block language: text -> tree -> text again.  Nothing is evaluated by Python.

    parse_block(text, at)       several assignments, one per line         -> tuple[Assign, ...]
    parse_expression(text, at)  one expression                            -> Expr
    parse_axis(text, at)        one expression of sizes, in which `in` and `out` are names       -> Expr
    parse_call(text, at)        a form, rule, objective or start: `mlp(hidden=4x, act=silu)`, `matrix`  -> Call
    to_text(tree)               writes a tree back; parsing that gives an equal tree
    names(tree)                 the names it reads, in order, without repeats
    walk(tree)                  the tree and everything below it, outermost first

`at` is the Position of the first character (of a `|` block: of its content), or a Place that maps (offset, length) to a
Position.  Everything a text does wrong is reported together: a SpecError with NLC03xx codes.

    statement   names '=' expression            names: a | a, b
    expression  sum [('<' | '<=' | '>' | '>=' | '==' | '!=') sum]
    sum         product (('+' | '-') product)*
    product     factor (('*' | '/' | '@') factor)*
    factor      '-' factor | power
    power       postfix ['**' factor]
    postfix     atom ('[' slice ']')*           slices act on the last axis: v[2], v[1:3], v[:4]
    atom        number | true | false | name | name '(' arguments ')' | '(' expression ')' | list
    list        '[' expression, ... ']' | '(' expression ',' ... ')'
    arguments   expression, ..., name '=' (expression | 'text'), ...
"""

from __future__ import annotations

from nlc.diagnostics import Reporter, SpecError
from nlc.grammar import Parser
from nlc.source import Place, Position, place_from
from nlc.tokens import statements, tokens
from nlc.trees import (
    Assign,
    Binary,
    Boolean,
    Call,
    Compare,
    Expr,
    ListOf,
    Multiple,
    Name,
    Number,
    Slice,
    Text,
    Unary,
    children,
    names,
    to_text,
    walk,
)  # fmt: skip

__all__ = [
    "Assign", "Binary", "Boolean", "Call", "Compare", "Expr", "ListOf", "Multiple", "Name", "Number", "Slice", "Text",
    "Unary", "children", "names", "parse_axis", "parse_block", "parse_call", "parse_expression", "to_text", "walk",
]  # fmt: skip


def parse_block(text: str, at: Position | Place) -> tuple[Assign, ...]:
    """The assignments of a block, in order.  Raises SpecError with every fault of every line."""
    report = Reporter()
    place = _place(text, at)
    found = []
    for line in statements(tokens(text, place, report), text, place, report):
        parser = Parser(line, text, place, report)
        if (assign := parser.statement()) is not None:
            found.append(assign)
    if not found and not report.found:
        report.error("NLC0305", place(0, 1), "a block without an assignment", hint="for example: x = x + linear(x)")
    report.check()
    return tuple(found)


def parse_expression(text: str, at: Position | Place) -> Expr:
    """One expression.  Raises SpecError with NLC03xx codes."""
    return _single(text, at)


def parse_axis(text: str, at: Position | Place) -> Expr:
    """One axis of a form's state: `in`, `4 * in`, `out`, or any expression of sizes.  Raises SpecError."""
    return _single(text, at, words=("in",))


def parse_call(text: str, at: Position | Place) -> Call:
    """A name with parameters, for forms, rules, objectives and starts: `matrix`, `mlp(hidden=4x)`, `learned(0.05)`,
    `adamw(betas=(0.9, 0.95))`, `from(checkpoint:path)`.  A bare word is a call without arguments.  Raises SpecError."""
    place = _place(text, at)
    stripped = text.strip()
    if stripped.startswith("from(") and stripped.endswith(")"):
        begin = text.index("from(")
        path = stripped[5:-1].strip()
        return Call("from", (Text(path, place(begin + 5, max(1, len(path)))),), (), place(begin, 4))
    match _single(text, at, calls=True):
        case Call() as call:
            return call
        case Name(id, name_at):
            return Call(id, (), (), name_at)
    report = Reporter()
    found = text.strip() or "nothing"
    report.error(
        "NLC0306",
        place(0, max(1, len(text))),
        f"'{found}' is not a name with parameters",
        hint="for example: mlp(hidden=4x)",
    )
    raise SpecError(report.found)


def _place(text: str, at: Position | Place) -> Place:
    return place_from(at, text) if isinstance(at, Position) else at


def _single(text: str, at: Position | Place, calls: bool = False, words: tuple[str, ...] = ()) -> Expr:
    """One expression; `4x` is allowed where `calls`, and Python's own `words` are names."""
    report = Reporter()
    place = _place(text, at)
    found = [t for t in tokens(text, place, report) if t.kind != "newline"]
    expr = None if report.found else Parser(found, text, place, report, calls, words).whole()
    report.check()
    assert expr is not None
    return expr
