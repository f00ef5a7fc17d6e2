"""Legal programs: `program(choose)` of tokens, `layer(choose)` bare ones; `drawn(program)` is the hypothesis strategy.

Every program of tokens has two layers or more, two heads or more, and a level that tokens write often enough to fire
several times.  Whatever is drawn is legal by how it is drawn, never by being tried: a spec that the compiler refuses is
a disagreement.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nlc.operators import Shape
from nlc.spec.fields import CARRIES
from tests.fuzz.choices import Choose
from tests.fuzz.equations import Equations
from tests.fuzz.language import outer_rules
from tests.fuzz.memories import Drawing, Family, Frame, Plan, family
from tests.fuzz.program import Drawn, Feeding

# Names that mean something to Python, to torch modules or to the generated file, among plain ones.
MEMORIES = "m n slow_ fast key value eta forward state items T update clock F held final torch_ memory".split()
VALUES = (
    "a b c d e f g p q r s t y z learn past self_ training type print modules shape B N data out u1 u2 weight float_ "
    "a1 b1 c1 d1 e1 f1 g1 p1 q1 r1 s1 t1 y1 z1 a2 b2 c2 d2 e2 f2 g2 p2 q2 r2 s2 t2 y2 z2 a3 b3 c3 d3 e3 f3 g3 p3 q3"
).split()
LEVELS = ["lv0", "cms", "lane", "start", "parameters", "titans"]
FIRES = 3  # times the fastest level writes, at least


def program(choose: Choose) -> Drawn:
    """A program of tokens."""
    heads = choose.among([2, 2, 2, 4])
    head = choose.among([2, 3, 4]) if heads == 2 else 2
    stack = choose.among([[], [], [], [], ["one", "two"], ["two", "one"], ["one", "2 * two"], ["one", "two", "one"]])
    layers = len(stack) + ("2 * two" in stack) or choose.among([2, 2, 2, 3])
    if len(stack) == layers == 2:
        layers = choose.among([2, 2, 2, 4])
    sizes = {
        "width": heads * head,
        "heads": heads,
        "layers": layers,
        "vocab": choose.whole(5, 11),
        "context": 4 * choose.whole(4, 10),
    }
    batch = choose.whole(1, 3)
    if choose.chance(20):
        sizes["rank"] = choose.whole(2, 4)
    known = {**sizes, "head": head}
    frame = Frame(known, False, batch)
    families = _families(choose, frame)
    spec: dict[str, Any] = {"nlc": 1, "name": "drawn", "sizes": sizes, "run": {"batch": batch}}
    if choose.chance(25):
        spec["tied"] = False
    kinds = ["one", "two"] if stack else ["block"]
    spec["levels"] = [*(_level(f) for f in families), *_outer(choose)]
    spec |= _own(frame)
    streams: dict[str, Shape] = {"s0": choose.among([(heads, head), (known["width"],)])} if choose.chance(25) else {}
    if streams:
        spec["streams"] = {name: list(shape) for name, shape in streams.items()}
    readers = _readers(choose, kinds, families)
    texts = {kind: _block(choose, known, readers[kind], streams, kind == kinds[0]) for kind in kinds}
    spec |= {"blocks": texts, "stack": stack} if stack else {"block": texts["block"]}
    if "2 * two" in stack and choose.chance(40):
        del sizes["layers"]
    return Drawn(spec, _feeding(choose, families, bare=False))


def layer(choose: Choose) -> Drawn:
    """A bare program: a layer for someone's own model."""
    heads, head = 2, choose.among([2, 3, 4])
    sizes = {"width": heads * head, "heads": heads}
    known = {**sizes, "head": head}
    frame = Frame(known, True)
    families = _families(choose, frame)
    inputs: dict[str, list[str | int]] = {"x": ["width"]}
    more: dict[str, list[str | int]] = {"u": ["heads", "head"], "gain": [], "share": ["heads"], "w": ["width"]}
    inputs |= {name: more[name] for name in choose.some(list(more))}
    plans = [plan for f in families for plan in f.plans]
    shapes: dict[str, Shape] = {n: tuple(known[a] for a in axes) for n, axes in inputs.items()}  # type: ignore[index]
    block, outputs = _layer(choose, known, plans, shapes)
    spec = {"nlc": 1, "name": "drawn_layer", "sizes": sizes, "inputs": inputs,
            **_own(frame),
            "levels": [_level(f) for f in families], "block": block, "outputs": outputs}  # fmt: skip
    return Drawn(spec, _feeding(choose, families, bare=True))


