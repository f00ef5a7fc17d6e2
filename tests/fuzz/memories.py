"""Levels of memories, drawn: what each says, and what the block must give them.

A family is one level of a spec.  Its memories have one role and one shape of heads:

    pairs       written by tokens from keys and values of their own
    loss        written by tokens from the network's error
    model       ordinary weights of a level that counts steps
    never       frozen weights
    attention   non-parametric

What a level says holds for its memories, and each may say some of it for itself.  Expressions of fields name values
that the block has to assign: `Plan.needs`, with their shapes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nlc.graph.fixed_parameters import fixed
from nlc.operators import Shape
from nlc.spec.fields import CARRIES, FORMS, OBJECTIVES, STARTS
from nlc.spec.rule import load_rule
from tests.fuzz.choices import Choose
from tests.fuzz.language import EXPRESSIONS, INVENTED, WRITTEN, call, choices, inner_rules, outer_rules, parameter

Fields = dict[str, Any]
PARAMETRIC = tuple(name for name in FORMS if name != "attention")
DEEP = ("mlp", "swiglu")


@dataclass(frozen=True)
class Frame:
    """What a memory may count on: sizes, whether there is a loss, tokens of a step."""

    sizes: Mapping[str, int]
    bare: bool
    batch: int = 1
    forms: dict[str, Any] = field(default_factory=dict)  # of its own, as far as memories use them
    rules: dict[str, Any] = field(default_factory=dict)  # likewise

    @property
    def step(self) -> int:
        return self.batch * self.sizes.get("context", 1)


@dataclass
class Plan:
    """One memory: its own fields, and what the block gives it."""

    name: str
    role: str
    fields: Fields
    query: Shape  # what it is read with
    gives: Shape
    keys: tuple[str, ...] = ()  # names of the block, one for each pair
    values: tuple[str, ...] = ()
    needs: dict[str, Shape] = field(default_factory=dict)  # other names of the block, unbounded
    key_shape: Shape = ()
    value_shape: Shape = ()
    late: bool = False  # its fields may name what the block assigns after a read of it
    reads: tuple[str, ...] = ("",)  # read=... of its calls in the block; "" says nothing


@dataclass
class Family:
    """One level: its fields, and its memories."""

    name: str
    fields: Fields
    plans: list[Plan]


@dataclass
class Drawing:
    """The fields of one level, drawn in groups that a memory may say anew for itself."""

    choose: Choose
    frame: Frame
    role: str
    heads: Shape
    inner: int
    plain: bool  # no weights in fields: nothing would train them under meta: none
    label: str
    deep: bool = False  # from zeros some of it would learn nothing
    pair: bool = False  # each pair is written alone, to a matrix
    needs: dict[str, Shape] = field(default_factory=dict)

    def gate(self, shape: Shape) -> str:
        name = f"{self.label}_{len(self.needs)}"
        self.needs[name] = shape
        return name

    def per_head(self) -> Shape:
        return self.choose.among([(), self.heads])

    def clock(self) -> Fields:
        n = self.choose.among([1, 1, 2, 3, 4, 5] if self.role == "pairs" else [2, 1, 3, 4, 5])
        chunk = n * self.choose.among([1, 1, 2, 3, 4])
        every = f"{n} token{'' if n == 1 else 's'}"
        return {"every": every} | ({"chunk": chunk} if chunk != n or self.choose.chance(30) else {})

    def rule(self, slow: float, outer: bool = False) -> Fields:
        """A rule with some of its parameters, and its rate: at most `slow`, a field or the rule's own lr."""
        choose = self.choose
        if choose.chance(8):
            name = choose.among(list(INVENTED))
            self.frame.rules[name] = INVENTED[name]
            return {"rule": name, "rate": str(choose.number(0.1 * slow, slow)) if outer else self.rate(slow)}
        name = choose.among(outer_rules(inputs=True) if outer else inner_rules(self.pair))
        rule = load_rule(name)
        given: dict[str, str] = {}
        for param in choose.some([p for p in rule.params if p != "lr"]):
            ours = isinstance(rule.params[param], float) and param in rule.ranges and param not in fixed(rule)
            if ours and not outer and choose.chance(25):
                given[param] = self.parameter_value(rule.params[param], rule.ranges[param])
            else:
                given[param] = parameter(choose, rule, param)
        rate = str(choose.number(0.1 * slow, slow)) if outer else self.rate(slow)
        fields: Fields = {}
        if choose.chance(25):
            given = {"lr": rate, **given}
        else:
            fields["rate"] = rate
        words = ", ".join(f"{k}={v}" for k, v in given.items())
        if name != "gd" or given or choose.chance(60):
            fields["rule"] = f"{name}({words})" if words else name
        return fields

    def parameter_value(self, default: float, interval: Any) -> str:
        """A parameter of a rule that is a value of the block."""
        x = self.gate(self.per_head())
        if interval.high == float("inf"):
            return f"{default} * (1 + sigmoid({x}))"
        if interval.low < 0 and self.choose.chance(40):
            return f"0.8 * tanh({x})"
        if not self.plain and self.choose.chance(30):
            return f"learned({default * 0.6:.2g})"
        return f"{0.5 + 0.4 * (default > 0.5)} * sigmoid({x})"

    def rate(self, slow: float) -> str:
        choose, most = self.choose, self.choose.number(0.3 * slow, slow)
        kind = choose.among(["number", "learned", "gate", "linear"])
        if kind == "learned" and not self.plain:
            return f"learned({most})"
        if kind == "linear" and not self.plain:
            return f"{most} * sigmoid(linear({self.gate((*self.heads, self.inner))}, out=1))"
        if kind != "number":
            return f"{most} * sigmoid({self.gate(self.per_head())})"
        return choose.plain(0.3 * slow, slow) or str(most)

    def retention(self) -> Fields:
        """The share kept, where the rest goes, and at which of both states the gradient is taken."""
        choose = self.choose
        kind = choose.among(["none", "none", "number", "learned", "gate", "linear", "channel", "product"])
        if kind == "none":
            return {}
        if kind == "learned" and not self.plain:
            retain: Any = "learned(0.7)"
        elif kind == "linear" and not self.plain:
            retain = f"sigmoid(linear({self.gate((*self.heads, self.inner))}, out=1) + 3)"
        elif kind == "channel":
            retain = f"sigmoid({self.gate((*self.heads, self.inner))} + 2)"
        elif kind == "product":
            retain = f"min(relu(0.8 + {self.gate(self.per_head())}), 1) * 0.95"
        elif kind == "gate":
            retain = f"sigmoid({self.gate(self.per_head())} + {choose.among([1, 3])})"
        else:
            retain = choose.plain(0.4, 1) or choose.among([0.9, 1, 0.5, 0.99, 0])
        fields: Fields = {"retain": retain}
        if choose.chance(40):
            fields["retain_to"] = choose.among(choices("retain_to"))
        if choose.chance(25):
            fields["grad_at"] = choose.among(choices("grad_at"))
        return fields

    def objective(self) -> Fields:
        choose = self.choose
        kind = choose.among([*(n for n in OBJECTIVES if n != "loss"), "expression", "unsaid"])
        if kind == "unsaid":
            return {}
        if kind == "expression":
            text = choose.among(EXPRESSIONS)
            shape = self.per_head()
            if "sum((M - v) ** 2 * {g})" in text:
                shape = choose.among([(), self.heads])
            return {"objective": text.format(g=f"{self.gate(shape)}" if "{g}" in text else "")}
        if kind == "huber" and choose.chance(30):
            return {"objective": f"huber(0.1 + sigmoid({self.gate(self.per_head())}))"}
        return {"objective": call(choose, "objective", kind, OBJECTIVES[kind])}

    def through(self) -> Fields:
        """meta and start, which depend on each other."""
        meta = self.choose.among([m for m in choices("meta") if m != "none" or (self.plain and not self.deep)])
        fields: Fields = {"meta": meta} if meta != "full" or self.choose.chance(30) else {}
        return fields | self.start(meta == "none")

    def start(self, trained_by_nothing: bool = False) -> Fields:
        names = [s for s in STARTS if s not in ("random", "from", "identity", *(("zeros",) if self.deep else ()))]
        name = self.choose.among(["zeros"] if trained_by_nothing else names)
        text = call(self.choose, "start", name, STARTS[name])
        if "identity" in text:  # for a matrix alone: see own_start
            text = name
        return {"start": text} if text != "learned" or self.choose.chance(30) else {}

    def own_start(self, form: str, meta: str, square: bool) -> Fields:
        """A matrix may begin as the identity."""
        if form != "matrix" or not square or not self.choose.chance(25):
            return {}
        return {"start": self.choose.among(["identity", "learned(identity)"] if meta != "none" else ["identity"])}

    def word(self, name: str, percent: int) -> Fields:
        """A field that is one of some words."""
        return {name: self.choose.among(choices(name))} if self.choose.chance(percent) else {}

    def carry(self) -> Fields:
        carries = [c for c in CARRIES if c != "model"]
        return {"carry": self.choose.among(carries)} if self.choose.chance(30) else {}


