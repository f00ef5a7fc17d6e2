"""An update rule's program -> one readable Python function, the same at every level.

    rule(grad=, weight=, kept=, start=, lr=, retain=, gram=, k=, v=, x=, error=, count=, state=, <parameters>=)
        -> (delta, state)

Called by the memories inside a sequence (runtime.ops) and by the levels that count steps (runtime.level).  Every
tensor is a stack of matrices (..., rows, cols), a vector one column, a number 1 x 1; so what meets from the left in the
language broadcasts in torch, and heads, sequences and weights of one shape are but leading axes.  `kept` is the state
after retention.  Inside a sequence the numbers of a rule stand in its text, and lr, retain and count are tensors;
outside, they are arguments and plain numbers.
"""

from __future__ import annotations

import keyword
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from codegen.equations import LOOSEST, TIGHTEST, power
from codegen.into import ENTRY, STRENGTH, averaged, entry, fresh, product, written_into
from codegen.layout import fit, wrapped
from codegen.remembered import constant, form_class, remembered
from codegen.written import NEGATED, Text, listed, literal
from nlc import equations as eq
from nlc.graph.nodes import Rule, RuleLevel, RuleMemory
from nlc.graph.remembered import state_names
from nlc.operator_shapes import Shape
from nlc.rule_shapes import COLS, ROWS, SEEN, entrywise, shape_of

ARGUMENTS = ("grad", "weight", "kept", "start", "lr", "retain", "gram", "k", "v", "x", "error", "count", "state")
FUNCTIONAL = ("silu", "gelu")  # torch.nn.functional
EXACT = ("softplus",)  # runtime.ops
PLAIN = ("exp", "log", "sqrt", "tanh")  # math.<name> of a plain number
REDUCED = {"sum": "sum", "mean": "mean", "min": "amin", "max": "amax"}
TAKEN = frozenset(  # what the text of a rule uses, and what Level.update takes beside the rule's parameters
    "kept state torch math F root due _ float min max abs l2norm poly newton_schulz self rule clip".split()
)


@dataclass(frozen=True, slots=True)
class RuleView:
    """What a template prints of a rule, and what its callers must know."""

    name: str  # of the function
    doc: tuple[str, ...]
    arguments: str
    lines: tuple[str, ...]
    state: tuple[str, ...]  # kept for each weight between updates; a slower level's sum of gradients too
    parameters: tuple[str, ...]  # given by name at each call
    entrywise: bool  # every entry is treated alike, whatever matrix it stands in
    starts: bool  # it sees the weight at its start
    ops: tuple[str, ...]  # names of runtime.ops
    constants: tuple[str, ...]  # the rule's own memories, above the function
    remembered: tuple[str, ...]  # their names
    own: tuple[str, ...]  # their states


def rule_view(rule: Rule, name: str, inside: bool = True, half: bool = False) -> RuleView:
    """The function of a rule.  `inside`: for memories inside a sequence, else for levels that count steps; `half`: of
    weights that are trained in bfloat16."""
    return Writer(rule, inside, half).view(name)


def gathered(index: int) -> str:
    """The state in which the rule's level at this place sums its gradients."""
    return f"level{index + 1}_grad"


def states(rule: Rule) -> tuple[str, ...]:
    """What the rule keeps between its updates: its levels' states, and the sums of the slower ones."""
    sums = [gathered(i) for i, level in enumerate(rule.levels) if level.sums]
    own = [name for level in rule.levels for memory in level.memories for name in state_names(memory)]
    return (*(name for level in rule.levels for name in level.state), *own, *sums)