# ---- levels ---------------------------------------------------------------------------------------------------------


def _families(choose: Choose, frame: Frame) -> list[Family]:
    """Levels of memories; one at least is written by tokens."""
    roles = [choose.among(["pairs", "pairs", "cell", "loss"] if not frame.bare else ["pairs", "pairs", "cell"])]
    others = ["pairs", "attention", "never", *([] if frame.bare else ["loss", "model", "nested"])]
    roles += [choose.among(others) for _ in range(choose.among([0, 1, 1, 2]))]
    if roles.count("loss") > 1:
        roles = [r for i, r in enumerate(roles) if r != "loss" or i == roles.index("loss")]
    roles = [r for i, r in enumerate(roles) if r != "nested" or ("loss" not in roles and i == roles.index("nested"))]
    names, labels = choose.shuffled(MEMORIES), choose.shuffled(LEVELS)
    found, at = [], 0
    for label, role in zip(labels, roles, strict=False):
        count = choose.among([1, 1, 2, 3] if role == "pairs" else [2, 2, 3] if role == "nested" else [1, 1, 2])
        if role == "cell":
            found.append(_cell(choose, frame, label))
        else:
            found.append(family(choose, frame, role, label, names[at : at + count]))
        at += count
    if {"loss", "nested"} & set(roles):
        _one_after(found)
    return found


def _one_after(families: list[Family]) -> None:
    """Beside a token's own error a memory is read once after its write: the second might be asked with the first."""
    for one in families:
        for plan in one.plans:
            default = (one.fields | plan.fields).get("read", "chunk")
            if sum((when or default) == "after" for when in plan.reads) > 1:
                plan.reads = plan.reads[:1]


def _cell(choose: Choose, frame: Frame, label: str) -> Family:
    """Self-referential memories: boxes that make the keys, values, rate and retention they are written with."""
    n, head = frame.sizes["heads"], frame.sizes["head"]
    drawing = Drawing(choose, frame, "pairs", (n,), head, False, label)
    boxes = ["box_k", *choose.some(["box_v", "box_e", "box_a"]), "box_m"]
    shared: dict[str, Any] = {"every": "1 token", "chunk": choose.among([4, 1, 2, 3, 5])}
    shared["rule"] = choose.among(["dgd", "dgd", "gd", "momentum(beta=0.5)"])
    rate, keep = choose.number(0.1, 0.4), choose.among([2, 4])
    shared["rate"] = f"{rate} * sigmoid(linear(box_e(u), out=1))" if "box_e" in boxes else rate
    if "box_a" in boxes:
        shared["retain"] = f"sigmoid(linear(box_a(u), out=1) + {keep})"
    elif choose.chance(50):
        shared["retain"] = 0.9
    if "retain" in shared and choose.chance(60):
        shared["retain_to"] = "start"
    if "retain" in shared and choose.chance(15):
        shared["grad_at"] = "kept"
    if choose.chance(25):
        shared["objective"] = "dot"
    shared |= drawing.carry() | drawing.word("tail", 15)
    plans = []
    for name in boxes:
        own: dict[str, Any] = {"form": "matrix"}
        if name == "box_m" and choose.chance(35):
            own["form"] = choose.among(["mlp(hidden=1x)", "vector", "mlp(hidden=2x, bias=true)"])
            if own["form"].startswith("mlp"):
                own |= {"rate": 0.05} if choose.chance(50) else {"normalise_hidden": True}
        if name == "box_m" and choose.chance(15):
            own["rule"], own["rate"] = "gd", 0.1
        if choose.chance(10):
            own["chunk"] = choose.among([2, 6])
        own |= {"keys": "k_box", "values": f"{name}(v_box)" if choose.chance(85) else "v_box"}
        plans.append(Plan(name, "cell", own, (n, head), (n, head)))
    for plan in plans:
        plan.needs = drawing.needs
    return Family(label, shared, plans)


def _own(frame: Frame) -> dict[str, Any]:
    """Forms and rules of its own."""
    return {name: said for name, said in (("forms", frame.forms), ("rules", frame.rules)) if said}


