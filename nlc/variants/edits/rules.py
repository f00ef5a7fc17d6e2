"""Edits of how a memory learns: its update rule, and the objective that a write descends."""

from __future__ import annotations

from random import Random
from typing import Any

from nlc.equations import Call, Name, names, parse_call, to_text
from nlc.graph.fixed_parameters import fixed
from nlc.graph.nodes import Unit
from nlc.spec import load_rule, rules
from nlc.spec.rule import KEY, RuleSpec, rule_from
from nlc.spec.settings import tree_of
from nlc.variants.edits.draft import Draft, Fields, Place, Slot
from nlc.variants.edits.kind import Kind, Unchanged, among, becomes, other
from nlc.variants.edits.program import NOWHERE, Statement, mapped

PAIR = frozenset(("k", "v", "x", "error"))  # what a rule sees only where each pair is written alone
SHARES = (0.5, 0.8, 0.9, 0.95, 0.99)
OBJECTIVES = (
    "l2", "dot", "lp(3)", "lp(1.5)", "huber(1.0)", "huber(0.1)", "sum(tanh(M - v) ** 2)",
    "sum(softplus(M - v)) - sum(M) / 2",
)  # fmt: skip


# ---- the rule ------------------------------------------------------------------------------------------------------


def _rule_places(draft: Draft) -> list[Place]:
    """Levels and memories that a rule writes, and the levels that own ordinary weights."""
    outer = [Place(f"level '{level['name']}'", level, (), True) for level in draft.outer()]
    return [p for p in draft.places("rule") if all(s.tokens or s.steps for s in p.slots)] + [
        p for p in outer if str(p.fields.get("every")) != "never"
    ]


def _rule(draft: Draft, place: Place, rng: Random) -> str:
    old = str(place.fields.get("rule") or (place.slots[0].get("rule") if place.slots else None) or "gd")
    call = parse_call(old, NOWHERE)
    known = {name: load_rule(name) for name in rules()}
    known |= {name: rule_from(tree_of(said, NOWHERE), name) for name, said in own_rules(draft.document).items()}
    fitting = [name for name, rule in known.items() if name != call.func and _fits(draft, place, rule)]
    rule = known[among(rng, fitting)]
    given = _parameters(rule, rng)
    if (lr := call.keyword("lr")) is not None and "lr" in rule.params:
        given = {"lr": to_text(lr), **given}
    if not place.whole and "rate" in place.slots[0].level and "lr" not in given:  # its own rule inherits no rate
        place.fields.setdefault("rate", place.slots[0].level["rate"])
    new = f"{rule.name}({', '.join(f'{k}={v}' for k, v in given.items())})" if given else rule.name
    place.fields["rule"] = new
    if "lr" not in rule.params or ("lr" in given and not place.whole):
        place.fields.pop("rate", None)
    return becomes(place, "rule", old, new)


def own_rules(document: Fields) -> dict[str, Any]:
    """The rules that a document writes itself; those that are files are another's to read."""
    return {name: said for name, said in (document.get("rules") or {}).items() if isinstance(said, dict)}


def reads_of(rule: RuleSpec) -> set[str]:
    """The names that a rule's program reads of what it is given."""
    lines = [line for level in rule.levels for line in level.do]
    trees = [line.value for line in lines]
    trees += [tree for level in rule.levels for m in level.memories for tree in (m.keys, m.values, m.lr)]
    keys = {"k"} if KEY in rule.params.values() else set()
    return {name for tree in trees for name in names(tree)} | keys


def _fits(draft: Draft, place: Place, rule: RuleSpec) -> bool:
    """Whether what the rule reads is there: a pair of its own, or the inputs of layers outside of a walk."""
    asked = reads_of(rule)
    if not place.slots or any(slot.steps for slot in place.slots):
        return not asked & PAIR and not ("gram" in asked and draft.held())
    return all(not asked & PAIR or (alone(slot) and (not asked & {"k", "v"} or _matrix(slot))) for slot in place.slots)


def alone(slot: Slot) -> bool:
    """Whether each pair is written by itself."""
    period = slot.period
    return slot.pairs and period.count == 1 and period.unit is Unit.TOKEN and str(slot.get("window", 1)) == "1"


def _matrix(slot: Slot) -> bool:
    return str(slot.get("form")).strip() == "matrix"


