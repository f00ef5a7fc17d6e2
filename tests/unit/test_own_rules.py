"""Rules of a spec's own: where they are found, what is refused and where, what commands say of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from codegen.rules import rule_view
from nlc.compile import compile
from nlc.diagnostics import Reporter, SpecError
from nlc.explain import explain
from nlc.explain_rule import explain_rule, report_rule
from nlc.graph.choices import rule_of
from nlc.graph.dump import from_text, to_text
from nlc.graph.hash import graph_hash
from nlc.graph.unheeded import unheeded
from nlc.passes import build
from nlc.spec import load, load_rule, loads, rules
from nlc.spec.resolve import to_yaml
from nlc.spec.rule import rule_from
from nlc.spec.text import parse
from nlc.verify.judge import Report, judge
from nlc.verify.rules import CELLS, outside, verify_rule

LION = """\
nlc: 1
rule: lion
params: {lr: 1e-4, beta: 0.9, beta2: 0.99}
levels:
  - every: 1 update
    state: {m: zeros}
    do: |
      delta = -lr * sign(beta * m + (1 - beta) * grad)
      m = beta2 * m + (1 - beta2) * grad
"""

SPEC = """\
nlc: 1
name: own
sizes: {heads: 2, head: 3, wide: 4}
inputs: {k: [heads, head], v: [heads, wide], s: [heads]}
levels:
  - {name: m, every: 1 token, rule: RULE, rate: 0.1, read: before, memories: {memory: {form: FORM, keys: k, values: v}}}
