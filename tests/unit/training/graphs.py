"""Small graphs with levels that count steps, written by hand: what the generator of train.py looks at, no more."""

from __future__ import annotations

from collections.abc import Sequence

from nlc.equations import parse_block
from nlc.graph.choices import rule_of
from nlc.graph.graph import Graph
from nlc.graph.nodes import (
    AnyNode,
    Form,
    Level,
    Memory,
    Objective,
    Param,
    Period,
    Rule,
    RuleLevel,
    Run,
    Selection,
    Unit,
    Weight,
)
from nlc.source import Position
from nlc.spec.rule import load_rule

FILE = "specs/architectures/tiny.yaml"


def at(line: int) -> Position:
    return Position(FILE, line, 3)


def shipped(name: str, **given: object) -> Rule:
    """A rule of specs/rules, as a pass would put it into the graph."""
    spec = load_rule(name)
    return rule_of(spec, {name: Param(name=name, number=value) for name, value in given.items()})


def program(text: str, *, name: str = "own", state: Sequence[str] = (), period: int = 1, **params: object) -> Rule:
    """A rule with one level, from its program."""
    level = RuleLevel(period=period, state=tuple(state), do=parse_block(text, Position("own.yaml", 1, 1)))
    return Rule(name=name, params=tuple(Param(name=n, number=v) for n, v in params.items()), levels=(level,))


def weight(path: str, owner: str, decay: bool = False, block: str = "block") -> Weight:
    return Weight(id=f"w:{path}", at=at(40), block=block, path=path, shape=(4, 4), decay=decay, owner=owner)


def level(name: str, steps: int, rule: Rule, rate: float, line: int, weights: Sequence[str], index: int) -> Level:
    return Level(
        id=name, at=at(line), name=name, period=Period(steps, Unit.STEP), objective="loss", rule=rule, rate=rate,
        index=index, weights=tuple(weights), selects=(Selection(patterns=("*",), at=at(line)),) * (name == "train"),
        said=(("every", at(line + 1)), ("rule", at(line + 2))),
    )  # fmt: skip


def memory(name: str, owner: str, period: Period, **fields: object) -> Memory:
    return Memory(
        id=f"{owner}.{name}", at=at(9), block="block", name=name, level=owner, form=Form(kind="matrix"),
        objective=Objective(kind="l2"), rule=shipped("dgd"), period=period, **fields,
    )  # fmt: skip


def graph(nodes: Sequence[AnyNode], stack: Sequence[str] = ("block", "block"), **run: object) -> Graph:
    return Graph(
        name="tiny", file=FILE, doc="A small thing.", sizes={"width": 4, "vocab": 256, "context": 16, "layers": 2},
        run=Run(batch=2, steps=30, warmup=3, **run), stack=tuple(stack), tied=True, bare=False,
        nodes={node.id: node for node in nodes},
    )  # fmt: skip


def two_levels(**run: object) -> Graph:
    """HOPE's outside: most weights every step, one memory every second step, and a level inside the sequence."""
    train = [weight("q.linear", "train", True), weight("h.conv", "train"), weight("titans.key.start", "train")]
    frame = [weight("embedding", "train", block=""), weight("rmsnorm", "train", block="")]
    slow = [weight("cms.slow.W_in", "cms.slow", True), weight("cms.slow.b_in", "cms.slow")]
    token = Period(1, Unit.TOKEN)
    inside = Level(id="titans", at=at(8), name="titans", period=token, index=1, memories=("titans.key",))
    adamw = shipped("adamw", betas=(0.9, 0.95), weight_decay=0.1)
    nodes = [
        *frame, *train, *slow, memory("key", "titans", token), inside,
        level("train", 1, adamw, 1e-3, 30, [w.id for w in (*frame, *train)], 2),
        level("cms.slow", 2, shipped("adamw"), 3e-4, 27, [w.id for w in slow], 3),
    ]  # fmt: skip
    return graph(nodes, **run)