def family(choose: Choose, frame: Frame, role: str, label: str, names: list[str]) -> Family:
    """A level of one role, with as many memories as names."""
    heads: Shape = choose.among([(frame.sizes["heads"],), (frame.sizes["heads"],), ()])
    widths = [frame.sizes["head"] if heads else frame.sizes["width"], 3, 4]
    inner = choose.among(widths)
    match role:
        case "attention":
            return _attention(choose, frame, label, names, heads, inner, choose.among(widths))
        case "nested":
            return _nested(choose, frame, label, names, heads, inner)
        case "model" | "never":
            return _unwritten(choose, frame, role, label, names, heads, inner)
    return _written(choose, frame, role, label, names, heads, inner, widths)


def _written(
    choose: Choose, frame: Frame, role: str, label: str, names: list[str], heads: Shape, inner: int, widths: list[int]
) -> Family:
    """Memories that tokens write."""
    forms = [choose.among([*PARAMETRIC, *PARAMETRIC, *WRITTEN]) for _ in names]
    frame.forms.update({form: WRITTEN[form][0] for form in forms if form in WRITTEN})
    deep, matrices = any(f in DEEP or f in WRITTEN for f in forms), all(f in ("matrix", "vector") for f in forms)
    dead = deep or role == "loss"  # read with its own read, a memory of zeros learns nothing, and rounding decides
    drawing = Drawing(choose, frame, role, heads, inner, choose.chance(20), label, dead)
    slow = 0.08 if deep or role == "loss" else 0.3
    groups = {
        "clock": drawing.clock,
        "rule": lambda: drawing.rule(slow / 2),
        "retention": lambda: _channels(drawing.retention, matrices),
        "objective": drawing.objective if role == "pairs" else lambda: {"objective": "loss"},
        "through": drawing.through,
        "read": lambda: _read(drawing, role),
        "carry": drawing.carry,
        "tail": lambda: drawing.word("tail", 25),
    }
    shared: Fields = {}
    for name, group in groups.items():
        shared |= group()
        if name == "clock":
            drawing.pair = role == "pairs" and shared["every"] == "1 token" and all(f == "matrix" for f in forms)
    plans = []
    same = role == "pairs" and choose.chance(40)
    for name, form in zip(names, forms, strict=True):
        own: Fields = {"form": call(choose, "form", form, FORMS.get(form, ()))}
        for label_, group in groups.items():
            if label_ == "clock" and drawing.pair:
                continue
            if len(names) > 1 and label_ != "objective" * (role == "loss") and choose.chance(15):
                own |= _own(label_, group(), shared)
        if form in DEEP and choose.chance(30):
            own["normalise_hidden"] = choose.chance(70)
        square = form == "vector" or (form in WRITTEN and WRITTEN[form][1])
        outer = inner if square or role == "loss" else choose.among([inner, *widths])
        own |= drawing.own_start(form, (shared | own).get("meta", "full"), inner == outer)
        plan = Plan(name, role, own, (*heads, inner), (*heads, outer))
        if role == "loss" and form in ("matrix", *DEEP) and choose.chance(20):
            own["out"] = outer = choose.whole(2, 5)
            plan.gives = (*heads, outer)
        if role == "pairs":
            _pairs(choose, frame, plan, same, plans)
            if (shared | own)["every"] == "1 token" and own["values"] in plan.values and choose.chance(20):
                own["window"] = choose.whole(2, 4)
                if choose.chance(50):
                    own["weigh"] = choose.among([0.5, f"sigmoid({drawing.gate(drawing.per_head())})"])
        plan.reads = _calls(choose, (shared | own).get("read", "chunk"), role)
        plan.late = "after" not in (*plan.reads, (shared | own).get("read")) and choose.chance(60)
        if plan.late and role == "pairs" and inner != outer:
            own["out"] = outer  # a memory in its own values is square unless this says otherwise
        plans.append(plan)
    if same and choose.chance(50) and all(p.keys == plans[0].keys for p in plans):
        shared["keys"] = plans[0].fields.pop("keys")
        for plan in plans[1:]:
            plan.fields.pop("keys")
    for plan in plans:
        plan.needs = drawing.needs
    return Family(label, shared, plans)


