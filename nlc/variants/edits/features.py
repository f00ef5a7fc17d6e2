"""Edits of what keys and queries pass through before they meet: the feature map, the same for both."""

from __future__ import annotations

from random import Random

from nlc.equations import Call, Expr, Name, parse_expression, to_text
from nlc.variants.edits.draft import Draft, Slot
from nlc.variants.edits.kind import Kind, Unchanged, among
from nlc.variants.edits.program import NOWHERE

MAPS = (
    ("l2norm",), ("l2norm", "silu"), ("l2norm", "relu"), ("l2norm", "softplus"), ("softmax",), ("l2norm", "tanh"),
    ("l2norm", "rope"), ("rope",), (),
)  # fmt: skip
STRIPPED = frozenset(name for each in MAPS for name in each) | {"sigmoid", "exp"}
BARE = (("rope",), ())  # of any length: for attention, which weighs by softmax


def _sites(draft: Draft) -> list[Slot]:
    """Memories of one pair a token, whose queries the block makes."""
    slots = [slot for slot in draft.slots() if slot.attends or slot.pairs]
    return [s for s in slots if isinstance(s.get("keys"), str) and any(draft.programs[k].calls_of(s.name) for k in draft.kinds([s]))]  # fmt: skip


def _features(draft: Draft, slot: Slot, rng: Random) -> str:
    old = None
    fact = draft.fact(slot)
    maps = [m for m in MAPS if (slot.attends or m not in BARE) and ("rope" not in m or fact.inner % 2 == 0)]
    keys = parse_expression(str(slot.get("keys")), NOWHERE)
    where = draft.kinds([slot])
    tree = keys
    if isinstance(keys, Name) and (at := draft.programs[where[0]].definition(keys.id)) is not None:
        tree = draft.programs[where[0]].statements[at].value
    old, _ = _split(tree)
    new = among(rng, [m for m in maps if m != old])
    done = set[tuple[str, int]]()
    for kind in where:
        program = draft.programs[kind]
        names = [keys.id] if isinstance(keys, Name) else []
        queries = [call.args[0] for _, call in program.calls_of(slot.name)]
        names += [query.id for query in queries if isinstance(query, Name)]
        for name in names:
            at = program.definition(name)
            if at is not None and (kind, at) not in done:
                done.add((kind, at))
                program.statements[at] = program.statements[at].valued(_through(program.statements[at].value, new))
        settled = {name for name in names if program.definition(name) is not None}

        def asked(part: Expr, settled: set[str] = settled) -> Expr | None:
            if not isinstance(part, Call) or part.func != slot.name:
                return None
            query = part.args[0]
            if isinstance(query, Name) and query.id in settled:
                return None
            return Call(part.func, (_through(query, new), *part.args[1:]), part.kwargs, part.at)

        program.change(asked)
    if not done:
        if not queries:
            raise Unchanged
    if not (isinstance(keys, Name) and any(draft.programs[k].definition(keys.id) is not None for k in where)):
        slot.say(keys=to_text(_through(keys, new)))
    said = " of ".join(new) or "nothing"
    return f"memory '{slot.id}': keys and queries pass through {said} in place of {' of '.join(old) or 'nothing'}"


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

