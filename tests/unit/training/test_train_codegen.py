"""The text of train.py: it says what the spec says, and its rules are the rules."""

from __future__ import annotations

import ast
import shutil
import subprocess
import types
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from jinja2 import Environment, meta, nodes
from torch import nn

from codegen import train as generator
from codegen.train import TrainView, distinct, literal, margin, train
from nlc.diagnostics import SpecError
from nlc.graph.graph import Graph
from nlc.graph.nodes import Carry, Period, Rule, Unit
from runtime.level import Level as Updated
from runtime.level import Weights

from . import tiny
from .conftest import HEADER
from .graphs import at, graph, level, memory, program, shipped, two_levels, weight

Golden = Callable[[Path, str], None]


def text_of(found: Graph) -> str:
    return train(found, header=HEADER, digest="3f2a91c0")


def one_level(rule: Rule, rate: float = 0.1, steps: int = 1) -> Graph:
    owned = weight("w", "train", True, block="")
    return graph([owned, level("train", steps, rule, rate, 10, [owned.id], 1)], stack=())


def loaded(found: Graph) -> types.ModuleType:
    """The module of a generated train.py, over the tiny model."""
    module = types.ModuleType("train")
    source = text_of(found).replace("from model import", "from tests.unit.training.tiny import")
    exec(compile(source, "train.py", "exec"), module.__dict__)
    return module


def test_two_levels_read_as_a_nested_loop(golden: Golden) -> None:
    golden(Path(__file__).parents[2] / "golden/test_train_codegen/two_levels.txt", text_of(two_levels()))


def test_stream_memories_get_lanes_and_a_state_that_goes_on(golden: Golden) -> None:
    found = two_levels(schedule="constant", precision="float64", clip=0.0)
    token = Period(1, Unit.TOKEN)
    found = found.with_nodes([memory("key", "titans", token, carry=Carry.STREAM)])
    golden(Path(__file__).parents[2] / "golden/test_train_codegen/stream.txt", text_of(found))


VARIANTS = {
    "two levels": two_levels(),
    "stream": two_levels().with_nodes([memory("key", "titans", Period(1, Unit.TOKEN), carry=Carry.STREAM)]),
    "gd": one_level(shipped("gd")),
    "momentum, every 3 steps": one_level(shipped("momentum"), steps=3),
    "numbers": one_level(
        program("a = sqrt(2) ** -b\nc, d = e\ndelta = -lr * a * max(grad, c) * d ** count", b=2, e=(1.5, 0.5))
    ),
}


