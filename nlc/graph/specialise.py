"""A rule's program with its parameters known: a choice that a parameter decides is made once, not at every update.

specialise(do, {"nesterov": True, ...}) -> do        where(nesterov, a, b) becomes a
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import replace
from typing import Any

from nlc.constants import constant
from nlc.equations import Assign, Binary, Call, Compare, Expr, ListOf, Name, Slice, Unary, names
from nlc.graph.nodes import Rule


def specialise(do: tuple[Assign, ...], params: Mapping[str, Any], keys: Set[str] = frozenset()) -> tuple[Assign, ...]:
    """Each statement with its `where` of a constant condition replaced by the branch that holds, and with `k` for the
    parameters `keys`, which are the pair's key."""
    numbers = {name: int(x) if isinstance(x, bool) else x for name, x in params.items() if isinstance(x, int | float)}
    written = {target for line in do for target in line.targets}
    known = {name: x for name, x in numbers.items() if name not in written}
    return tuple(replace(line, value=_chosen(line.value, known, keys)) for line in do)


def _chosen(tree: Expr, known: Mapping[str, Any], keys: Set[str]) -> Expr:
    match tree:
        case Name(id=name) if name in keys:
            return replace(tree, id="k")
        case Call(func="where", args=(condition, yes, no)):
            number = constant(condition, known)
            if number is not None:
                return _chosen(yes if number else no, known, keys)
    match tree:
        case Call():
            kwargs = tuple((name, _chosen(value, known, keys)) for name, value in tree.kwargs)
            return replace(tree, args=tuple(_chosen(arg, known, keys) for arg in tree.args), kwargs=kwargs)
        case Unary() | Slice():
            return replace(tree, value=_chosen(tree.value, known, keys))
        case Binary() | Compare():
            return replace(tree, left=_chosen(tree.left, known, keys), right=_chosen(tree.right, known, keys))
        case ListOf():
            return replace(tree, items=tuple(_chosen(item, known, keys) for item in tree.items))
    return tree


def reads(rule: Rule) -> set[str]:
    """What a rule reads of what it is given."""
    read = {name for level in rule.levels for line in level.do for name in names(line.value)}
    read |= {str(p.number) for p in rule.params if p.value and p.number == "k"}  # a vector beside the pair's key
    own = {name for level in rule.levels for name in (*level.state, *(t for line in level.do for t in line.targets))}
    return read - own


def sets_weight(rule: Rule) -> bool:
    """Whether every update sets the weight, so that the rule itself decides what is kept."""
    return any("weight" in line.targets for level in rule.levels if level.period == 1 for line in level.do)


def keeps_no_share(rule: Rule) -> bool:
    """Whether every update sets the weight without a look at the share that is kept, which says nothing then."""
    return sets_weight(rule) and "retain" not in reads(rule)
