"""Edits that add: a read of a memory that is there, a memory beside others of its level, a level of its own."""

from __future__ import annotations

from copy import deepcopy
from math import prod
from random import Random

from nlc.equations import Call, Expr
from nlc.graph.nodes import Shape
from nlc.period import Period, Unit
from nlc.trees import Binary
from nlc.variants.edits.draft import Draft, Fields, Slot, rename_fields
from nlc.variants.edits.forms import DRAWN
from nlc.variants.edits.kind import Kind, among
from nlc.variants.edits.program import NOWHERE, Statement, renamed
from nlc.variants.edits.rules import asks_for_pairs

CONTINUUM = {"objective": "loss", "rule": "gd", "rate": "learned(0.05)", "meta": "first_order"}
CONTINUUM_FORM = "mlp(hidden=2x, norm=layernorm, bias=true)"
PAIRED = (
    {"objective": "l2", "rule": "gd"}, {"objective": "l2", "rule": "dgd"}, {"objective": "dot", "rule": "dgd"},
    {"objective": "dot", "rule": "gd", "retain": True},
    {"objective": "l2", "rule": "momentum(beta=0.5)", "retain": True},
)  # fmt: skip


# ---- a read --------------------------------------------------------------------------------------------------------


def _readable(draft: Draft) -> list[tuple[Slot, str]]:
    """Memories that a block of tokens reads, and the kinds of block that do."""
    return [] if draft.graph.bare else [(slot, kind) for slot in draft.slots() for kind in draft.read(slot)]


def _read(draft: Draft, site: tuple[Slot, str], rng: Random) -> str:
    slot, kind = site
    fact = draft.fact(slot)
    program = draft.programs[kind]
    query = shaped(draft, "rmsnorm(x)", (*fact.heads, fact.inner))
    if slot.attends or slot.pairs:
        query = f"l2norm({query})"
    when = ", read=before" if draft.held() and slot.get("read") == "after" else ""
    ends = [i for i, s in enumerate(program.statements) if "x" in s.targets]
    text = f"x = x + {flat(draft, f'{slot.name}({query}{when})', (*fact.heads, fact.outer))}"
    program.statements.insert(ends[-1] + 1, Statement.parse(text))
    return f"memory '{slot.id}' is read once more, with a projection of what leaves the block"


def shaped(draft: Draft, vector: str, shape: Shape) -> str:
    """A projection of a vector of the block's width, as heads."""
    sizes = [draft.size(n) for n in shape]
    wide = "" if prod(shape) == draft.graph.sizes["width"] else f", out={' * '.join(sizes)}"
    text = f"linear({vector}{wide})"
    for i in range(len(shape) - 1):
        text = f"heads({text}{'' if sizes[i] == 'heads' else f', {sizes[i]}'})"
    return text


def flat(draft: Draft, value: str, shape: Shape) -> str:
    """A value with heads, projected to the block's width."""
    for _ in shape[1:]:
        value = f"merge({value})"
    return f"linear({value})" if prod(shape) == draft.graph.sizes["width"] else f"linear({value}, out=width)"


# ---- a memory ------------------------------------------------------------------------------------------------------


def _beside(draft: Draft) -> list[Slot]:
    """Memories with a form of their own, that the block reads."""
    return [slot for slot in draft.slots() if draft.read(slot) and not draft.nested(slot)]


def _memory(draft: Draft, slot: Slot, rng: Random) -> str:
    """It learns the same pairs, or the same error, and what it gives is added."""
    fact = draft.fact(slot)
    name = draft.free(among(rng, ("beside", "other", "near", "far")))
    own = deepcopy(slot.own)
    rename_fields(own, {slot.name: name})
    if not slot.attends and str(slot.get("meta")) != "none" and "identity" not in str(slot.get("start")):
        maps = [f for f in DRAWN if f != "vector" or fact.inner == fact.outer]
        own["form"] = among(rng, maps if _free_form(draft, slot) else ["matrix"])
    if slot.tokens and "every" in own and slot.loss:
        counts = [n for n in (8, 16, 32, 64, 128, 256) if n <= draft.graph.sizes.get("context", 64)]
        own["every"] = str(Period(among(rng, counts or [1]), Unit.TOKEN))
        own.pop("chunk", None)
    slot.level["memories"][name] = own

    def sum_of_both(part: Expr) -> Expr | None:
        if not isinstance(part, Call) or part.func != slot.name:
            return None
        return Binary("+", part, renamed(part, {slot.name: name}), NOWHERE)

    for kind in draft.kinds([slot]):
        draft.programs[kind].change(sum_of_both)
    what = own.get("form", slot.get("form"))
    return f"level '{slot.level['name']}' has one more memory, '{name}', a {what} beside '{slot.id}'"


