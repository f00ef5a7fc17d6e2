"""What a rule's function writes over, where no gradient passes: nothing that is read again, nothing others hold."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codegen.rules import rule_view
from nlc.diagnostics import Reporter
from nlc.graph.choices import rule_of
from nlc.graph.nodes import Rule
from nlc.spec.rule import rule_from
from nlc.spec.text import parse
from nlc.verify.rules import outside
from runtime import stacks

ENDS = {"grad", "weight", "m", "n"}
JOINS = [  # of bounded growth: a program runs for many updates
    "{} + {}", "{} - {}", "{} + 0.5 * {}", "{} - lr * {}", "{} * tanh({})", "{} / (abs({}) + 1)", "max({}, {})",
    "{} - {} * tanh({})", "{} - lr * {} / (abs({}) + 1)", "{} + {} * 0.3",
]  # fmt: skip
ALONE = ["-{}", "0.7 * {}", "relu({})", "sqrt(abs({}) + 1)", "{0} ** 2 / ({0} ** 2 + 1)", "tanh({})"]
MOVES = [
    "{0} = 0.9 * {0} + 0.1 * {1}",
    "{0} = 0.9 * {0} + (1 - 0.9) * {1}",
    "{0} = 0.5 * {0} - lr * {1}",
    "{0} = {1} + 0.5 * {0}",
    "{0} = {1}",
]


def rule(program: list[str]) -> Rule:
    lines = "".join(f"      {line}\n" for line in program)
    state = ", ".join(f"{name}: zeros" for name in "mn" if any(line.startswith(f"{name} =") for line in program))
    text = f"nlc: 1\nrule: r\nlevels:\n  - every: 1 update\n    state: {{{state}}}\n    do: |\n{lines}"
    tree = parse(text, "r.yaml", Reporter())
    assert tree is not None
    return rule_of(rule_from(tree))


def code(*program: str) -> list[str]:
    lines = rule_view(rule([*program]), "r", inside=False).lines[:-1]
    return [line for line in lines if 'state["' not in line]


@st.composite
def programs(draw: st.DrawFn) -> list[str]:
    """Local values, states and at last `delta`, each of expressions of what is there by then."""
    known, lines = sorted(ENDS), list[str]()

    def value(depth: int) -> str:
        if depth == 0 or draw(st.integers(0, 3)) == 0:
            return draw(st.sampled_from(known))
        form = draw(st.sampled_from(JOINS + ALONE))
        parts = [f"({value(depth - 1)})" for _ in range(max(form.count("{}"), "{0}" in form))]
        return form.format(*parts)

    for i, kind in enumerate(draw(st.permutations("mnuuu"))):
        if kind == "u":
            lines.append(f"u{i} = {value(3)}")
            known.append(f"u{i}")
        else:
            lines.append(draw(st.sampled_from(MOVES)).format(kind, value(2)))
    step = draw(st.sampled_from(["-lr * {} - lr * m + lr * n", "0.1 * tanh({}) + lr * m * tanh(n)"]))
    return [*lines, f"delta = {step.format(f'({value(3)})')}"]  # a state that is never read is refused


@pytest.mark.parametrize("joined", [0, 1 << 14], ids=["alone", "joined"])
def test_any_program_is_what_it_means(joined: int) -> None:
    """A weight alone meets the rule as it is, and its states too: what is written over them is written over."""

    @settings(max_examples=40, deadline=None, derandomize=True, database=None)
    @given(programs())
    def check(program: list[str]) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(stacks.JOINED, "cpu", joined)
            stacked, _ = outside(rule(program), 0, "cpu")
        assert stacked.passed, (stacked, code(*program))

    check()


def test_a_value_read_once_is_written_over_and_one_read_twice_is_not() -> None:
    assert code("u = grad + weight", "delta = -lr * u") == ["u = grad + weight", "delta = u.mul_(-lr)"]
    twice = code("u = grad + weight", "n = u + n", "delta = -lr * u - n")
    assert twice[:2] == ["u = grad + weight", "n.add_(u)"]


def test_a_state_moves_where_it_is_unless_it_was_read_before() -> None:
    assert code("m = 0.9 * m - lr * grad", "delta = m") == ["m.mul_(0.9).sub_(grad, alpha=lr)", "delta = m"]
    assert code("u = m", "m = 0.9 * m + grad", "delta = m - u")[1] == "m = (0.9 * m).add_(grad)"


def test_products_and_quotients_are_added_in_one_operation() -> None:
    assert code("m = 0.9 * m + 0.1 * grad ** 2", "delta = m")[0] == "m.mul_(0.9).addcmul_(grad, grad, value=0.1)"
    shared = code("m = 0.9 * m - lr * grad / (abs(weight) + 1)", "delta = m")[0]
    assert shared == "m.mul_(0.9).addcdiv_(grad, torch.abs(weight).add_(1), value=-lr)"


@pytest.mark.parametrize("factor", ["(1 - lr)", "(-lr + 1)", "-lr", "(-lr * 2)", "(-2)", "lr"])
def test_what_is_taken_away_has_the_other_sign(factor: str) -> None:
    program = [f"m = 0.9 * m - {factor} * grad ** 2", "delta = -lr * (m + weight)"]
    assert next(outside(rule(program), 0, "cpu")).passed, code(*program)


def test_where_a_gradient_passes_nothing_is_written_over() -> None:
    text = "\n".join(rule_view(rule(["m = 0.9 * m + 0.1 * grad ** 2", "delta = -lr * (m + weight)"]), "r").lines)
    assert "_(" not in text
