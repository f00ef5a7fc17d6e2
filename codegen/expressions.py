"""Values as torch expressions: one function, `Scope.text`, over the operators of the language.

A Scope knows which values already have a Python variable.  Anything else is written in place, so that a generated
statement mirrors the equation it lowers.  Values after batch and token align from the left, torch's from the right; the
scope adds the axes of size 1 in between.
"""

from __future__ import annotations

import keyword
from collections.abc import Callable
from dataclasses import dataclass, field

from codegen.equations import INFIX, TIGHTEST, bounds, number, parenthesised, power
from nlc.graph.graph import Graph
from nlc.graph.nodes import Input, Number, Op, Read, Value
from nlc.graph.ranges import range_of

PLAIN = {  # operators that are one function of one value
    "silu": "F.silu", "gelu": "F.gelu", "relu": "F.relu", "sigmoid": "torch.sigmoid", "tanh": "torch.tanh",
    "exp": "torch.exp", "log": "torch.log", "sqrt": "torch.sqrt", "abs": "torch.abs", "sign": "torch.sign",
    "softplus": "softplus",
}  # fmt: skip
RUNTIME = {
    "rmsnorm",
    "layernorm",
    "l2norm",
    "heads",
    "merge",
    "rope",
    "poly",
    "outer",
    "trace",
    "norm",
    "newton_schulz",
    "softplus",
}
TOKENLESS = {"param", "index", "eye"}
STATEFUL = {"conv", "prev"}
RESERVED = {"clear", "get", "items", "keys", "pop", "update", "values"}


def attribute(path: str) -> str:
    """`self.h.conv`, or with ["..."] where a word means something to Python or to torch modules."""
    text = "self"
    for depth, word in enumerate(path.split(".")):
        plain = word.isidentifier() and not keyword.iskeyword(word) and word not in MODULE_NAMES
        plain = plain and not word.startswith("_")
        if depth == 0:  # what a block has of its own
            plain = plain and word not in ("start", "tails", "unwritten") and not word.startswith("write_")
        text += f".{word}" if plain else f'["{word}"]'
    return text


MODULE_NAMES = frozenset(
    "T_destination add_module apply bfloat16 buffers call_super_init children compile cpu cuda double dump_patches "
    "eval extra_repr "
    "float forward get_buffer get_extra_state get_parameter get_submodule half ipu load_state_dict modules mtia "
    "named_buffers named_children named_modules named_parameters parameters parts put register_backward_hook "
    "register_buffer register_forward_hook register_forward_pre_hook register_full_backward_hook "
    "register_full_backward_pre_hook register_load_state_dict_post_hook register_load_state_dict_pre_hook "
    "register_module register_parameter register_state_dict_post_hook register_state_dict_pre_hook requires_grad_ "
    "set_extra_state set_submodule share_memory state_dict to to_empty train training type xpu zero_grad fresh".split()
)