def _channels(draw: Any, legal: bool) -> Fields:
    """Retention by key channel is for matrices and vectors."""
    found: Fields = draw()
    while not legal and "linear" not in str(found.get("retain")) and "+ 2)" in str(found.get("retain")):
        found = draw()
    return found


def _read(drawing: Drawing, role: str) -> Fields:
    words = [w for w in choices("read") if role == "pairs" or w != "after"]
    return {"read": drawing.choose.among(words)} if drawing.choose.chance(50) else {}


def _own(group: str, said: Fields, shared: Fields) -> Fields:
    """What a memory says for itself beside its level's: whole groups, so that what it takes from both is legal."""
    if group == "clock":
        return {"chunk": int(said["every"].split()[0]), **said}
    if group == "rule":
        return {"rule": "gd", **said}
    if group == "through" and said.get("meta", "full") != "none" and shared.get("meta") == "none":
        return {"meta": "none", "start": "zeros"}
    if group == "through":
        return {"meta": "full", "start": "learned", **said}
    if group == "retention" and ("retain_to" in said or "grad_at" in said or said):
        return said
    return said


def _calls(choose: Choose, read: str, role: str) -> tuple[str, ...]:
    """How often the block reads a memory, and from which state where a call says so."""
    words = ["", "", *(w for w in choices("read") if role == "pairs" or w != "after")]
    return tuple(choose.among(words) for _ in range(choose.among([1, 1, 2])))