def _level(found: Family) -> dict[str, Any]:
    return {"name": found.name, **found.fields, "memories": {plan.name: plan.fields for plan in found.plans}}


def _outer(choose: Choose) -> list[dict[str, Any]]:
    """The levels that own ordinary weights."""

    def level(name: str, memories: Any) -> dict[str, Any]:
        n = choose.among([1, 1, 2, 3])
        rule = choose.among(outer_rules())
        said = {"rule": rule, "rate": 0.001} if choose.chance(30) else {"rule": f"{rule}(lr=0.001)"}
        return {
            "name": name,
            "every": f"{n} step{'' if n == 1 else 's'}",
            "objective": "loss",
            **said,
            "memories": memories,
        }

    found = []
    if choose.chance(20):
        found.append(
            level("first", choose.among(["select(embedding)", "select(*norm)", "select(*, rank=2, except=*.linear)"]))
        )
    if choose.chance(15) and not found:
        found.append({"name": "frozen", "every": "never", "memories": "select(embedding)"})
    return [*found, level("train", "rest")]


# ---- blocks ---------------------------------------------------------------------------------------------------------


def _readers(choose: Choose, kinds: list[str], families: list[Family]) -> dict[str, list[Plan]]:
    """Which kind of block reads which memories; each is read by one at least, boxes by all."""
    found: dict[str, list[Plan]] = {kind: [] for kind in kinds}
    for one in families:
        whole = choose.some(kinds, least=1)
        nested = any(plan.fields.get("carry", "sequence") not in CARRIES for plan in one.plans)
        for plan in one.plans:
            for kind in whole if nested or plan.role in ("cell", "pairs") else choose.some(kinds, least=1):
                found[kind].append(plan)
    return found


def _names(taken: set[str]) -> Iterator[str]:
    return (name for name in VALUES if name not in taken)