block: y = memory(k) * s
outputs: [y]
"""


def spec(rule: str, rules: str = "", form: str = "matrix") -> str:
    return SPEC.replace("RULE", f"'{rule}'").replace("FORM", f"'{form}'") + rules


def own(do: str, more: str = "") -> str:
    """A spec whose rule `mine` has this program."""
    body = "\n".join(f"        {line}" for line in do.split("\n"))
    params = {name: of for name, of in {"a": "0.5", "b": "[1, 2]"}.items() if re.search(rf"\b{name}\b", more + do)}
    head = "rules:\n  mine:\n    params: {PARAMS}\n    levels:\n    - every: 1 update\n"
    head = head.replace("PARAMS", ", ".join(f"{name}: {of}" for name, of in params.items()))
    return spec("mine", f"{head}{more}      do: |\n{body}\n")


def refusals(text: str) -> list[str]:
    with pytest.raises(SpecError) as caught:
        build(loads(text, "s.yaml"))
    return [f"{d.code} {d.at.line}: {d.message}" for d in caught.value.diagnostics]


def test_a_rule_file_beside_the_spec_is_found_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "lion.yaml").write_text(LION)
    (tmp_path / "spec.yaml").write_text(spec("lion(beta=s)"))
    found = load(tmp_path / "spec.yaml")
    assert build(found)["m.memory"].rule.name == "lion"
    again = loads(to_yaml(found.resolved()))  # alone, in another folder
    assert graph_hash(build(again)) == graph_hash(build(found))


def test_a_rule_file_may_lie_below_and_have_another_place(tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "l.yaml").write_text(LION)
    (tmp_path / "spec.yaml").write_text(spec("lion", "rules: {lion: rules/l.yaml}\n"))
    assert build(load(tmp_path / "spec.yaml"))["m.memory"].rule.name == "lion"


@pytest.mark.parametrize(
    ("entry", "code"), [("../lion.yaml", "NLC0207"), ("lion.yaml", "NLC0208"), ("5", "NLC0202")], ids=str
)
def test_a_path_that_leads_nowhere_is_refused_where_it_stands(tmp_path: Path, entry: str, code: str) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    (tmp_path / "lion.yaml").write_text(LION)
    (folder / "spec.yaml").write_text(spec("tiger", f"rules: {{tiger: {entry}}}\n"))
    with pytest.raises(SpecError) as caught:
        load(folder / "spec.yaml")
    (found,) = caught.value.diagnostics
    assert (found.code, found.at.line) == (code, 9)


def test_what_is_wrong_in_a_rule_file_is_said_once_and_there(tmp_path: Path) -> None:
    (tmp_path / "lion.yaml").write_text(LION.replace("beta * m", "betta * m"))
    two = spec("lion").replace("block:", "  - {name: n, every: 2 tokens, rule: lion, memories: {}}\nblock:")
    (tmp_path / "spec.yaml").write_text(two)
    with pytest.raises(SpecError) as caught:
        load(tmp_path / "spec.yaml")
    (found,) = [d for d in caught.value.diagnostics if d.code == "NLC0410"]
    assert found.at.file.endswith("lion.yaml") and found.at.line == 8 and "did you mean 'beta'" in found.hint


REFUSED = {
    "a vector that does not fill": ("delta = -lr * k", "NLC0410 15: 'delta' is [rows, cols], and this is [cols]"),
    "shapes": ("delta = -lr * grad @ grad", "NLC0410 15: shapes do not meet: [rows, cols] @ [rows, cols]"),
    "a list as a number": ("delta = b * grad", "NLC0410 15: 'b' is a list of numbers"),
    "unpacking": ("c, d = a\ndelta = c * grad", "NLC0410 15: 'a' is no list of 2 numbers"),
    "an operator with weights": ("delta = linear(grad)", "NLC0410 15: 'linear' in a rule"),
    "no such option": ("delta = newton_schulz(grad, stepps=3)", "NLC0410 15: 'newton_schulz' has no 'stepps'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_program_that_cannot_run_is_refused(case: str) -> None:
    do, expected = REFUSED[case]
    assert refusals(own(do)) == [expected]


MEMORIES = {
    "no values": ("{form: matrix, keys: grad}", "NLC0203"),
    "an unknown key": ("{form: matrix, keys: grad, values: grad, rate: 1}", "NLC0201"),
    "a form without a map": ("{form: attention, keys: grad, values: grad}", "NLC0403"),
    "columns that do not pair": ("{form: matrix, keys: grad, values: transpose(grad)}", "NLC0410"),
    "another writer": ("{form: matrix, keys: grad, values: grad, rule: adamw}", "NLC1001"),
    "biases": ("{form: 'mlp(bias=true)', keys: grad, values: grad}", "NLC1001"),
}


@pytest.mark.parametrize("case", MEMORIES)
def test_a_memory_that_cannot_be_is_refused(case: str) -> None:
    said, code = MEMORIES[case]
    found = refusals(own("delta = m(grad)", f"      memories: {{m: {said}}}\n"))
    assert [f.split(":")[0] for f in found if f.startswith(code)], found


def test_a_memory_is_read_with_what_its_keys_are_like() -> None:
    memory = "      memories: {m: {form: matrix, keys: grad, values: grad}}\n"
    assert refusals(own("delta = transpose(m(transpose(grad)))", memory)) == [
        "NLC0410 16: 'm' is read with [cols, rows]"
    ]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (own("delta = -lr * outer(error, x)").replace("1 token", "2 tokens"), "NLC1001"),
        (own("delta = -lr * outer(v, k)").replace("form: 'matrix'", "form: 'mlp(hidden=3)'"), "NLC0410"),
    ],
    ids=["of many pairs", "of a form that is no matrix"],
)
def test_one_pair_is_asked_for_only_where_there_is_one(text: str, code: str) -> None:
    assert [f[:7] for f in refusals(text)] == [code]


def test_a_graph_with_rules_of_its_own_prints_and_reads_back() -> None:
    memory = (
        "      memories: {m: {form: 'mlp(hidden=2x)', keys: grad, values: -grad, objective: dot, rule: gd(lr=a)}}\n"
    )
    graph = build(loads(own("delta = lr * a * m(grad)", memory)))
    assert from_text(to_text(graph)) == graph


@pytest.mark.parametrize("name", rules())
def test_every_shipped_rule_is_explained(name: str) -> None:
    found = explain_rule(load_rule(name))
    text = report_rule(found)
    assert found.doc and text.startswith(name) and all(level.every in text for level in found.levels)
    assert rule_of(load_rule(name)).name == name


RICH = """
nlc: 1
rule: rich
params: {lr: 0.01, beta: 0.5, period: 2}
levels:
  - every: 1 update
    state: {m: zeros, row: zeros}
    do: |
      scale = sqrt(mean(grad ** 2)) + 1
      row = beta * row + scale
      m = beta * m + outer(error, x) + l2norm(grad) * max(lr, 0.1)
      soft = transpose(softmax(transpose(m)))
      delta = -lr * (m / row + where(m > 0, slow, eye(rows) @ m)) + lr * grad[0] * 0.1 + lr * soft
  - every: period updates
    state: {slow: zeros}
    memories:
      f: {form: 'mlp(hidden=2, act=silu)', keys: grad, values: m, read: before, rule: gd(lr=0.01)}
    do: slow = beta * f(grad) + 0.1 * norm(grad, 1) / cols
