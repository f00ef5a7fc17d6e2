"""An architecture while it is edited: the document, its blocks as statements, and what the compiler knows of it.

    draft = Draft.of(document)           raises SpecError where the document itself is not legal up to its shapes
    draft.slots()                        every memory with fields of its own, in order
    draft.places("rule")                 where a field can be said: for a whole level, or for one memory
    draft.shape_of(kind, "h")            the shape of a value, from pass shapes
    draft.done()                         the document with the changed blocks written back

Facts (`draft.graph`) are those of the document before the edit, so a kind of edit looks first and changes then.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from nlc.equations import Call, Expr, names, parse_call, to_text, walk
from nlc.graph.graph import Graph
from nlc.graph.nodes import Input, Memory, Op, Output, Read, Shape, Unit
from nlc.passes import build
from nlc.period import Period
from nlc.show import yaml_text
from nlc.source import plain
from nlc.spec import Spec, loads
from nlc.spec.fields import parse_period
from nlc.spec.resolve import DEFAULTS
from nlc.variants.edits.program import NOWHERE, Program, expression, renamed

Fields = dict[str, Any]
EXPRESSIONS = ("keys", "values", "rate", "retain", "weigh", "window", "out", "objective")
CALLS = ("rule", "form", "start")
FILE = "variant.yaml"  # what messages call a variant


@dataclass(frozen=True)
class Slot:
    """A memory: its level's fields, and its own before them."""

    level: Fields
    name: str

    @property
    def own(self) -> Fields:
        found: Fields = self.level["memories"][self.name]
        return found

    @property
    def id(self) -> str:
        return f"{self.level['name']}.{self.name}"

    def get(self, name: str, default: Any = None) -> Any:
        return self.own.get(name, self.level.get(name, default))

    def say(self, **fields: Any) -> None:
        """Fields of the memory itself; what its level says alike is not said again."""
        for name, value in fields.items():
            self.own.pop(name, None)
            if self.level.get(name) != value:
                self.own[name] = value

    def drop(self, *fields: str) -> None:
        """Fields that are to have their defaults for this memory."""
        for name in fields:
            self.own.pop(name, None)
            if name not in self.level:
                continue
            if len(self.level["memories"]) == 1:
                del self.level[name]
            elif name in DEFAULTS:
                self.own[name] = DEFAULTS[name]

    @property
    def attends(self) -> bool:
        return str(self.get("form", "")).split("(")[0].strip() == "attention"

    @property
    def period(self) -> Period:
        return parse_period(str(self.get("every", "1 token")), NOWHERE)

    @property
    def steps(self) -> bool:
        """Whether it is ordinary weights, which a level that counts steps updates."""
        return bool(self.get("carry") == "model")

    @property
    def tokens(self) -> bool:
        """Whether tokens write it by a rule."""
        return not self.attends and not self.steps and self.period.unit is not Unit.NEVER

    @property
    def loss(self) -> bool:
        return str(self.get("objective", "l2")).strip() == "loss"

    @property
    def pairs(self) -> bool:
        """Whether tokens write pairs of its own."""
        return self.tokens and not self.loss


@dataclass(frozen=True)
class Place:
    """Where a field is said: in the fields of a level, for those of its memories that do not say it, or of one."""

    subject: str  # level 'titans', memory 'cms.fast'
    fields: Fields
    slots: tuple[Slot, ...]
    whole: bool  # a level

    def said(self, name: str, default: Any = None) -> Any:
        return self.fields[name] if name in self.fields else self.slots[0].get(name, default)