@dataclass
class Scope:
    """Where values are written: `names` gives the text of those that exist; `weight` the text of a weight's path."""

    graph: Graph
    names: dict[str, str] = field(default_factory=dict)
    weight: Callable[[str], str] = attribute
    position: str = "position"  # text of the number of tokens before these
    tokens: str = "T"  # text of how many tokens there are
    like: str = ""  # a variable with the dtype and device of all
    runtime: set[str] = field(default_factory=set)  # names to import from runtime.ops
    logs: dict[str, str] = field(default_factory=dict)  # values whose logarithm has a variable
    fused: dict[str, Callable[[Scope], str]] = field(default_factory=dict)  # values that one call gives for several

    def text(self, id: str) -> str:
        return self._text(id)[0]

    def tokenless(self, id: str) -> bool:
        """The same for every token and sequence: it has no batch and token axes."""
        node = self.graph[id]
        match node:
            case Number():
                return True
            case Op() if node.op in TOKENLESS:
                return True
            case Op() if self.by_token(node):
                return False
            case Op() if node.op not in STATEFUL and node.inputs:
                return all(self.tokenless(i) for i in node.inputs)
        return False

    def by_token(self, node: Op) -> bool:
        """Written for values with batch and token only."""
        if node.op == "outer":  # axes in front align from the left, those of batch and token first
            return any(not self.tokenless(i) for i in node.inputs)
        return node.op == "rope" or (node.op == "linear" and len(self.graph[node.inputs[0]].shape) > 1)

    def spread(self, id: str, shape: tuple[int, ...] | None = None) -> str:
        """The value with batch, token and all its axes, as a memory needs it."""
        text, precedence = self._text(id)
        return self._spread(id, text, precedence, shape)

    def spread_log(self, id: str, shape: tuple[int, ...]) -> str:
        """The logarithm of a value in [0, 1], by the expression that does not underflow; with all its axes."""
        text, precedence = self._log(id)
        return self._spread(id, text, precedence, shape, logarithm=True)

    def _spread(
        self, id: str, text: str, precedence: int, shape: tuple[int, ...] | None, logarithm: bool = False
    ) -> str:
        own = self.graph[id].shape or ()
        shape = own if shape is None else shape
        extra = len(shape) - len(own)
        if self.tokenless(id):
            size = ", ".join(["B", self.tokens, *map(str, shape)])
            if self.constant(id):
                return f"{self.like}.new_full(({size}), {text})"
            if extra and own:
                text, precedence = self._with_axes(text, precedence, extra), TIGHTEST
            return f"{parenthesised(text, precedence, TIGHTEST)}.expand({size})"
        if shape == own:
            return text
        return f"{self._with_axes(text, precedence, extra)}.expand({', '.join(['-1', '-1', *map(str, shape)])})"

    def constant(self, id: str) -> bool:
        """A plain Python number: made of numbers alone."""
        node = self.graph[id]
        return isinstance(node, Number) or (
            isinstance(node, Op)
            and (node.op in INFIX or node.op == "neg" or (node.op in ("min", "max") and len(node.inputs) > 1))
            and all(self.constant(i) for i in node.inputs)
        )

    def of_one_token(self, id: str) -> str:
        """A value that is the same for all tokens, without their axes: operators that need these gave it them."""
        return self.text(id) if self.tokenless(id) else f"{parenthesised(*self._text(id), TIGHTEST)}[0, 0]"

    def tensor(self, id: str) -> str:
        """The value where torch takes no plain number."""
        return self._tensor(id)[0]

    def _tensor(self, id: str) -> tuple[str, int]:
        return (f"{self.like}.new_full((), {self.text(id)})", TIGHTEST) if self.constant(id) else self._text(id)

    # ---- one value ------------------------------------------------------------------------------------------------

    def _text(self, id: str) -> tuple[str, int]:
        if id in self.names:
            return self.names[id], TIGHTEST
        if id in self.fused:
            return self.fused[id](self), TIGHTEST
        node: Value = self.graph[id]
        match node:
            case Number():
                return number(node.value), TIGHTEST if node.value >= 0 else 3
            case Op() if node.op in INFIX:
                return self._infix(node)
            case Op(op="neg"):
                text, precedence = self._text(node.inputs[0])
                return "-" + parenthesised(text, precedence, 3), 3
            case Op():
                return self._operator(node), TIGHTEST
            case Input() | Read():
                raise KeyError(f"{id} is read before it is computed")

    def _infix(self, node: Op) -> tuple[str, int]:
        if node.op == "matmul":
            a, b = node.inputs
            if len(self.graph[b].shape) < len(self.graph[a].shape):
                return self._call("apply_matrix", self.text(a), self.text(b)), TIGHTEST
        symbol, strength = INFIX[node.op]
        sides = []
        for at, id in enumerate(node.inputs):
            text, precedence = self._aligned(id, len(node.shape or ())) if node.op != "matmul" else self._text(id)
            sides.append(parenthesised(text, precedence, strength + at))
        text = power(sides[0], sides[1]) if node.op == "pow" else f"{sides[0]} {symbol} {sides[1]}"
        if strength == 0 and self.constant(node.id):  # a comparison is a number
            return f"float({text})", TIGHTEST
        if strength == 0:
            other = next(i for i in node.inputs if not self.constant(i))
            return f"({text}).to({parenthesised(*self._text(other), TIGHTEST)}.dtype)", TIGHTEST
        return text, strength

    def _aligned(self, id: str, axes: int) -> tuple[str, int]:
        node = self.graph[id]
        text, precedence = self._text(id)
        missing = axes - len(node.shape or ())
        if missing <= 0 or isinstance(node, Number) or (self.tokenless(id) and not node.shape):
            return text, precedence
        return self._with_axes(text, precedence, missing), TIGHTEST

    def _with_axes(self, text: str, precedence: int, count: int) -> str:
        if count <= 0:
            return text
        return f"{parenthesised(text, precedence, TIGHTEST)}[{', '.join(['...', *['None'] * count])}]"

    def _operator(self, node: Op) -> str:
        options = dict(node.options)
        whole = self.by_token(node)
        inputs = [self.spread(i) if whole and self.tokenless(i) else self.tensor(i) for i in node.inputs]
        tight = [parenthesised(*self._tensor(i), TIGHTEST) for i in node.inputs]  # to be followed by a dot or a bracket
        weights = [self.weight(self.graph[w].path) for w in node.weights]
        op = node.op
        if op in PLAIN:
            self.runtime |= {op} & RUNTIME
            return f"{PLAIN[op]}({inputs[0]})"
        match op:
            case "linear":
                one = len(node.shape or ()) < len(self.graph[node.inputs[0]].shape)
                return self._call("readout" if one else "linear", inputs[0], *weights)
            case "rmsnorm" | "layernorm":
                return self._call(op, inputs[0], *weights)
            case "rope":
                base = [] if options["base"] == 10000.0 else [number(options["base"])]
                return self._call("rope", inputs[0], self.position, *base)
            case "heads":
                return self._call("heads", inputs[0], str(options["n"]))
            case "poly":
                return self._call("poly", inputs[0], str(options["degree"]))
            case "norm":
                return self._call("norm", inputs[0], number(options["p"]))
            case "newton_schulz":
                return self._call("newton_schulz", inputs[0], str(options["steps"]))
            case "softmax":
                return f"{tight[0]}.softmax(-1)"
            case "transpose":
                return f"{tight[0]}.mT"
            case "mean" | "sum":
                return f"{tight[0]}.{op}(-1)"
            case "min" | "max" if len(inputs) == 1:
                return f"{tight[0]}.a{op}(-1)"
            case "min" | "max":
                return self._extremum(node)
            case "where":
                return self._where(node, inputs)
            case "concat":
                if any(self.tokenless(i) for i in node.inputs) and not self.tokenless(node.id):
                    inputs = [self.spread(i) for i in node.inputs]
                return f"torch.cat(({', '.join(inputs)}{',' if len(inputs) == 1 else ''}), -1)"
            case "fold":
                return f"{tight[0]}.{_folded(node, self.graph)}"
            case "unfold":
                return f"{tight[0]}.unflatten({-len(self.graph[node.inputs[0]].shape)}, {tuple(options['sizes'])})"
            case "split":
                n = options["n"]
                sizes = str(self.graph[node.inputs[0]].shape[-1] // n) if isinstance(n, int) else str(tuple(n))
                return f"{tight[0]}.split({sizes}, -1)"
            case "item":
                return f"{tight[0]}[{options['index']}]"
            case "slice":
                return f"{tight[0]}[..., {bounds(options)}]"
            case "stop":
                return f"{tight[0]}.detach()"
            case "dropout":
                return f"F.dropout({inputs[0]}, {number(options['p'])}, self.training)"
            case "param":
                return weights[0]
            case "index":
                return f"torch.arange({options['size']}, dtype={self.like}.dtype, device={self.like}.device)"
            case "eye":
                return f"torch.eye({options['n']}, dtype={self.like}.dtype, device={self.like}.device)"
        if op in RUNTIME:
            return self._call(op, *inputs)
        raise KeyError(f"operator {op!r} has no torch text")

    def _where(self, node: Op, tensors: list[str]) -> str:
        """A choice; where both ways are plain numbers, the first is a tensor, whose dtype counts."""
        known, aligned = self.graph[node.inputs[0]], [self._aligned(i, len(node.shape or ()))[0] for i in node.inputs]
        ways = zip(node.inputs, tensors, aligned, strict=True)
        condition, a, _ = (tensor if self.constant(id) else text for id, tensor, text in ways)
        if isinstance(known, Number):
            chosen = node.inputs[1 if known.value else 2]
            if self.graph[chosen].shape == node.shape:
                return parenthesised(*self._tensor(chosen), TIGHTEST)
        return f"torch.where({condition} != 0, {a if self.constant(node.inputs[2]) else aligned[1]}, {aligned[2]})"

    def _extremum(self, node: Op) -> str:
        """min and max of several values.  A number is a value too: where it is met exactly, half the gradient passes,
        and at the bound of a clamp all of it."""
        numbers = [i for i in node.inputs if self.constant(i)]
        others = [self._aligned(i, len(node.shape or ())) for i in node.inputs if i not in numbers]
        if not others:
            return f"{node.op}({', '.join(self.text(i) for i in numbers)})"
        text, *rest = [*(other for other, _ in others), *map(self.tensor, numbers)]
        for other in rest:
            text = f"torch.{node.op}imum({text}, {other})"
        return text

    def _call(self, function: str, *arguments: str) -> str:
        self.runtime.add(function)
        return f"{function}({', '.join(arguments)})"

    def _log(self, id: str) -> tuple[str, int]:
        node = self.graph[id]
        if id in self.logs:
            return self.logs[id], TIGHTEST
        if self.constant(id):
            return f"math.log({self.text(id)})" if range_of(self.graph, id).positive else "-math.inf", TIGHTEST
        if id in self.names:
            return self._call("log_share", self.names[id]), TIGHTEST
        match node:
            case Op(op="sigmoid"):
                return f"F.logsigmoid({self.tensor(node.inputs[0])})", TIGHTEST
            case Op(op="exp"):
                return self._text(node.inputs[0])
            case Op(op="fold"):
                text = parenthesised(*self._log(node.inputs[0]), TIGHTEST)
                return f"{text}.{_folded(node, self.graph)}", TIGHTEST
            case Op(op="mul") if all(range_of(self.graph, i).positive for i in node.inputs):
                axes = len(node.shape or ())
                sides = []
                for i in node.inputs:
                    text, precedence = self._log(i)
                    missing = axes - len(self.graph[i].shape or ())
                    sides.append(self._with_axes(text, precedence, 0 if isinstance(self.graph[i], Number) else missing))
                return f"{sides[0]} + {sides[1]}", 1
        return self._call("log_share", self.text(id)), TIGHTEST


def _folded(node: Op, graph: Graph) -> str:
    """`flatten(-3, -2)`: the first axes of a value as one."""
    first = len(graph[node.inputs[0]].shape or ())
    return f"flatten({-first}, {dict(node.options)['axes'] - 1 - first})"