"""


def test_a_rule_that_uses_most_of_the_language_is_verified(tmp_path: Path) -> None:
    from nlc.spec.rulebook import find_rule

    (tmp_path / "rich.yaml").write_text(RICH)
    rule = find_rule(str(tmp_path / "rich.yaml"))
    assert rule is not None
    report = verify_rule(rule, cells=CELLS[:2], full=False)
    assert report.passed and report.outcomes, "\n".join(report.lines())


@pytest.mark.parametrize("name", ["clip", "rule", "state", "kept", "torch", "l2norm"])
def test_a_name_that_generated_code_has_too_is_free_for_parameters_states_and_values(name: str) -> None:
    text = LION.replace("params: {", f"params: {{{name}: 0.5, ").replace("* sign(", f"* {name} * sign(")
    state = LION.replace("m = beta2 * m", f"{name} = beta2 * {name}").replace("m: zeros", f"{name}: zeros")
    value = LION.replace("delta =", f"{name} = l2norm(grad)\n      delta =").replace("* grad)\n", f"* {name})\n", 1)
    for rule in (text, state.replace("beta * m", f"beta * {name}"), value):
        tree = parse(rule, "r.yaml", Reporter())
        assert tree is not None
        assert all(each.passed for each in outside(rule_of(rule_from(tree)), 0, "cpu"))


SLOWER = {  # what a level of every update does, and one of every third
    "sets the weight": ("m = 0.9 * m + grad", "weight = retain * weight - lr * m"),
    "sets what a faster one moved": ("delta = -lr * grad", "weight = (weight + delta + start) / 2"),
    "sets the weight again": ("weight = retain * weight - grad", "weight = (weight + start) / 2"),
}


@pytest.mark.parametrize(("faster", "slower"), SLOWER.values(), ids=SLOWER)
def test_a_slower_level_of_a_rule_may_set_the_weight(faster: str, slower: str) -> None:
    state = "state: {m: zeros}, " * faster.startswith("m")
    levels = f"- {{every: 1 update, {state}do: {faster}}}\n- {{every: 3 updates, do: {slower}}}\n"
    tree = parse(f"nlc: 1\nrule: r\nlevels:\n{levels}", "r.yaml", Reporter())
    assert tree is not None
    report = verify_rule(rule_from(tree), cells=CELLS[:1], full=False)
    assert [each for each in report.outcomes if not each.passed] == []


def test_a_slower_level_that_reads_no_gradient_keeps_no_sum_of_them() -> None:
    levels = "- {every: 1 update, do: delta = -lr * grad}\n- {every: 3 updates, state: {far: zeros}, do: DO}\n"
    kept, costs = {}, {}
    for program in ("far = 0.9 * far + 0.1 * weight", "far = 0.9 * far + grad"):
        whole = f"nlc: 1\nrule: r\nlevels:\n{levels}".replace("DO", program)
        whole = whole.replace("delta = -lr * grad", "delta = -lr * (grad + 0.1 * far)")
        tree = parse(whole, "r.yaml", Reporter())
        assert tree is not None
        rule = rule_from(tree)
        report = verify_rule(rule, cells=CELLS[:1], full=False)
        assert [each for each in report.outcomes if not each.passed] == []
        kept[program], costs[program] = rule_view(rule_of(rule), "r").state, explain_rule(rule).kept
    assert [*kept.values()] == [("far",), ("far", "level2_grad")]
    assert [*costs.values()] == [1, 2]


def test_a_norm_is_of_an_order_above_zero() -> None:
    (found,) = refusals(own("delta = -lr * a * grad / norm(grad, 0)"))
    assert found.endswith("'norm(grad, 0)' is no norm: its order is above 0")


def test_a_rule_that_nothing_names_is_a_choice_that_is_left() -> None:
    text = own("delta = -lr * a * grad")
    other = loads(text, set={"levels.m.rule": "gd"})
    assert build(other) and build(loads(text)) and "rules" not in other.resolved()


CHOICES = {  # a choice of a rule, and how it is written at a level that counts steps
    "m = where(count == 1, grad, m)": "m = grad if count == 1 else m",
    "m = where(count == 1, m, m) + grad": "m = m + grad",
    "m = where(true, m + grad, grad)": "m.add_(grad)",
    "m = 2 * where(1 < count, m, grad)": "m = 2 * (m if 1 < count else grad)",
}


@pytest.mark.parametrize("said", CHOICES)
def test_a_choice_is_written_as_one_would_write_it(said: str) -> None:
    do = f"do: |\n    {said}\n    delta = -lr * m\n"
    tree = parse(f"nlc: 1\nrule: r\nlevels:\n- every: 1 update\n  state: {{m: zeros}}\n  {do}", "r.yaml", Reporter())
    assert tree is not None
    rule = rule_of(rule_from(tree))
    assert CHOICES[said] in rule_view(rule, "r", inside=False).lines
    assert all(each.passed for each in outside(rule, 0, "cpu"))


def test_a_count_of_steps_stays_whole() -> None:
    assert refusals(spec("muon(ns_steps=2.5)")) == ["NLC0405 6: 'ns_steps' is '2.5'"]


REMEMBERS = {
    "the weight": ("delta = -lr * grad - 0.1 * (weight - s)\ns = weight", "m = grad"),
    "the gradient": ("delta = -lr * (grad + s)\ns = grad", "m = grad"),
    "another state": ("delta = -lr * (2 * m - before)\ns = m", "before = s\nm = 0.9 * m + (1 - 0.9) * grad"),
}


@pytest.mark.parametrize(("after", "first"), REMEMBERS.values(), ids=REMEMBERS)
def test_a_state_that_was_something_else_does_not_change_with_it(
    after: str, first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = "\n".join(f"      {line}" for line in [*first.split("\n"), *after.split("\n")])
    own = f"levels:\n  - every: 1 update\n    state: {{m: zeros, s: zeros}}\n    do: |\n{program}\n"
    tree = parse(f"nlc: 1\nrule: r\n{own}".replace("-lr *", "-lr * 0.5 * (m - m + 1) *"), "r.yaml", Reporter())
    assert tree is not None
    monkeypatch.setattr("nlc.verify.rules.SHAPES", {"alone": (4, 3)})  # with others it would be a copy of them all
    assert [each for each in outside(rule_of(rule_from(tree)), 0, "cpu") if not each.passed] == []


CHANNELS = """\
nlc: 1
name: channels
sizes: {heads: 2, head: 3, wide: 4}
inputs: {k: [heads, head], v: [heads, WIDE], a: [heads, head]}
levels:
  - {name: m, every: 2 tokens, rule: mine, retain: sigmoid(a), memories: {memory: {form: FORM, keys: k, values: v}}}
