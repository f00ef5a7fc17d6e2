"""Edits of what keys and queries pass through before they meet: the feature map, the same for both."""

from __future__ import annotations

from random import Random

from nlc.equations import Call, Expr, Name, to_text
from nlc.variants.edits.draft import Draft, Slot
from nlc.variants.edits.kind import Kind, among
from nlc.variants.edits.program import NOWHERE, Program, expression

MAPS = (
    ("l2norm",), ("l2norm", "silu"), ("l2norm", "relu"), ("l2norm", "softplus"), ("softmax",), ("l2norm", "tanh"),
    ("l2norm", "rope"),
)  # fmt: skip
ATTENDED = (*MAPS, ("rope",), ())  # attention weighs by softmax, so that vectors of any length do
STRIPPED = frozenset(name for each in ATTENDED for name in each) | {"sigmoid", "exp"}


def _sites(draft: Draft) -> list[Slot]:
    """Memories of one pair a token, whose queries the block makes."""
    slots = [s for s in draft.slots() if (s.attends or s.pairs) and isinstance(s.get("keys"), str)]
    return [slot for slot in slots if draft.read(slot)]


def _features(draft: Draft, slot: Slot, rng: Random) -> str:
    keys = expression(slot.get("keys"))
    programs = [draft.programs[kind] for kind in draft.kinds([slot])]
    places = [_assigned(program, keys) for program in programs]
    old = _split(programs[0].statements[places[0]].value if places[0] is not None else keys)[0]
    turns = draft.fact(slot).inner % 2 == 0  # rope turns pairs
    new = among(rng, [m for m in (ATTENDED if slot.attends else MAPS) if m != old and ("rope" not in m or turns)])
    for program in programs:
        _change(program, slot.name, keys, new)
    if None in places:
        slot.say(keys=to_text(_through(keys, new)))
    said = [" of ".join(maps) or "nothing" for maps in (new, old)]
    return f"memory '{slot.id}': keys and queries pass through {said[0]} in place of {said[1]}"


def _change(program: Program, name: str, keys: Expr, maps: tuple[str, ...]) -> None:
    """Where the block assigns keys and queries by a map of their own, else in the read."""
    queries = [call.args[0] for _, call in program.calls_of(name)]
    for at in dict.fromkeys(_assigned(program, value) for value in (keys, *queries)):
        if at is not None:
            program.statements[at] = program.statements[at].valued(_through(program.statements[at].value, maps))

    def asked(part: Expr) -> Expr | None:
        if not isinstance(part, Call) or part.func != name or _assigned(program, part.args[0]) is not None:
            return None
        return Call(part.func, (_through(part.args[0], maps), *part.args[1:]), part.kwargs, part.at)

    if not all(_assigned(program, query) is not None for query in queries):
        program.change(asked)


def _assigned(program: Program, tree: Expr) -> int | None:
    """The one statement that assigns a name by a map."""
    at = program.definition(tree.id) if isinstance(tree, Name) else None
    return at if at is not None and _split(program.statements[at].value)[0] else None


def _split(tree: Expr) -> tuple[tuple[str, ...], Expr]:
    """The maps around an expression, outermost first, and what they are applied to."""
    found = []
    while isinstance(tree, Call) and tree.func in STRIPPED and len(tree.args) == 1 and not tree.kwargs:
        found.append(tree.func)
        tree = tree.args[0]
    return tuple(found), tree


def _through(tree: Expr, maps: tuple[str, ...]) -> Expr:
    inner = _split(tree)[1]
    for name in reversed(maps):
        inner = Call(name, (inner,), (), NOWHERE)
    return inner


FEATURES = Kind("features", "keys and queries pass through another map", _sites, _features)