@dataclass
class Draft:
    document: Fields
    graph: Graph
    programs: dict[str, Program] = field(default_factory=dict)

    @classmethod
    def of(cls, document: Fields) -> Draft:
        copied = deepcopy(document)
        graph = build(loads(yaml_text(copied), FILE), after="shapes")
        copied.setdefault("levels", [])
        blocks = copied.get("blocks") or {"block": copied["block"]}
        draft = cls(copied, graph, {kind: Program.read(text) for kind, text in blocks.items()})
        draft.done()
        return draft

    def copy(self) -> Draft:
        """The same, to be changed apart."""
        programs = {kind: Program(list(program.statements)) for kind, program in self.programs.items()}
        return Draft(deepcopy(self.document), self.graph, programs)

    def done(self) -> Fields:
        """The document, with its blocks as their statements are now."""
        for kind, program in self.programs.items():
            if self.document.get("blocks"):
                self.document["blocks"][kind] = program.text()
            else:
                self.document["block"] = program.text()
        return self.document

    # ---- levels and memories ---------------------------------------------------------------------------------------

    @property
    def levels(self) -> list[Fields]:
        found: list[Fields] = self.document["levels"]
        return found

    def inner(self) -> list[Fields]:
        """The levels with memories of their own; the others own ordinary weights."""
        return [level for level in self.levels if isinstance(level["memories"], dict)]

    def outer(self) -> list[Fields]:
        return [level for level in self.levels if not isinstance(level["memories"], dict)]

    def slots(self, level: Fields | None = None) -> list[Slot]:
        levels = self.inner() if level is None else [level]
        for one in levels:  # a memory that says nothing of its own is written as null or {}
            one["memories"] = {name: own or {} for name, own in one["memories"].items()}
        return [Slot(one, name) for one in levels for name in one["memories"]]

    def places(self, name: str) -> list[Place]:
        """Every place a field can be said at."""
        found = []
        for level in self.inner():
            slots = self.slots(level)
            sharing = tuple(slot for slot in slots if name not in slot.own)
            if sharing and (name in level or len(slots) > 1):
                found.append(Place(f"level '{level['name']}'", level, sharing, True))
            found += [Place(f"memory '{s.id}'", s.own, (s,), False) for s in slots]
        return found

    def fact(self, slot: Slot) -> Memory:
        """The memory as the compiler has it, in the first kind of block that reads it."""
        return next(m for m in self.graph.of(Memory) if m.name == slot.name and not m.of)

    def kinds(self, slots: Sequence[Slot]) -> list[str]:
        """The kinds of block that have any of these memories."""
        wanted = {slot.name for slot in slots}
        return [k for k in self.programs if any(m.name in wanted for m in self.graph.of(Memory, k))]

    def read(self, slot: Slot) -> list[str]:
        """The kinds of block whose equations read the memory; its level's fields may, too."""
        return [kind for kind in self.kinds([slot]) if any(True for _ in self.programs[kind].calls_of(slot.name))]

    def nested(self, slot: Slot) -> bool:
        """Whether the state of a memory begins again with that of another, or another's with it."""
        memory = self.fact(slot)
        return bool(memory.nest) or any(m.nest == memory.id for m in self.graph.of(Memory))

    def push(self, level: Fields, *names: str) -> None:
        """What a level says, said by each of its memories in its place."""
        for name in names:
            if name in level:
                value = level.pop(name)
                for slot in self.slots(level):
                    slot.own.setdefault(name, value)

    def leads_out(self, kind: str, name: str) -> bool:
        """Whether what a block reads of a memory leads out of it within the token."""
        ahead, seen = [output.value for output in self.graph.of(Output, kind)], set[str]()
        while ahead:
            node = self.graph[ahead.pop()]
            if node.id in seen:
                continue
            seen.add(node.id)
            if isinstance(node, Read):
                if self.graph[node.memory].name == name:
                    return True
                ahead.append(node.query)
            elif isinstance(node, Op) and node.op != "prev":
                ahead += node.inputs
        return False

    def chained(self) -> bool:
        """Whether a block reads a memory twice after its write, which a token's own error does not pass yet."""
        after = [slot for slot in self.slots() if slot.pairs and slot.get("read") == "after"]
        return any(len(list(p.calls_of(slot.name))) > 1 for slot in after for p in self.programs.values())

    def held(self) -> list[Slot]:
        """Memories written by tokens that learn from the network's own error."""
        return [slot for slot in self.slots() if slot.tokens and slot.loss]

    # ---- values ----------------------------------------------------------------------------------------------------

    def shapes(self, kind: str) -> dict[str, Shape]:
        """The shapes of names that a block assigns once."""
        once = set(self.programs[kind].once())
        values = [n for n in self.graph.nodes.values() if isinstance(n, Op | Read) and n.block == kind and not n.field]
        return {n.name: n.shape for n in values if n.name in once and n.shape is not None}

    def upstream(self, kind: str) -> dict[str, Shape]:
        """Those that depend on no memory: any field may use them, without a cycle."""
        found = {n.name: n.shape for n in self.graph.of(Input, kind) if self.graph.bare}
        for name, shape in self.shapes(kind).items():
            ahead = [n.id for n in self.graph.of(Op, kind) if n.name == name and not n.field]
            reads, seen = False, set[str]()
            while ahead:
                node = self.graph[ahead.pop()]
                reads |= isinstance(node, Read)
                if isinstance(node, Op) and node.id not in seen:
                    ahead += node.inputs
                    seen.add(node.id)
            if not reads and seen:
                found[name] = shape
        return found

    def common(self, slots: Sequence[Slot]) -> dict[str, Shape]:
        """Values without a memory in them that every block of these memories has, alike in shape."""
        kinds = self.kinds(slots)
        if not kinds:
            return {}
        first, *others = [self.upstream(kind) for kind in kinds]
        return {name: shape for name, shape in first.items() if all(o.get(name) == shape for o in others)}

    def size(self, number: int) -> str:
        """A number as a spec would write it: the name of a size, where one of the frame's is that."""
        named = {n: s for n, s in self.graph.sizes.items() if n in ("heads", "head", "width")}
        own = self.document.get("sizes", {})
        sizes = {**named, **own}
        fitting = [n for n, size in sizes.items() if size == number > 1 and n not in ("layers", "vocab", "context")]
        return str(fitting[0]) if fitting else str(number)

    # ---- names -----------------------------------------------------------------------------------------------------

    def taken(self) -> set[str]:
        """Every name that means something."""
        found = {level["name"] for level in self.levels} | {slot.name for slot in self.slots()}
        for section in ("sizes", "inputs", "streams", "forms", "rules", "blocks"):
            found |= set(self.document.get(section) or {})
        for program in self.programs.values():
            for statement in program.statements:
                found |= {*statement.targets, *statement.reads, *statement.calls}
        for slot in self.slots():
            for tree in expressions(slot.own):
                found |= mentioned(tree)
        for level in self.levels:
            for tree in expressions(level):
                found |= mentioned(tree)
        return found | {"x", "M", "head"} | set(self.graph.sizes)

    def free(self, wish: str, also: Sequence[str] = ()) -> str:
        """The name, or the name with the first number that makes it free."""
        taken = self.taken() | set(also)
        if wish not in taken:
            return wish
        number = next(n for n in range(2, 10_000) if f"{wish}_{n}" not in taken)
        return f"{wish}_{number}"