block: y = memory(k)
outputs: [y]
rules: {mine: {levels: [{every: 1 update, do: "DO"}]}}
"""


@pytest.mark.parametrize(
    ("do", "matrix", "vector"),
    [
        ("weight = transpose(retain * transpose(weight)) - grad", "a row [1, cols] meets [cols, rows]",
         "shapes do not meet: [rows] and [cols, rows]"),
        ("weight = weight @ (retain * gram) - grad", "", "shapes do not meet: [rows] and [cols, cols]"),
        ("weight = (retain * (weight @ transpose(weight))) @ weight - grad", "a row [1, cols] meets [rows, rows]", ""),
        ("delta = outer(v, retain * k) - grad", "a row [1, cols] meets [cols]", None),
        ("weight = min(retain, 0.5) * l2norm(sqrt(1 - retain) * weight) - grad", "", ""),
    ],
    ids=["turned", "inputs", "outputs", "key", "entries"],
)  # fmt: skip
def test_retention_by_key_channel_scales_columns_or_is_refused(do: str, matrix: str, vector: str | None) -> None:
    for form, wide, said in (("matrix", "wide", matrix), ("vector", "head", vector)):
        text = CHANNELS.replace("DO", do).replace("FORM", form).replace("WIDE", wide)
        text = text.replace("every: 2 tokens", "every: 1 token") if "outer" in do else text
        if said:
            message = f"'m.memory': retain is one number per key channel, and in rule 'mine' {said}"
            assert refusals(text) == [f"NLC0601 6: {message}"]
        elif said is not None:
            build(loads(text, "s.yaml"))


@pytest.mark.parametrize(
    "program",
    [
        pytest.param(
            """
  - every: 2 updates
    state: {b: zeros}
    memories:
      m: {form: matrix, keys: grad, values: -grad, read: before, rule: gd(lr=1e-2)}
    do: b = 0.9 * b + m(grad)
  - {every: 1 update, do: delta = -lr * b}
""",
            id="a-memory-of-a-slower-level",
        ),
        pytest.param(
            """
  - every: 2 updates
    state: {b: zeros}
    do: |
      b = 0.9 * b + grad
      b_new = tanh(grad)
      delta = -lr * b_new - 0.1 * b
""",
            id="a-value-called-as-the-new-state-would-be",
        ),
        pytest.param(
            """
  - every: 1 update
    memories:
      m: {form: matrix, keys: grad, values: -grad, read: before, rule: gd(lr=1e-2)}
    do: |
      m_before = tanh(grad)
      delta = lr * m(grad) - lr * m_before