def asks_for_pairs(draft: Draft, slot: Slot) -> bool:
    """Whether the memory's rule has to see each pair by itself."""
    call = parse_call(str(slot.get("rule", "gd")), NOWHERE)
    own = own_rules(draft.document)
    rule = rule_from(tree_of(own[call.func], NOWHERE), call.func) if call.func in own else load_rule(call.func)
    return bool(reads_of(rule) & PAIR)


def _parameters(rule: RuleSpec, rng: Random) -> dict[str, str]:
    """Some of a rule's parameters, near what they are without being given."""
    given = {}
    for name, default in rule.params.items():
        if name == "lr" or rng.randrange(3):
            continue
        interval = rule.ranges.get(name)
        match default:
            case bool():
                given[name] = "false" if default else "true"
            case int():
                given[name] = str(among(rng, [n for n in (2, 3, 5, 8) if interval is None or interval.holds(n)]))
            case float():
                near = [*SHARES, default / 2, default * 2] if 0.3 < default < 1 else [default / 2, default * 2]
                fits = [n for n in near if interval is None or interval.holds(n)]
                given |= {name: f"{among(rng, fits):.3g}"} if fits and name not in fixed(rule) else {}
    return given


# ---- the objective -------------------------------------------------------------------------------------------------


def _objective_places(draft: Draft) -> list[Place]:
    return [p for p in draft.places("objective") if all(s.tokens and not draft.nested(s) for s in p.slots)]


def _objective(draft: Draft, place: Place, rng: Random) -> str:
    old = str(place.said("objective", "l2"))
    if any(slot.loss for slot in place.slots):
        new = among(rng, OBJECTIVES)
        for slot in place.slots:
            _with_pairs(draft, slot)
    else:
        may = not draft.chained() and all(
            _leads_out(draft, slot) and not asks_for_pairs(draft, slot) for slot in place.slots
        )
        new = other(rng, [*OBJECTIVES, *(["loss"] * 2 if may else [])], old)
        for slot in place.slots if new == "loss" else ():
            _without_pairs(draft, slot)
    place.fields["objective"] = new
    return becomes(place, "objective", old, new)


def _leads_out(draft: Draft, slot: Slot) -> bool:
    """Whether within a token the memory's output leads to what leaves the block: there the token's own error comes."""
    if draft.graph.bare:
        return False
    return all(draft.leads_out(kind, slot.name) for kind in draft.kinds([slot]))


def _without_pairs(draft: Draft, slot: Slot) -> None:
    """Keys and values go; a width that followed from them is said; nobody reads what a token is only then writing."""
    fact = draft.fact(slot)
    draft.push(slot.level, "keys", "values", "window", "weigh")
    for name in ("keys", "values", "window", "weigh"):
        slot.drop(name)
    if fact.outer != fact.inner:
        slot.say(out=draft.size(fact.outer))
    if slot.get("read") == "after":
        slot.say(read="chunk")
    for program in draft.programs.values():
        program.change(lambda part: _unread(part, slot.name))


def _unread(part: Any, name: str) -> Call | None:
    if isinstance(part, Call) and part.func == name and part.keyword("read") == Name("after", NOWHERE):
        return Call(part.func, part.args, tuple(p for p in part.kwargs if p[0] != "read"), part.at)
    return None


def _with_pairs(draft: Draft, slot: Slot) -> None:
    """It learns to map what it is read with to itself, or to a projection of it that slower levels learn."""
    fact = draft.fact(slot)
    square = fact.inner == fact.outer
    if not square and slot.get("meta", "full") != "full":  # nothing would learn the projection
        raise Unchanged
    name = draft.free(f"{slot.name}_in")
    for kind in draft.kinds([slot]):
        program = draft.programs[kind]
        found = next(program.calls_of(slot.name), None)
        if found is None:
            raise Unchanged
        at, call = found
        query = call.args[0]

        def named(part: Any, call: Call = call) -> Call | None:
            if part == call:
                return Call(call.func, (Name(name, NOWHERE),), call.kwargs, call.at)
            return None

        program.statements[at] = program.statements[at].valued(mapped(program.statements[at].value, named))
        program.statements.insert(at, Statement.parse(f"{name} = {to_text(query)}"))
    slot.say(keys=f"l2norm({name})", values=name if square else f"linear({name}, out={draft.size(fact.outer)})")


RULE = Kind("rule", "a level or a memory is written by another update rule", _rule_places, _rule)
OBJECTIVE = Kind(
    "objective", "a write descends another inner loss, or the network's own", _objective_places, _objective
)