@pytest.mark.parametrize("found", VARIANTS.values(), ids=VARIANTS)
def test_text_is_as_a_formatter_leaves_it(found: Graph, tmp_path: Path) -> None:
    text = text_of(found)
    ast.parse(text)
    assert max(map(len, text.splitlines())) <= 120 and not any(line != line.rstrip() for line in text.splitlines())
    ruff = shutil.which("ruff")
    if ruff is None:
        pytest.skip("ruff is not installed")
    (tmp_path / "train.py").write_text(text)
    for command in (["format", "--check", "--diff"], ["check", "--select", "E,F,W,UP,B,SIM"]):
        done = subprocess.run(
            [ruff, *command, "--line-length=120", "train.py"], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_template_asks_for_exactly_what_its_view_offers() -> None:
    path = Path(generator.__file__).parent / "templates" / "train.py.j2"
    tree = Environment().parse(path.read_text(encoding="utf-8"))
    assert meta.find_undeclared_variables(tree) == {"view"}
    asked = {
        node.attr
        for node in tree.find_all(nodes.Getattr)
        if isinstance(node.node, nodes.Name) and node.node.name == "view"
    }
    assert asked == {field.name for field in fields(TrainView)}


# ---- the rules ------------------------------------------------------------------------------------------------------


def updated(rule: Rule, gradients: Sequence[torch.Tensor], rate: float = 0.1, decays: bool = True) -> torch.Tensor:
    """A weight after the generated function has had these gradients."""
    module = loaded(one_level(rule))
    model = nn.ParameterDict({"w": nn.Parameter(torch.linspace(-1, 2, 12, dtype=torch.float64).reshape(3, 4))})
    update = Updated("train", Weights(model, decay=("w",) if decays else ()).take("*"), state=states(module))
    params = {param.name: param.number for param in rule.params}
    for gradient in gradients:
        model["w"].grad = gradient.clone()
        with torch.no_grad():
            getattr(module, rule.name)(update, lr=rate, **params)
    return model["w"].detach()


def states(module: types.ModuleType) -> tuple[str, ...]:
    """What the generated file makes its level with."""
    model = nn.ParameterDict({"w": nn.Parameter(torch.zeros(1))})
    (made,) = module.levels(model)
    return tuple(made.weights[0].state)


@pytest.fixture
def gradients() -> list[torch.Tensor]:
    """Small enough that no clip of 1 touches them."""
    torch.manual_seed(0)
    return [0.1 * torch.randn(3, 4, dtype=torch.float64) for _ in range(7)]


@pytest.mark.parametrize("decays", [True, False], ids=["decays", "does not"])
def test_adamw_is_adamw(gradients: list[torch.Tensor], decays: bool) -> None:
    found = updated(shipped("adamw", betas=(0.9, 0.95), weight_decay=0.1), gradients, 0.01, decays)
    w = nn.Parameter(torch.linspace(-1, 2, 12, dtype=torch.float64).reshape(3, 4))
    reference = torch.optim.AdamW([w], lr=0.01, betas=(0.9, 0.95), weight_decay=0.1 * decays)
    for gradient in gradients:
        w.grad = gradient
        reference.step()
    torch.testing.assert_close(found, w.detach(), rtol=1e-12, atol=1e-12)


def test_momentum_is_the_heavy_ball(gradients: list[torch.Tensor]) -> None:
    w, m = torch.linspace(-1, 2, 12, dtype=torch.float64).reshape(3, 4), torch.zeros(3, 4, dtype=torch.float64)
    for gradient in gradients:
        m = 0.9 * m - 0.1 * gradient
        w = w + m
    torch.testing.assert_close(updated(shipped("momentum"), gradients), w, rtol=1e-13, atol=1e-13)


def test_gd_descends(gradients: list[torch.Tensor]) -> None:
    w = torch.linspace(-1, 2, 12, dtype=torch.float64).reshape(3, 4) - 0.1 * sum(gradients)
    torch.testing.assert_close(updated(shipped("gd"), gradients), w, rtol=1e-13, atol=1e-13)


def test_a_rule_may_set_the_weight_itself_and_see_its_start(gradients: list[torch.Tensor]) -> None:
    rule = program("s = s - lr * grad\nweight = where(count < 3, start, start + s)", state=["s"])
    w = torch.linspace(-1, 2, 12, dtype=torch.float64).reshape(3, 4)
    torch.testing.assert_close(updated(rule, gradients[:2]), w, rtol=0, atol=0)
    torch.testing.assert_close(updated(rule, gradients[:4]), w - 0.1 * sum(gradients[:4]), rtol=1e-13, atol=1e-13)


def test_a_slower_level_of_a_rule_sees_the_sum_over_its_period(gradients: list[torch.Tensor]) -> None:
    fast = program("delta = -lr * (grad + slow)", name="own", state=[]).levels[0]
    slow = program("slow = grad / 3", state=["slow"], period=3).levels[0]
    rule = Rule(name="own", params=(), levels=(fast, slow))
    w, held = torch.linspace(-1, 2, 12, dtype=torch.float64).reshape(3, 4), torch.zeros(3, 4, dtype=torch.float64)
    for i, gradient in enumerate(gradients):
        w = w - 0.1 * (gradient + held)
        if (i + 1) % 3 == 0:
            held = sum(gradients[i - 2 : i + 1]) / 3
    torch.testing.assert_close(updated(rule, gradients), w, rtol=1e-13, atol=1e-13)


def test_numbers_stay_numbers() -> None:
    text = text_of(VARIANTS["numbers"])
    assert "    a = math.sqrt(2) ** -b\n    c, d = e\n    for weight, grad, _, _ in" in text
    assert "delta = -lr * a * grad.clamp(min=c) * d**level.count" in text


def test_what_needs_a_layers_inputs_is_refused_at_the_rule() -> None:
    with pytest.raises(SpecError) as caught:
        text_of(one_level(shipped("dgd")))
    (found,) = caught.value.diagnostics
    assert found.code == "NLC1001" and found.at == at(12) and "reads 'gram'" in found.message


def test_a_precision_that_is_not_there_yet_is_refused() -> None:
    with pytest.raises(SpecError, match="bfloat16"):
        text_of(two_levels(precision="bfloat16"))


# ---- ownership ------------------------------------------------------------------------------------------------------


def test_every_weight_has_the_owner_of_the_graph() -> None:
    found, model = two_levels(), tiny.Tiny()
    made = {level.name: level for level in loaded(found).levels(model)}
    assert list(made) == ["train", "cms.slow"]
    owners = {w.name: name for name, level in made.items() for w in level.weights}
    assert set(owners) == {name for name, _ in model.named_parameters()}
    assert {name for name, owner in owners.items() if owner == "cms.slow"} == {
        f"blocks.{i}.cms.slow.{part}" for i in (0, 1) for part in ("W_in", "b_in")
    }
    decaying = {w.name.split(".", 2)[2] for level in made.values() for w in level.weights if w.decays}
    assert decaying == {"q.linear", "cms.slow.W_in"}


def test_weights_that_no_level_owns_are_frozen() -> None:
    found = two_levels()
    conv = replace(found["w:h.conv"], owner="")
    train_level = found["train"]
    kept = tuple(id for id in train_level.weights if id != conv.id)
    text = text_of(found.with_nodes([conv, replace(train_level, weights=kept)]))
    assert '    weights.freeze("blocks.*.h.conv")\n' in text


def test_a_pattern_never_reaches_into_another_kind_of_block() -> None:
    mine = [weight("x.linear", "fast", block="a"), weight("x.linear", "slow", block="b")]
    mine = [replace(w, id=f"{w.block}/{w.path}") for w in mine]
    rule = shipped("gd")
    levels = [level("fast", 1, rule, 0.1, 10, [mine[0].id], 1), level("slow", 2, rule, 0.1, 20, [mine[1].id], 2)]
    text = text_of(graph([*mine, *levels], stack=("a", "b", "a")))
    assert 'slow = Level("slow", weights.take("blocks.1.x.linear"))' in text


# ---- text -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1e-3, "1e-3"), (3e-4, "3e-4"), (1.25e-5, "1.25e-5"), (0.01, "0.01"), (1.0, "1.0"), ((0.9, 0.95), "(0.9, 0.95)"),
     ((1,), "(1,)"), (1e-8, "1e-8"), (1 / 300, "0.0033333333333333335"), (True, "True")],
)  # fmt: skip
def test_numbers_are_written_as_a_person_would(value: object, expected: str) -> None:
    assert literal(value) == expected
    assert ast.literal_eval(expected) == value


def test_variables_are_short_where_that_is_clear() -> None:
    assert distinct(["train", "cms.slow"], ()) == {"train": "train", "cms.slow": "slow"}
    assert distinct(["a.slow", "b.slow"], ()) == {"a.slow": "a_slow", "b.slow": "b_slow"}
    assert distinct(["loss", "x.class"], {"loss"}) == {"loss": "loss_level", "x.class": "class_level"}


def test_places_stand_at_the_right_margin_while_there_is_room() -> None:
    line = margin("for x in y:", "level a", at(7))
    assert len(line) == 120 and line.startswith("for x in y:  # level a ") and line.endswith(" tiny.yaml:7")
    assert margin("x" * 118, "level a", at(7)) == "x" * 118