""",
            id="a-value-called-as-the-memory-before-would-be",
        ),
        pytest.param("\n  - {every: 1 update, do: 'delta = -lr * max(0.1, -1, 0.2 * grad)'}\n", id="numbers-first"),
    ],
)
def test_names_of_a_rule_and_of_its_generated_function_do_not_meet(program: str) -> None:
    tree = parse(f"nlc: 1\nrule: mine\nparams: {{lr: 0.1}}\nlevels:{program}", "mine.yaml", Reporter())
    assert tree is not None
    report = verify_rule(rule_from(tree), cells=CELLS[2:3], full=False)
    assert report.passed, "\n".join(report.lines())


def test_a_number_that_a_gradient_meets_exactly_lets_half_of_it_through() -> None:
    """As the interpreter has it: at the first token the weight is its start."""
    program = compile(loads(own("delta = max(weight - stop(start), 0) - lr * grad")))
    judge(program, "relu", report := Report("tie"), seed=0, full=False, device="cpu")
    assert report.passed, "\n".join(report.lines())


def test_no_state_is_called_as_what_a_rule_keeps_besides() -> None:
    """Interpreter and generated code would both take the one for the other."""
    found = refusals(
        own("level2_grad = level2_grad + grad\ndelta = level2_grad", "      state: {level2_grad: zeros}\n")
    )
    assert len(found) == 1 and "'level2_grad' is a state that the rule has of its own" in found[0]


def test_a_memory_of_a_rule_is_no_value_too() -> None:
    memory = "      memories:\n        m: {form: matrix, keys: grad, values: grad}\n"
    assert "a memory called 'm', which is something else here" in refusals(own("m = grad\ndelta = m(grad)", memory))[0]


@pytest.mark.parametrize(
    ("program", "field", "said"),
    [
        ("delta = lr * outer(v, k)", "objective: dot", "reads neither grad nor error, so 'objective' says nothing"),
        ("delta = lr * outer(v, k)", "retain: 0.9, grad_at: kept", "neither grad nor error, so 'grad_at' says nothing"),
    ],
    ids=["objective", "grad_at"],
)
def test_a_field_that_the_rule_takes_nothing_from_is_refused(program: str, field: str, said: str) -> None:
    text = own(program)
    assert build(loads(text))
    (found,) = refusals(text.replace("read: before", f"read: before, {field}"))
    assert found.startswith("NLC0411 6") and found.endswith(said)


def test_it_is_said_where_a_rule_has_no_use_for_the_share_that_is_kept() -> None:
    text = own("weight = l2norm(weight - lr * grad)").replace("read: before", "read: before, retain: 0.9")
    said = "memory 'm.memory': rule mine sets the state itself, so retain says nothing"
    (warning,) = unheeded(build(loads(text)))
    assert warning.message == said and warning.code == "NLC0411" and warning.at.line == 6
    assert said in explain(build(loads(text))).notes
    assert unheeded(build(loads(text.replace("retain: 0.9", "retain: 0.9, grad_at: kept")))) == ()


@pytest.mark.parametrize("rule", ["kl", "lq", "sphere", "elastic_net"])
def test_it_is_said_where_a_rule_that_is_a_retention_has_no_use_for_where_the_rest_goes(rule: str) -> None:
    text = spec(rule)
    (warning,) = unheeded(build(loads(text.replace("read: before", "read: before, retain: 0.9, retain_to: start"))))
    assert warning.message.endswith(f"rule {rule} sets the state itself, so retain_to says nothing")
    assert unheeded(build(loads(text.replace("read: before", "read: before, retain: 0.9")))) == ()


def test_a_rule_that_sets_the_weight_and_keeps_no_share_is_verified() -> None:
    tree = parse(WEIGHTS_ALONE, "alone.yaml", Reporter())
    assert tree is not None
    report = verify_rule(rule_from(tree), cells=CELLS[2:3], full=False)
    assert report.passed, "\n".join(report.lines())


WEIGHTS_ALONE = """
nlc: 1
rule: alone
params: {lr: 0.1}
levels:
  - {every: 1 update, do: weight = l2norm(weight - lr * grad)}
"""


def test_a_parameter_that_is_learned_begins_in_its_range() -> None:
    (found,) = refusals(spec("momentum(beta=learned(1.5))"))
    assert found == "NLC0405 6: level 'm': 'beta' of 'momentum' is learned(1.5)"
    assert build(loads(spec("momentum(beta=learned(0.5))")))


def test_a_choice_is_not_learned() -> None:
    assert refusals(spec("momentum(nesterov=learned(0.5))"))[0].startswith("NLC0405 6: 'nesterov' of 'momentum'")