def _free_form(draft: Draft, slot: Slot) -> bool:
    fact = draft.fact(slot)
    channel = bool(fact.retain) and draft.graph[fact.retain].shape == (*fact.heads, fact.inner)
    zero = str(slot.get("start", "learned")) in ("zeros", "learned(zeros)")
    return not (slot.pairs and asks_for_pairs(draft, slot)) and not channel and not zero


# ---- a level -------------------------------------------------------------------------------------------------------


def _kinds(draft: Draft) -> list[str]:
    """Blocks of tokens, which end with what leaves them."""
    return [] if draft.graph.bare or "width" not in draft.graph.sizes else list(draft.programs)


def _level(draft: Draft, kind: str, rng: Random) -> str:
    if rng.randrange(2) and "heads" in draft.graph.sizes:
        return _of_pairs(draft, kind, rng)
    return _continuum(draft, kind, rng)


def _continuum(draft: Draft, kind: str, rng: Random) -> str:
    """A memory that learns from the network's own error, at the end of the block."""
    name, memory = draft.free("continuum"), draft.free("late")
    if rng.randrange(3) and not draft.chained():
        context = draft.graph.sizes.get("context", 64)
        counts = [n for n in (8, 16, 32, 64, 128, 256) if n <= context]
        every = str(Period(among(rng, counts or [1]), Unit.TOKEN))
        fields: Fields = {"every": every, **CONTINUUM}
    else:
        every = str(Period(among(rng, (1, 2, 4)), Unit.STEP))
        fields = {"every": every, "objective": "loss", "carry": "model", "rule": "adamw(lr=3e-4)"}
    _insert(draft, {"name": name, **fields, "memories": {memory: {"form": CONTINUUM_FORM}}})
    draft.programs[kind].statements.append(Statement.parse(f"x = {memory}(x)"))
    return f"a level '{name}' is added: an mlp written every {every} from the network's own error, after the block"


def _of_pairs(draft: Draft, kind: str, rng: Random) -> str:
    """A matrix of each head that every token writes, read beside what the block has."""
    name, memory = draft.free("associative"), draft.free("recall")
    seen = draft.free("m_seen")
    fields: Fields = {"every": "1 token", **among(rng, PAIRED)}
    if fields.pop("retain", False):
        fields["retain"] = f"sigmoid(linear({seen}, out=heads) + 4)"
    fields |= {"rate": f"sigmoid(linear({seen}, out=heads))", "chunk": among(rng, (1, 16, 64))}
    pair = {"form": "matrix", "keys": f"l2norm(heads(linear({seen})))", "values": f"heads(linear({seen}))"}
    _insert(draft, {"name": name, **fields, "memories": {memory: pair}})
    draft.programs[kind].statements += [
        Statement.parse(f"{seen} = rmsnorm(x)"),
        Statement.parse(f"x = x + linear(merge({memory}(l2norm(heads(linear({seen}))))))"),
    ]
    what = f"a matrix of each head, written every token by {fields['rule']} on {fields['objective']}"
    return f"a level '{name}' is added: {what}, read after the block"


def _insert(draft: Draft, level: Fields) -> None:
    """Before the levels that own ordinary weights."""
    at = next((i for i, one in enumerate(draft.levels) if not isinstance(one["memories"], dict)), len(draft.levels))
    draft.levels.insert(at, level)


READ = Kind("read", "a memory is read once more", _readable, _read)
MEMORY = Kind("memory", "a level has one more memory", _beside, _memory)
LEVEL = Kind("level", "there is one more level", _kinds, _level)