class Writer:
    """Writes one rule; remembers the shape of each name, and what must be imported."""

    def __init__(self, rule: Rule, inside: bool, half: bool) -> None:
        self.rule, self.inside, self.half = rule, inside, half
        self.ops: set[str] = set()
        plain = {} if inside else {"lr": Text("lr"), "count": Text("count"), "retain": Text("retain")}
        self.names = {name: Text(name, shape=shape) for name, shape in SEEN.items()} | plain
        self.names |= {"rows": Text("grad.shape[-2]"), "cols": Text("grad.shape[-1]")}
        for param in rule.params:
            if param.value:
                self.names[param.name] = Text(safe(param.name), shape=SEEN["k"] if param.number == "k" else ())
            else:
                self.names[param.name] = literal(param.number) if inside else Text(safe(param.name))
        self.lists = {p.name for p in rule.params if isinstance(p.number, tuple | list)}
        state = [name for level in rule.levels for name in level.state]
        self.names |= {name: Text(safe(name), shape=SEEN["grad"]) for name in state}
        self.memories = [memory for level in rule.levels for memory in level.memories]
        self.maps = {f"{m.name}()": tuple(a * ROWS + b * COLS for a, b in (m.outer, m.inner)) for m in self.memories}
        self.reading = {m.name: safe(m.name) for m in self.memories}  # the variable of what the program reads
        self.given = {
            *self.names,
            *self.reading,
            *(t for level in rule.levels for line in level.do for t in line.targets),
        }
        self.reads = Counter(tree.id for whole in self.trees() for tree in eq.walk(whole) if isinstance(tree, eq.Name))
        self.function = ""
        self.touched: set[str] = set()
        for index, level in enumerate(rule.levels):
            if level.sums:
                self.names[gathered(index)] = Text(gathered(index), shape=SEEN["grad"])

    def trees(self) -> Iterator[eq.Expr]:
        """Every expression of the rule."""
        for memory in self.memories:
            yield from (memory.keys, memory.values, memory.lr)
        yield from (line.value for level in self.rule.levels for line in level.do)

    def view(self, name: str) -> RuleView:
        kept, self.function = states(self.rule), name
        own = {state for memory in self.memories for state in state_names(memory)}
        plain = [state for state in kept if state not in own]
        body = list(self.program())
        body += ["delta = weight - kept"] * self.sets_weight()
        returned = ", ".join(
            [f'"{s}": {self.names[s].text}' for s in plain]
            + [f"**{constant(name, m)}.states({safe(m.name)})" for m in self.memories]
        )
        head = together([self.names[s].text for s in plain], [f'state["{s}"]' for s in plain])
        head += [f"{safe(m.name)} = {constant(name, m)}.parts(state, grad)" for m in self.memories]
        lines = [*head, *body, f"return delta, {{{returned}}}"]
        text = "\n".join(lines)
        moving = [p.name for p in self.rule.params if p.value or not self.inside]
        moving = [name for name in moving if re.search(rf"\b{safe(name)}\b", text)]
        mine = {self.names[s].text for s in plain}
        arguments = [a for a in ARGUMENTS if a not in mine and re.search(rf"\b{a}\b", text)]
        arguments += [safe(name) for name in moving]
        return RuleView(
            name=name,
            doc=self.doc(),
            arguments=", ".join(["*", *arguments, "**_"]),
            lines=tuple(line for line in lines for line in fitted(line)),
            state=kept,
            parameters=tuple(moving),
            entrywise=entrywise(self.rule.levels),
            starts=bool(re.search(r"\bstart\b", text)),
            ops=tuple(sorted(self.ops | ({"Remembered", *map(form_class, self.memories)} if self.memories else set()))),
            constants=tuple(line for m in self.memories for line in remembered(name, m)),
            remembered=tuple(constant(name, m) for m in self.memories),
            own=tuple(sorted(own)),
        )

    def doc(self) -> tuple[str, ...]:
        given = [f"{p.name}={literal(p.number).text}" for p in self.rule.params if not p.value] if self.inside else []
        with_numbers = f" with {', '.join(given)}" if given else ""
        return tuple(wrapped(f"Rule {self.rule.name}{with_numbers}.", 100))

    # ---- statements -------------------------------------------------------------------------------------------------

    def program(self) -> Iterator[str]:
        """The rule's levels in order; a slower one sums its gradients and waits for its period."""
        first = next((i for i, level in enumerate(self.rule.levels) if sets(level, "delta")), len(self.rule.levels))
        if not self.sets_weight() and (first == len(self.rule.levels) or self.rule.levels[first].period > 1):
            yield "delta = torch.zeros_like(grad)"
        for index, level in enumerate(self.rule.levels):
            if level.period == 1:
                for memory in level.memories:
                    yield from self.write(memory, safe(memory.name))
                for line in level.do:
                    yield self.statement(line)
            else:
                yield from self.slower(index, level)

    def sets_weight(self) -> bool:
        """At every update; where only a slower level sets it, delta is what that level makes of it."""
        return any(sets(level, "weight") and level.period == 1 for level in self.rule.levels)

    def slower(self, index: int, level: RuleLevel) -> Iterator[str]:
        """A level that runs once in so many updates.

        Inside a sequence each of the stacked states has a count of its own, so what is new is chosen by row."""
        grad = self.names["grad"]
        total = self.names[gathered(index)] if level.sums else grad
        if level.sums:
            yield f"{total.text} = {total.text} + grad" if self.inside else f"{total.text}.add_(grad)"
        if self.inside:
            yield f"due = count % {level.period} == 0"
            yield "if due.any():"
        else:
            yield f"if count % {level.period} == 0:"
        before = dict(self.names)
        self.names["grad"] = total
        lasting = [*level.state, *(name for name in ("delta", "weight") if sets(level, name))]
        renamed = {name: self.fresh(self.names[name].text, "new") for name in lasting} if self.inside else {}
        for memory in level.memories:
            new = self.fresh(safe(memory.name), "new") if self.inside else safe(memory.name)
            yield from (f"    {line}" for line in self.write(memory, new))
        for line in level.do:
            yield "    " + self.statement(line, renamed)
        if sets(level, "weight") and not self.sets_weight():
            change = f"{self.names['weight'].text} - kept"
            yield f"    delta = {f'torch.where(due, {change}, delta)' if self.inside else change}"
        for memory in level.memories if self.inside else ():
            m = safe(memory.name)
            yield f"    {m} = {constant(self.function, memory)}.where(due, {self.fresh(m, 'new')}, {m})"
            self.reading[memory.name] = m
        for name in lasting if self.inside else ():
            old = before[name].text
            yield f"    {old} = torch.where(due, {self.names[name].text}, {old})"
            self.names[name] = before[name]
        if level.sums:
            empty = f"torch.zeros_like({total.text})"
            yield f"    {total.text} = {f'torch.where(due, 0, {total.text})' if self.inside else empty}"
        self.names["grad"] = grad

    def write(self, memory: RuleMemory, new: str) -> Iterator[str]:
        """One step of a memory of the rule; `new` is the variable of its state after it."""
        m = safe(memory.name)
        earlier = self.fresh(m, "before") if new == m else m
        if memory.before and new == m:
            yield f"{earlier} = {m}"
        pairs = f"{self.text(memory.keys).text}, {self.text(memory.values).text}, {self.text(memory.lr).text}"
        yield f"{new} = {constant(self.function, memory)}.write({m}, {pairs})"
        self.reading[memory.name] = earlier if memory.before else new

    def fresh(self, variable: str, word: str) -> str:
        """b_new, or b_new_ where the program has a value of that name."""
        name = f"{variable}_{word}"
        while name in self.given:
            name += "_"
        return name

    def statement(self, line: Any, renamed: dict[str, str] | None = None) -> str:
        """One assignment.  A value of a smaller shape fills the state, delta or weight it is given to."""
        if len(line.targets) > 1:
            for name in line.targets:
                self.names[name] = Text(safe(name))
            return f"{', '.join(safe(name) for name in line.targets)} = {self.text(line.value).text}"
        moved = self.moved(line)
        self.touched |= {*line.targets, *eq.names(line.value)}
        if moved is not None:
            return moved
        (name,), value = line.targets, self.text(line.value)
        lasting = name in ("delta", "weight") or name in states(self.rule)
        target = (renamed or {}).get(name) or safe(name)
        if lasting and (value.shape is None or len(value.shape) < 2):
            value = Text(f"{value.within(TIGHTEST)} * torch.ones_like(grad)", 2, SEEN["grad"])
        alone = value.fresh and not lasting and self.reads[name] == 1
        self.names[name] = Text(target, shape=value.shape, fresh=alone)
        return f"{target} = {value.text}"

    def moved(self, line: Any) -> str | None:
        """Outside, `m = beta * m + (1 - beta) * grad` of a state moves it where it is: no gradient passes."""
        (name,) = line.targets
        reads = sum(isinstance(tree, eq.Name) and tree.id == name for tree in eq.walk(line.value))
        if self.inside or reads != 1 or not self.kept(name):
            return None
        mine = self.names[name]
        if (share := averaged(line.value, name)) and self.shape(share) is None:
            new = self.text(line.value.right.right)
            if product(new) is None:
                return f"{mine.text}.lerp_({new.text}, 1 - {self.text(share).within(2)})"
        self.names[name] = fresh(mine)
        value = self.text(line.value)
        self.names[name] = mine
        return value.text if value.into == mine.text else None

    def kept(self, name: str) -> bool:
        """A state that the program has neither assigned nor read yet: the level's own tensor, and nobody else's."""
        return name in {state for level in self.rule.levels for state in level.state} and name not in self.touched

    # ---- expressions ------------------------------------------------------------------------------------------------

    def text(self, tree: eq.Expr) -> Text:
        match tree:
            case eq.Name(id=name):
                return self.names[name]
            case eq.Number(value=value):
                return literal(value)
            case eq.Boolean(value=value):
                return Text(repr(value))
            case eq.Unary(value=value):
                inner = self.text(value)
                return Text(f"-{inner.within(NEGATED)}", NEGATED, inner.shape, inner.shape is not None)
            case eq.Binary(op=op, left=left, right=right):
                return self.binary(tree, op, self.text(left), self.text(right))
            case eq.Compare(op=op, left=left, right=right):
                text, shape = f"({self.text(left).within(1)} {op} {self.text(right).within(1)})", self.shape(tree)
                return Text(f"float{text}") if shape is None else Text(f"{text}.to(grad.dtype)", shape=shape)
            case eq.ListOf(items=items):
                return listed([self.text(item).text for item in items])
            case eq.Slice():
                return self.slice(tree)
            case eq.Call():
                return self.call(tree)
        raise KeyError(f"a rule's program cannot use {eq.to_text(tree)!r} here")

    def shape(self, tree: eq.Expr) -> Shape | None:
        """None where only plain numbers meet."""
        tensors = {name: text.shape for name, text in self.names.items() if text.shape is not None}
        if not any(name in tensors for name in eq.names(tree)) and not calls(tree, "eye", "index"):
            return None
        tensors |= self.maps
        numbers = {name: () for name in self.names if name not in tensors and name not in self.lists}
        return shape_of(tree, {**numbers, **tensors})

    def binary(self, tree: eq.Expr, op: str, a: Text, b: Text) -> Text:
        strength, shape = STRENGTH[op], self.shape(tree)
        found = None if self.inside else written_into(op, a, b, shape)
        if found is None and op == "**":  # the right side binds more loosely than the left: 2 ** -x
            found = Text(power(a.within(TIGHTEST), b.within(NEGATED)), strength, shape)
        elif found is None:
            found = Text(f"{a.within(strength)} {op} {b.within(strength + 1)}", strength, shape)
        return found if self.inside else replace(fresh(found), made=(op, a, b))

    def slice(self, tree: eq.Slice) -> Text:
        value = self.text(tree.value)
        start, stop = ("" if end is None else self.text(end).text for end in (tree.start, tree.stop))
        if value.shape is None:  # of a list of numbers
            return Text(f"{value.within(TIGHTEST)}[{start if tree.single else f'{start}:{stop}'}]")
        after = "" if len(value.shape) == 2 else ", :"
        bounds = f"{start}, None" if tree.single else f"{start}:{stop}"
        return Text(f"{value.within(TIGHTEST)}[..., {bounds}{after}]", shape=self.shape(tree))

    def call(self, tree: eq.Call) -> Text:
        func, args, shape = tree.func, [self.text(arg) for arg in tree.args], self.shape(tree)
        options = [f"{name}={self.text(value).text}" for name, value in tree.kwargs]
        inputs = ", ".join([*(a.text for a in args), *options])
        if func in self.reading:
            memory = next(m for m in self.memories if m.name == func)
            return Text(f"{constant(self.function, memory)}.read({self.reading[func]}, {inputs})", shape=shape)
        if func == "where":
            return self.where(tree, shape, *args)
        if shape is None:
            return self.plain(func, inputs)
        if func in ("min", "max") and len(args) > 1:
            return self.extremum(func, args, shape)
        first = args[0] if args else Text("")
        inner = first.within(TIGHTEST)
        axis = -1 if first.shape is None or len(first.shape) == 2 else -2  # the last axis: a vector is one column
        if func == "sqrt" and self.inside:  # whose slope at 0 is taken as 0
            self.ops.add("root")
            return Text(f"root({first.text})", shape=shape)
        if not self.inside and (written := entry(func, first)):
            return written
        if func in ENTRY + FUNCTIONAL + EXACT:
            return Text(f"{self.torch_name(func)}({first.text})", shape=shape, fresh=not self.inside)
        if func in REDUCED:
            return Text(f"{inner}.{REDUCED[func]}({axis}, keepdim=True)", shape=shape)
        like = "dtype=grad.dtype, device=grad.device"
        match func:
            case "norm":
                p = (*(a.text for a in args[1:]), *(option.removeprefix("p=") for option in options), "2")[0]
                if p == "2":
                    return Text(f"torch.linalg.vector_norm({first.text}, {p}, dim={axis}, keepdim=True)", shape=shape)
                self.ops.add("norm")
                return Text(f"norm({first.text}, {p}, dim={axis}, keepdim=True)", shape=shape)
            case "softmax":
                return Text(f"torch.softmax({first.text}, {axis})", shape=shape)
            case "transpose":
                return Text(f"{inner}.mT", shape=shape)
            case "trace":
                return Text(f"{inner}.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]", shape=shape)
            case "outer":
                return Text(f"{first.within(2)} @ {args[1].within(TIGHTEST)}.mT", 2, shape)
            case "eye":
                return Text(f"torch.eye({inputs}, {like})", shape=shape)
            case "index":
                return Text(f"torch.arange({inputs}, {like})[:, None]", shape=shape)
            case "stop":
                return Text(f"{inner}.detach()", shape=shape)
            case "concat":
                return Text(f"torch.cat(({inputs}), {axis})", shape=shape)
        func = "newton_schulz_bfloat16" if func == "newton_schulz" and self.half else func
        self.ops.add(func)  # l2norm, poly, newton_schulz
        if axis == -2:
            return Text(f"{func}({', '.join([f'{inner}.mT', *(a.text for a in args[1:]), *options])}).mT", shape=shape)
        return Text(f"{func}({inputs})", shape=shape)

    def plain(self, func: str, inputs: str) -> Text:
        """An operator on plain numbers."""
        if func in ("abs", "min", "max"):
            return Text(f"{func}({inputs})")
        if func in PLAIN:
            return Text(f"math.{func}({inputs})")
        return Text(f"float({self.torch_name(func)}(torch.tensor(float({inputs}), dtype=torch.float64)))")

    def torch_name(self, func: str) -> str:
        """A function of every entry, by where it comes from."""
        if func in EXACT:
            self.ops.add(func)
            return func
        return f"F.{func}" if func in FUNCTIONAL else f"torch.{func}"

    def where(self, tree: eq.Call, shape: Shape | None, condition: Text, yes: Text, no: Text) -> Text:
        """One of two values; only that value where which one it is does not depend on anything."""
        settled = {"True": yes, "False": no}.get(condition.text, yes if yes == no else None)
        if settled is not None and settled.shape == shape:
            return settled
        if condition.shape is not None:
            return Text(f"torch.where({condition.within(1)} != 0, {yes.text}, {no.text})", shape=shape)
        asked = condition.within(1)
        if isinstance(compared := tree.args[0], eq.Compare):
            asked = f"{self.text(compared.left).within(1)} {compared.op} {self.text(compared.right).within(1)}"
        return Text(f"{yes.within(1)} if {asked} else {no.within(1)}", LOOSEST, shape)

    def extremum(self, func: str, args: list[Text], shape: Shape) -> Text:
        """A number is a value too: inside a sequence, where it is met exactly, half the gradient passes."""
        found, *rest = sorted(args, key=lambda text: text.shape is None)
        bound = "max" if func == "min" else "min"
        for other in rest:
            if other.shape is None and not self.inside:
                found = Text(f"{found.within(TIGHTEST)}.clamp({bound}={other.text})", shape=shape)
            else:
                second = other.text if other.shape is not None else f"grad.new_full((), {other.text})"
                found = Text(f"torch.{func}imum({found.text}, {second})", shape=shape)
        return found


def calls(tree: eq.Expr, *funcs: str) -> bool:
    return any(isinstance(part, eq.Call) and part.func in funcs for part in eq.walk(tree))


def sets(level: RuleLevel, name: str) -> bool:
    return any(name in line.targets for line in level.do)


def together(targets: list[str], values: list[str]) -> list[str]:
    """One assignment of several values; one a line where that is too long."""
    if not targets:
        return []
    line = f"{', '.join(targets)} = {', '.join(values)}"
    return [line] if len(line) <= 100 else [f"{a} = {b}" for a, b in zip(targets, values, strict=True)]


def fitted(line: str) -> list[str]:
    """A line of a function's body, as long as one may be."""
    depth = (len(line) - len(line.lstrip())) // 4
    return [text.removeprefix("    ") for text in fit(line.lstrip(), depth + 1)]


def safe(name: str) -> str:
    """A name of the spec as a Python variable of the generated function."""
    return f"{name}_" if keyword.iskeyword(name) or name in TAKEN else name