def _pairs(choose: Choose, frame: Frame, plan: Plan, same: bool, before: list[Plan]) -> None:
    """Keys and values: names of the block, one pair or two; values that the memory makes itself."""
    heads, inner, outer = plan.query[:-1], plan.query[-1], plan.gives[-1]
    plan.key_shape, plan.value_shape = plan.query, plan.gives
    if same and before and before[0].gives == plan.gives:
        plan.keys, plan.values, plan.key_shape = before[0].keys, before[0].values, before[0].key_shape
    else:
        count = choose.among([1, 1, 1, 1, 2])
        plan.keys = tuple(f"k_{plan.name}{i or ''}" for i in range(count))
        plan.values = tuple(f"v_{plan.name}{i or ''}" for i in range(count))
        if heads and heads[0] % 2 == 0 and choose.chance(15):
            plan.key_shape = (heads[0] // 2, inner)
    own = inner == outer and plan.key_shape == plan.query and choose.chance(30)
    values = [f"{plan.name}({v})" if own else v for v in plan.values]
    one = len(values) == 1
    plan.fields |= {"keys": plan.keys[0] if one else list(plan.keys), "values": values[0] if one else values}


def _attention(
    choose: Choose, frame: Frame, label: str, names: list[str], heads: Shape, inner: int, outer: int
) -> Family:
    plans = []
    for name in names:
        plan = Plan(name, "attention", {"form": call(choose, "form", "attention", FORMS["attention"])},
                    (*heads, inner), (*heads, outer), (f"k_{name}",), (f"v_{name}",))  # fmt: skip
        plan.key_shape = plan.query
        if heads and heads[0] % 2 == 0 and choose.chance(20):
            plan.key_shape = (heads[0] // 2, inner)
        plan.value_shape = (*plan.key_shape[:-1], outer)
        plan.fields |= {"keys": plan.keys[0], "values": plan.values[0]}
        if "window" in plan.fields["form"] or "segment" in plan.fields["form"]:
            plan.fields |= {"carry": "stream"} if choose.chance(30) else {}
        plans.append(plan)
    return Family(label, {}, plans)


def _nested(choose: Choose, frame: Frame, label: str, names: list[str], heads: Shape, inner: int) -> Family:
    """Memories whose state begins again at each update of the next, which holds their start."""
    drawing = Drawing(choose, frame, "loss", heads, inner, False, label)
    shared: Fields = {"objective": "loss", **drawing.rule(0.04)} | drawing.word("meta", 0)
    plans, period = [], choose.whole(1, 2)
    for i, name in enumerate(names):
        form = choose.among([f for f in PARAMETRIC if f != "vector"])
        own: Fields = {
            "form": call(choose, "form", form, FORMS[form]),
            "every": f"{period} token{'' if period == 1 else 's'}",
        }
        period *= choose.whole(2, 3)
        if i + 1 < len(names):
            own["carry"] = names[i + 1]
        plans.append(Plan(name, "loss", own, (*heads, inner), (*heads, inner)))
    for plan in plans:
        plan.needs = drawing.needs
    return Family(label, shared, plans)


def _unwritten(
    choose: Choose, frame: Frame, role: str, label: str, names: list[str], heads: Shape, inner: int
) -> Family:
    """Weights: of a level that counts steps, or that nothing writes."""
    drawing = Drawing(choose, frame, role, heads, inner, True, label)
    if role == "never":
        shared: Fields = {"every": "never"}
    else:
        n = choose.whole(1, 3)
        every = [f"{n} step{'' if n == 1 else 's'}", f"{n * frame.step} tokens", f"{n * frame.batch} sequences"]
        shared = {"every": choose.among(every), "carry": "model", "objective": "loss", **drawing.rule(0.01, outer=True)}
    plans = []
    for name in names:
        form = choose.among(PARAMETRIC)
        own: Fields = {"form": call(choose, "form", form, FORMS[form])}
        if form in DEEP and choose.chance(30):
            own["normalise_hidden"] = True
        outer = inner
        if form != "vector" and choose.chance(20):
            own["out"] = outer = choose.whole(2, 5)
        if role == "model" and choose.chance(30):
            own["start"] = choose.among(["random", "learned", "zeros"])
        plans.append(Plan(name, role, own, (*heads, inner), (*heads, outer), reads=("",) * choose.among([1, 1, 2])))
    return Family(label, shared, plans)