def expressions(fields: Fields) -> Iterator[Expr]:
    """Every expression and call among fields."""
    for name in (*EXPRESSIONS, *CALLS):
        if name in fields:
            texts = fields[name] if isinstance(fields[name], list) else [fields[name]]
            yield from (parsed(name, str(text)) for text in texts)


def parsed(name: str, text: str) -> Expr:
    """A field's text as a tree."""
    return parse_call(text, NOWHERE) if name in CALLS else expression(text)


def mentioned(tree: Expr) -> set[str]:
    """Values, sizes, operators and memories that a tree names."""
    return {*names(tree), *(part.func for part in walk(tree) if isinstance(part, Call))}


def rename_fields(fields: Fields, other: dict[str, str]) -> None:
    """Names exchanged in every expression of a level's or memory's fields."""
    for name in (*EXPRESSIONS, *CALLS):
        if name not in fields:
            continue
        said = fields[name]
        texts = said if isinstance(said, list) else [said]
        made = []
        for text in texts:
            tree = parsed(name, str(text))
            new = renamed(tree, other)
            made.append(text if new is tree else to_text(new).removesuffix("()"))
        fields[name] = made if isinstance(said, list) else made[0]
    if fields.get("carry") in other:
        fields["carry"] = other[fields["carry"]]


def document_of(spec: Spec) -> Fields:
    """What a spec says, with what it extends, and the rule files that it names, as plain data."""
    data: Fields = {key: value for key, value in plain(spec.tree).items() if key != "extends"}
    if own := {name: rule.written() for name, rule in spec.rules.mine().items()}:
        data["rules"] = own
    return data