def _block(choose: Choose, sizes: dict[str, int], plans: list[Plan], streams: dict[str, Shape], assigns: bool) -> str:
    """The equations of a block of tokens.  `assigns`: what it makes flows on in the streams."""
    width = sizes["width"]
    block = Equations(choose, sizes, {"x": (width,)}, _names({p.name for p in plans}))
    first = choose.among(["rmsnorm(x)", "conv(rmsnorm(x), 3)", "layernorm(x)", "rmsnorm(linear(x))", "conv(x, 2)"])
    block.assign(first, (width,), "h")
    block.assign("heads(h)", (sizes["heads"], width // sizes["heads"]), "u")
    del block.values["x"]
    block.values |= streams
    block.loose |= streams
    _body(choose, block, plans)
    block.loose.pop("h", None)
    for name, shape in streams.items() if assigns else ():
        block.lines.append(f"later_{name} = tanh({block.fitted(shape)[0]})")
    if choose.chance(30):
        block.lines.append(f"x = x + linear({block.joined((width,))})")
        block.assign("rmsnorm(x)", (width,))
        block.line()
        block.lines.append(f"x = x + {block.joined((width,))}")
    else:
        last = block.joined((width,))
        block.lines.append(
            f"x = x + {choose.among([f'linear({last})', f'linear(rmsnorm({last}))', f'dropout(linear({last}), 0)'])}"
        )
    block.lines += [f"{name} = later_{name}" for name in streams if assigns]
    return "\n".join(block.lines) + "\n"


def _layer(choose: Choose, sizes: dict[str, int], plans: list[Plan], inputs: dict[str, Shape]) -> tuple[str, list[str]]:
    """The equations of a bare program, and what it returns."""
    block = Equations(choose, sizes, dict(inputs), _names({p.name for p in plans} | set(inputs)))
    block.loose = dict(inputs)
    block.assign("tanh(x)" if choose.chance(50) else "rmsnorm(x)", inputs["x"], "h")
    if "u" not in inputs:
        block.assign("heads(h)", (sizes["heads"], sizes["head"]), "u")
    _body(choose, block, plans)
    outputs = choose.some(list(block.loose), least=1, most=2)
    outputs = [name for name in outputs if name not in inputs]
    for name in outputs:
        del block.loose[name]
    if block.loose or not outputs:
        outputs.append(block.assign(block.joined(()) if choose.chance(20) else block.joined((sizes["width"],)), ()))
    return "\n".join(block.lines) + "\n", outputs


def _body(choose: Choose, block: Equations, plans: list[Plan]) -> None:
    """The memories' reads, what their fields need, and other equations between them."""
    cell = [plan for plan in plans if plan.role == "cell"]
    rest = choose.shuffled([plan for plan in plans if plan.role != "cell"])
    if cell:
        _boxes(choose, block, cell)
    for plan in rest:
        for _ in range(choose.among([0, 0, 1, 2])):
            block.line()
        if not plan.late:
            _given(choose, block, plan)
        reads = [_read(choose, block, plan, when) for when in plan.reads]
        if plan.late:
            _given(choose, block, plan, reads)
        elif plan.role == "loss":
            for name in reads:  # the error comes back along what the token computes of it
                block.loose[name] = block.values[name]
    for _ in range(choose.among([0, 1, 2])):
        block.line()


def _given(choose: Choose, block: Equations, plan: Plan, reads: list[str] | None = None) -> None:
    """Keys, values and whatever else the fields of a memory name."""
    for name in plan.keys:
        if name not in block.values:
            own = [r for r in reads or () if block.values[r]]
            if own and choose.chance(50):
                value = block.turned(own[0], block.values[own[0]], plan.key_shape)
            else:
                value = block.fit(plan.key_shape)
            block.assign(
                choose.among([f"l2norm({value})", f"l2norm({value})", f"tanh({value}) * 0.5", f"softmax({value})"]),
                plan.key_shape,
                name,
            )
    for name in plan.values:
        if name not in block.values:
            block.assign(block.bounded(plan.value_shape), plan.value_shape, name)
    for name, shape in plan.needs.items():
        if name not in block.values:
            value = "" if shape else choose.plain(-0.9, 0.9)
            block.assign(value or f"tanh({block.fit(shape)})", shape, name)


def _read(choose: Choose, block: Equations, plan: Plan, when: str) -> str:
    """A call of a memory."""
    said = f", read={when}" if when else ""
    query = block.fit(plan.query)
    query = choose.among([query, f"l2norm({query})", f"tanh({query})"])
    return block.assign(f"{plan.name}({query}{said})", plan.gives)


def _boxes(choose: Choose, block: Equations, cell: list[Plan]) -> None:
    shape = cell[0].query
    key = block.assign(f"l2norm(box_k({choose.among(['u', 'linear(u)', 'tanh(u)'])}))", shape, "k_box")
    made = (
        "box_v(u)" if any(p.name == "box_v" for p in cell) else choose.among(["linear(u)", "u", f"linear({key}) + u"])
    )
    block.assign(choose.among([f"l2norm({made})", f"tanh({made})"]), shape, "v_box")
    when = choose.among(["", "", "", ", read=before", ", read=after"])
    block.assign(f"box_m({choose.among(['l2norm(linear(u))', key, 'u'])}{when})", shape)


# ---- feeding --------------------------------------------------------------------------------------------------------


def _feeding(choose: Choose, families: list[Family], bare: bool) -> Feeding:
    """As many tokens as make a level fire several times, cut somewhere; borders and padding."""
    periods = [int(str(every).split()[0]) for f in families for every in _every(f) if "token" in str(every)]
    least = FIRES * min([p for p in periods if p < 9] or [1])
    length = max(least, choose.whole(9, 14)) + (3 if bare else 0)
    batch = choose.among([1, 1, 2])
    cuts = choose.some(range(1, length), least=1, most=4)
    pieces = tuple(b - a for a, b in zip([0, *cuts], [*cuts, length], strict=True))
    learn: bool | tuple[int, ...] = choose.among([True, True, True, True, False, (0,)])
    places = [(b, t) for b in range(batch) for t in range(length)]
    border = padding = ()  # type: tuple[tuple[int, int], ...]
    if not bare and choose.chance(25):
        border = tuple(choose.some(places, least=1, most=2))
        padding = tuple(choose.some(places[: len(places) - 1], most=3))
    return Feeding(length, batch, pieces, border, padding, learn, choose.whole(0, 999))


def _every(found: Family) -> list[Any]:
    return [found.fields.get("every"), *(plan.fields.get("every") for plan in found.plans)]
