"""Operations of a rule that write their result over a tensor nobody needs any more, and two in one pass over memory.

A step of an optimiser is bound by memory: what counts is how often its tensors are read and written.

(m / c) / (sqrt(v2 / d) + eps)                -> (m / c).div_((v2 / d).sqrt_().add_(eps))
beta * m - lr * grad                          -> (beta * m).sub_(grad, alpha=lr)
v2 = beta * v2 + (1 - beta) * grad ** 2       -> v2.mul_(beta).addcmul_(grad, grad, value=1 - beta)

Only where no gradient passes: for levels that count steps.
"""

from __future__ import annotations

from dataclasses import replace

from codegen.equations import TIGHTEST
from codegen.written import NEGATED, Text, literal
from nlc import equations as eq
from nlc.operator_shapes import Shape

STRENGTH = {"+": 1, "-": 1, "*": 2, "/": 2, "@": 2, "**": 4}
METHODS = {"+": "add_", "-": "sub_", "*": "mul_", "/": "div_"}
ENTRY = ("exp", "log", "sqrt", "tanh", "abs", "sign", "sigmoid", "relu")  # torch.<name>, entry by entry


def written_into(op: str, a: Text, b: Text, shape: Shape | None) -> Text | None:
    """`a op b` over the memory of one of the two, or as one operation; None where that cannot be."""
    if shape is None or op not in METHODS:
        return None
    once = a.shape is not None and op in "+-" and (scaled(b) or product(b))  # one operation makes and adds b
    if op in "+*" and free(b, shape) and not free(a, shape) and not once:
        a, b = b, a
    if op in "+-" and (free(a, shape) or once):
        return added(a, b, op, shape)
    return over(a, f"{METHODS[op]}({b.text})") if free(a, shape) else None


def free(x: Text, shape: Shape) -> bool:
    """Whether a result of this shape can be written over it."""
    return x.fresh and x.shape == shape


def over(x: Text, operation: str) -> Text:
    """An operation in place of x."""
    return Text(f"{x.within(TIGHTEST)}.{operation}", shape=x.shape, fresh=True, into=x.into or x.text)


def entry(func: str, x: Text) -> Text | None:
    """sqrt and the like, entry by entry."""
    return over(x, f"{func}_()") if x.fresh and func in ENTRY else None


def added(x: Text, y: Text, sign: str, shape: Shape) -> Text:
    """x + y or x - y; of y = s A B and y = s A / B the product is never made, nor that of y = s A."""
    into = free(x, shape)
    factor, rest = scaled(y) or (None, y)
    number = signed(factor, sign)
    if pair := product(rest):
        name, given = "addcmul", [*pair, f"value={number}" if number else ""]
    elif into and (parts := quotient(y)):
        number = signed(parts[0], sign)
        name, given = "addcdiv", [*parts[1:], f"value={number}" if number else ""]
    else:
        name, given = "add" if sign == "+" else "sub", [rest.text, f"alpha={factor.text}" if factor else ""]
    arguments = ", ".join(filter(None, given))
    if into:
        return over(x, f"{name}_({arguments})")
    return Text(f"{x.within(TIGHTEST)}.{name}({arguments})", shape=shape)


def signed(factor: Text | None, sign: str) -> str:
    """The factor of what is added; nothing where that is 1."""
    if sign == "+":
        return factor.text if factor else ""
    if factor is None:
        return "-1"
    return factor.text.removeprefix("-") if factor.strength == NEGATED else f"-{factor.within(NEGATED)}"


def scaled(x: Text) -> tuple[Text, Text] | None:
    """s, A of a product s * A of a plain number and a tensor."""
    match x.made:
        case ("*", Text(shape=None) as factor, Text(shape=tuple()) as rest):
            return factor, rest
        case ("*", Text(shape=tuple()) as rest, Text(shape=None) as factor):
            return factor, rest
    return None


def product(x: Text) -> tuple[str, str] | None:
    """A, B of a product of two tensors; a square is one."""
    match x.made:
        case ("**", a, b) if b == literal(2) and a.text.isidentifier():
            return a.text, a.text
        case ("*", Text(shape=tuple()) as a, Text(shape=tuple()) as b):
            return a.text, b.text
    return None


def quotient(x: Text) -> tuple[Text | None, str, str] | None:
    """s, A, B of a quotient s * A / B of tensors; s may be missing."""
    match x.made:
        case ("/", Text(shape=tuple()) as above, Text(shape=tuple()) as below):
            factor, rest = scaled(above) or (None, above)
            return factor, rest.text, below.text
    return None


def fresh(x: Text) -> Text:
    """Nobody else holds it: the result of an operation, or a name that is read but once."""
    return replace(x, fresh=x.shape is not None)


def averaged(value: eq.Expr, name: str) -> eq.Expr | None:
    """beta of beta * m + (1 - beta) * x: a moving average, which is one operation of torch."""
    match value:
        case eq.Binary(
            op="+",
            left=eq.Binary(op="*", left=beta, right=eq.Name(id=old)),
            right=eq.Binary(op="*", left=eq.Binary(op="-", left=eq.Number(value=1), right=same)),
        ) if old == name and same == beta:
            return beta
    return None
