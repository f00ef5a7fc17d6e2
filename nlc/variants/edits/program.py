"""The equations of one block as statements that can be changed one by one.

program = Program.read(text)       every statement with its text; comments stay with the statement they stand on
program.text()                     the text again; what was not changed stands as it was written
renamed(tree, {"q": "q_2"})        a tree with names, and what is called, under other names
mapped(tree, change)               a tree rebuilt from the inside out
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from nlc.equations import Assign, Call, Expr, Name, names, parse_block, parse_expression, to_text, walk
from nlc.source import Position
from nlc.trees import Binary, Compare, ListOf, Slice, Unary

NOWHERE = Position("", 1, 1)


@dataclass(frozen=True)
class Statement:
    """An assignment, as written."""

    assign: Assign
    text: str

    @classmethod
    def of(cls, assign: Assign) -> Statement:
        return cls(assign, to_text(assign))

    @classmethod
    def parse(cls, text: str) -> Statement:
        return cls(parse_block(text, NOWHERE)[0], text)

    @property
    def targets(self) -> tuple[str, ...]:
        return self.assign.targets

    @property
    def value(self) -> Expr:
        return self.assign.value

    @property
    def reads(self) -> tuple[str, ...]:
        """The values (and sizes) that it names."""
        return names(self.assign.value)

    @property
    def calls(self) -> tuple[str, ...]:
        """The operators and memories that it calls, outermost first."""
        return tuple(part.func for part in walk(self.assign.value) if isinstance(part, Call))

    def valued(self, value: Expr) -> Statement:
        """The same targets with another value; the statement itself where nothing changes."""
        return self if value is self.assign.value else Statement.of(replace(self.assign, value=value))

    def under(self, other: Mapping[str, str]) -> Statement:
        """The statement with names exchanged, those it assigns included."""
        targets = tuple(other.get(target, target) for target in self.targets)
        value = renamed(self.value, other)
        if targets == self.targets and value is self.value:
            return self
        return Statement.of(replace(self.assign, targets=targets, value=value))


@dataclass
class Program:
    """The statements of one block, in order."""

    statements: list[Statement]

    @classmethod
    def read(cls, text: str) -> Program:
        lines = text.rstrip("\n").split("\n")
        assigns = parse_block(text, NOWHERE)
        starts = [assign.at.line - 1 for assign in assigns]
        begins = [0, *starts[1:]]  # comments in front of the first statement are its own
        ends = [*starts[1:], len(lines)]
        pieces = ["\n".join(lines[a:b]).rstrip() for a, b in zip(begins, ends, strict=True)]
        return cls([Statement(assign, piece) for assign, piece in zip(assigns, pieces, strict=True)])

    def text(self) -> str:
        return "\n".join(statement.text for statement in self.statements) + "\n"

    def once(self) -> list[str]:
        """The names assigned exactly once, in order: those that a field may use."""
        assigned = [target for statement in self.statements for target in statement.targets]
        return [name for name in dict.fromkeys(assigned) if assigned.count(name) == 1]

    def definition(self, name: str) -> int | None:
        """The statement that assigns a name; None where there is not exactly one with that target alone."""
        found = [i for i, statement in enumerate(self.statements) if name in statement.targets]
        return found[0] if len(found) == 1 and self.statements[found[0]].targets == (name,) else None

    def change(self, change: Callable[[Expr], Expr | None]) -> None:
        """Every expression rebuilt by `change`."""
        self.statements = [statement.valued(mapped(statement.value, change)) for statement in self.statements]

    def calls_of(self, name: str) -> Iterator[tuple[int, Call]]:
        """(statement, call) of every call of an operator or memory."""
        for i, statement in enumerate(self.statements):
            yield from ((i, part) for part in walk(statement.value) if isinstance(part, Call) and part.func == name)


def mapped(tree: Expr, change: Callable[[Expr], Expr | None]) -> Expr:
    """The tree with every node that `change` answers exchanged, inner ones first; the tree itself where none is."""

    def inner(part: Expr) -> Expr:
        return mapped(part, change)

    made: Expr = tree
    match tree:
        case Call(func, args, kwargs, at, places):
            new_args, new_kwargs = tuple(map(inner, args)), tuple((n, inner(v)) for n, v in kwargs)
            if _other(new_args, args) or _other([v for _, v in new_kwargs], [v for _, v in kwargs]):
                made = Call(func, new_args, new_kwargs, at, places)
        case Unary(op, value, at):
            made = tree if (new := inner(value)) is value else Unary(op, new, at)
        case Binary(op, left, right, at):
            a, b = inner(left), inner(right)
            made = tree if a is left and b is right else Binary(op, a, b, at)
        case Compare(op, left, right, at):
            a, b = inner(left), inner(right)
            made = tree if a is left and b is right else Compare(op, a, b, at)
        case ListOf(items, at, round):
            new_items = tuple(map(inner, items))
            made = ListOf(new_items, at, round) if _other(new_items, items) else tree
        case Slice(value, start, stop, at, single):
            parts = [None if part is None else inner(part) for part in (value, start, stop)]
            if _other(parts, (value, start, stop)):
                assert parts[0] is not None
                made = Slice(parts[0], parts[1], parts[2], at, single)
    return change(made) or made


def _other(new: object, old: object) -> bool:
    return any(a is not b for a, b in zip(new, old, strict=True))  # type: ignore[call-overload]


def renamed(tree: Expr, other: Mapping[str, str]) -> Expr:
    """The tree with names, and the names of what is called, exchanged."""

    def change(part: Expr) -> Expr | None:
        match part:
            case Name(id, at) if id in other:
                return Name(other[id], at)
            case Call(func, args, kwargs, at, places) if func in other:
                return Call(other[func], args, kwargs, at, places)
        return None

    return mapped(tree, change)


def expression(text: str) -> Expr:
    """The tree of an expression that stands nowhere."""
    return parse_expression(text, NOWHERE)
