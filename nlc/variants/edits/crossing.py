"""What an architecture can take from another parent: sublayers, layers, how a memory is written, the optimiser."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from random import Random
from typing import Any

from nlc.equations import Call, names, walk
from nlc.variants.edits.draft import Draft, Fields, Slot, expressions
from nlc.variants.edits.graft import closed, grafted, mixes, parts
from nlc.variants.edits.kind import Unchanged
from nlc.variants.edits.mixers import exchange, replaceable
from nlc.variants.edits.rules import asks_for_pairs, own_rules

TAKEN = (
    "every", "chunk", "objective", "rule", "rate", "retain", "retain_to", "grad_at", "meta", "tail", "normalise_hidden",
)  # fmt: skip


@dataclass(frozen=True)
class Cross:
    """A way to cross: `sites` of a host and another parent, and what the host becomes at one of them."""

    name: str
    doc: str
    sites: Callable[[Draft, Draft], Sequence[Any]]
    make: Callable[[Draft, Draft, Any, Random], str]


# ---- a sublayer ----------------------------------------------------------------------------------------------------


def _sublayers(host: Draft, other: Draft) -> list[tuple[Any, Any]]:
    """A sublayer of each, both of which mix tokens or neither."""
    giving = [part for part in parts(other) if closed(other, part)]
    return [(a, b) for a in replaceable(host) for b in giving if mixes(host, a) == mixes(other, b)]


def _sublayer(host: Draft, other: Draft, site: tuple[Any, Any], rng: Random) -> str:
    mine, theirs = site
    what = "sequence mixer" if mixes(host, mine) else "sublayer that mixes channels"
    exchange(host, mine, other, theirs)
    return f"the {what} of '{other.document['name']}' takes the place of that of block '{mine.kind}'"


# ---- layers in turn ------------------------------------------------------------------------------------------------


def _whole(host: Draft, other: Draft) -> list[tuple[()]]:
    """Both have one kind of block, of tokens, and nothing but x flows between layers."""
    both = (host, other)
    alone = all("block" in d.document and not d.graph.bare and not d.document.get("streams") for d in both)
    return [()] if alone else []


def _layers(host: Draft, other: Draft, site: tuple[()], rng: Random) -> str:
    """One layer of each in turn; what the outer levels own is the host's to say."""
    levels = [deepcopy(level) for level in other.inner()]
    new = grafted(host, other, other.programs["block"].statements, levels)
    first, second = "first", "second"
    host.document["blocks"] = {first: "", second: ""}
    del host.document["block"]
    mine = host.programs.pop("block")
    host.programs[first], host.programs[second] = mine, type(mine)(new.statements)
    host.document["stack"] = [first, second]
    layers = len(host.graph.stack)
    host.document["sizes"]["layers"] = layers + layers % 2
    at = next((i for i, one in enumerate(host.levels) if not isinstance(one["memories"], dict)), len(host.levels))
    host.levels[at:at] = new.levels
    return f"layers of '{host.document['name']}' and of '{other.document['name']}' stand by turns"


# ---- fields of a level ---------------------------------------------------------------------------------------------


def _role(slot: Slot) -> str:
    """How a memory is written: nothing else than one written alike can take its fields."""
    roles = {"attends": slot.attends, "steps": slot.steps, "loss": slot.tokens and slot.loss, "pairs": slot.pairs}
    return next((role for role, is_so in roles.items() if is_so), "never")


def _alike(host: Draft, other: Draft) -> list[tuple[Slot, Slot]]:
    """A memory of each, written in the same way."""
    return [
        (a, b)
        for a in host.slots()
        for b in other.slots()
        if _role(a) == _role(b) in ("loss", "pairs", "steps") and not host.nested(a) and not other.nested(b)
    ]


def _fields(host: Draft, other: Draft, site: tuple[Slot, Slot], rng: Random) -> str:
    """Everything about how the other's memory is written that names nothing of its block."""
    mine, theirs = site
    given = {n: theirs.get(n) for n in TAKEN if theirs.get(n) is not None and _free(other, {n: theirs.get(n)})}
    if asks_for_pairs(other, theirs) and str(mine.get("form")).strip() != "matrix":
        given.pop("rule", None)
    if "rule" in given:
        _bring_rules(host, other, given)
        given.setdefault("rate", mine.get("rate"))
    changed = {n: value for n, value in given.items() if value is not None and mine.get(n) != value}
    if not changed:
        raise Unchanged
    mine.say(**changed)
    if "rule" in changed and "rate" in given and given["rate"] is not None and "lr=" not in str(changed["rule"]):
        mine.own["rate"] = given["rate"]
    said = ", ".join(f"{n} {value}" for n, value in changed.items())
    return f"memory '{mine.id}' is written as '{other.document['name']}' writes '{theirs.id}': {said}"


def _free(other: Draft, fields: Fields) -> bool:
    """Whether the expressions name no value of the block and make no weight by its width."""
    words = set(other.graph.sizes) | {"M", "k", "v"}
    called = {part.func for tree in expressions(fields) for part in walk(tree) if isinstance(part, Call)}
    values = {name for tree in expressions(fields) for name in names(tree)}
    return values <= words and not called & {"linear", "param", *(slot.name for slot in other.slots())}


def _bring_rules(host: Draft, other: Draft, fields: Fields) -> None:
    """A rule of the other's own comes along."""
    name = str(fields["rule"]).split("(")[0].strip()
    own = own_rules(other.document)
    if name in own:
        there = host.document.setdefault("rules", {})
        if there.get(name, own[name]) != own[name]:
            raise Unchanged
        there[name] = deepcopy(own[name])


# ---- the outer optimiser -------------------------------------------------------------------------------------------


def _outer(host: Draft, other: Draft) -> list[tuple[()]]:
    return [()] if host.outer() and other.outer() and _optimiser(host) != _optimiser(other) else []


def _optimiser(draft: Draft) -> list[Fields]:
    return [{k: v for k, v in level.items() if k != "name"} for level in draft.outer()]


def _optimisers(host: Draft, other: Draft, site: tuple[()], rng: Random) -> str:
    taken = [deepcopy(level) for level in other.outer()]
    host.levels[:] = host.inner()
    labels = [level["name"] for level in host.levels]
    for level in taken:
        if "rule" in level:
            _bring_rules(host, other, level)
        if level["name"] in labels:
            level["name"] = host.free(level["name"], labels)
        labels.append(level["name"])
    host.levels.extend(taken)
    said = ", ".join(f"{level.get('rule', 'gd')} every {level.get('every', 'step')}" for level in taken)
    return f"ordinary weights are trained as in '{other.document['name']}': {said}"


CROSSES: tuple[Cross, ...] = (
    Cross("sublayer", "a sublayer of the other parent in place of one alike", _sublayers, _sublayer),
    Cross("layers", "layers of both parents by turns", _whole, _layers),
    Cross("fields", "a memory is written as one of the other parent is: rule, objective, period, ...", _alike, _fields),
    Cross("optimiser", "the outer levels are those of the other parent", _outer, _optimisers),
)
