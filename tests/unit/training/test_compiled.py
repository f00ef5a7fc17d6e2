"""Steps that torch's compiler computes, or the operations of a recorded one: their numbers, and what runs as always."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from nlc.bench.training import Steps, loaded, through
from nlc.cli import main
from nlc.compile import compile
from nlc.spec import load
from runtime.compiled import Compiled, Repeated, refusal, repeated
from runtime.compiled.recorded import recorded
from runtime.compiled.regions import SHORTEST, Region, cut, graph_of, key_of
from runtime.compiled.tape import Recording, Tape
from runtime.recordings import Recordings

TINY = {"sizes.width": 8, "sizes.heads": 2, "sizes.layers": 1, "sizes.context": 16, "run.batch": 2}
HOPE = TINY | {
    "levels.titans.chunk": 4,
    "levels.cms.memories.fast.every": "4 tokens",
    "levels.cms.memories.mid.every": "8 tokens",
}
SPANS = HOPE | {"sizes.context": 24, "run.memory": "0 B", "levels.titans.carry": "stream"}
COUNT = 3  # steps
compiles = pytest.mark.skipif(bool(refusal()), reason="there is no C++ compiler")


class Kept(Steps):
    """Keeps the model and the losses."""

    def steps(self, model: Any, levels: Any) -> Any:
        self.model, self.losses, model.span = model, [], model.span and 8
        return super().steps(model, levels)

    def report(self, loss: Tensor, state: Any = None) -> None:
        self.losses.append(loss.detach())


def module_of(spec: str, settings: dict[str, Any]) -> ModuleType:
    return loaded(compile(load(spec, settings)))


def run(module: ModuleType, recordings: Recordings | None = None) -> Kept:
    kept = Kept(module.settings, COUNT, graphs=recordings)
    through(module, kept)
    return kept


def filled(x: Tensor) -> Tensor:
    """Zeros, of which a view is written to."""
    found = torch.zeros(3)
    found[:1].copy_(x[:1])
    return found


def failing(line: str) -> None:
    raise AssertionError(line)


@pytest.mark.parametrize("kind", ["regions", "tape"])
@pytest.mark.parametrize(
    ("spec", "settings"),
    [("hope", HOPE | {"levels.cms.meta": "full"}), ("hope", SPANS | {"run.precision": "bfloat16"}),
     ("transformer", TINY), ("ttt_mlp", TINY)],
    ids=["full gradients", "spans in bfloat16", "transformer", "ttt_mlp"],
)  # fmt: skip
def test_the_operations_of_a_recorded_step_make_the_run_that_all_others_make(
    spec: str, settings: dict[str, Any], kind: str
) -> None:
    module = module_of(spec, settings)
    want, got = run(module), run(module, Repeated(failing) if kind == "tape" else Compiled(failing, most=0))
    assert all(a.equal(b) for a, b in zip(want.losses, got.losses, strict=True))
    assert all(a.equal(b) for a, b in zip(want.model.parameters(), got.model.parameters(), strict=True))
    assert want.model.fires == got.model.fires
    assert want.model.state_dict().keys() == got.model.state_dict().keys()


@compiles
def test_compiled_steps_give_the_same_loss_and_gradients_but_for_rounding() -> None:
    """Of tokens that were not there when the step was recorded."""
    model, notes = compile(load("deltanet", TINY)).model(seed=0, dtype=torch.float64), list[str]()
    text = torch.randint(256, (2, 2, 17), generator=torch.Generator().manual_seed(0))

    def gradients(tokens: Tensor) -> list[Tensor]:
        loss = model.loss(tokens[:, :-1], tokens[:, 1:], final=True)[0]
        found = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
        return [loss.detach(), *(g for g in found if g is not None)]

    want = gradients(text[1])
    model.recordings = Compiled(failing, notes.append, most=60)
    model.recordings.on = True
    gradients(text[0])
    for a, b in zip(gradients(text[1]), want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-14)
    assert len(notes) == 1 and not notes[0].startswith("0 of")


def test_what_the_compiler_refuses_runs_operation_by_operation_and_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: Any) -> None:
        raise RuntimeError("no such instruction\nand a long trace")

    monkeypatch.setattr(torch._inductor, "compile", refuse)
    module, said, notes = module_of("transformer", TINY), list[str](), list[str]()
    want, got = run(module), run(module, Compiled(said.append, notes.append))
    assert all(a.equal(b) for a, b in zip(want.losses, got.losses, strict=True))
    assert said and all("cannot be compiled (no such instruction)" in line for line in said)
    assert notes[0].startswith("0 of the ")


def test_other_numbers_than_the_recorded_ones_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(graph: Callable[..., Any], given: Any) -> Callable[..., Any]:
        return lambda *given: [1.01 * x if x.is_floating_point() else x for x in graph(*given)]

    monkeypatch.setattr(torch._inductor, "compile", wrong)
    module, said = module_of("transformer", TINY), list[str]()
    want, got = run(module), run(module, Compiled(said.append))
    assert all(a.equal(b) for a, b in zip(want.losses, got.losses, strict=True))
    assert len(said) == 1 and "gives other numbers" in said[0] and "are run as always" in said[0]


@pytest.mark.parametrize(
    ("why", "function"),
    [
        ("draws random numbers", lambda x: x * torch.rand(3)),
        ("a number is taken out of a tensor", lambda x: x * float(x.sum())),
        ("a number is taken out of a tensor", lambda x: x * float(filled(x).sum())),
        ("a shape depends on numbers", lambda x: x * len(x[x > 0])),
        ("numbers are taken out of a tensor (tolist)", lambda x: x * x.tolist()[0]),
        ("numbers are taken out of a tensor (numpy)", lambda x: x * float(x.numpy()[0])),
        ("writes to a tensor that was there before it", lambda x: x.add_(1)),
    ],
)
def test_what_differs_from_step_to_step_is_not_recorded(why: str, function: Callable[[Tensor], Tensor]) -> None:
    said: list[str] = []
    recordings = Compiled(said.append)
    for _ in range(2):
        (found,) = recordings.run(
            compile(load("transformer", TINY)).model(), "", lambda g: [function(*g)], [torch.ones(3)]
        )
    assert found is not None and len(said) == 1 and why in said[0]


def test_a_recording_knows_what_is_written_to() -> None:
    x = torch.ones(4)
    with Recording([x]) as recording:
        y = x + 1
        y[1:].add_(x[1:])
    tape = recording.outputs([y])
    assert [bool(step.changes) for step in tape.steps] == [False, False, False, True]


def test_a_tensor_that_is_squeezed_in_place_is_a_view_of_what_it_was() -> None:
    """As torch does to a vector times a matrix; inductor would forget it."""
    x = torch.ones(3)
    with Recording([x]) as recording:
        y = x @ torch.ones(3, 4)
    tape = recording.outputs([y])
    assert tape.made[0] is not None and tape.looks[tape.made[0]][0] == (4,)
    assert [step.operation._schema.name for step in tape.steps[-2:]] == ["aten::mm", "aten::squeeze"]
    assert not any(step.changes for step in tape.steps)


def layer(x: Tensor, weight: Tensor) -> Tensor:
    """Products with much between them, and a tensor that is written to a slice at a time."""
    for function in (torch.sin, torch.cos, torch.tanh, torch.sigmoid, torch.relu, torch.erf, torch.atan, torch.sinh):
        for _ in range(SHORTEST):
            x = function(x)
        x = x @ weight
    y = torch.zeros_like(x)
    for i in range(4):
        y[i].copy_((x @ weight)[i])
    return y


def layers(x: Tensor, weights: list[Tensor]) -> tuple[Tape, list[Region]]:
    """A tape of equal layers, and its regions."""
    with Recording([x]) as recording:
        y = x
        for weight in weights:
            y = layer(y, weight)
    tape = recording.outputs([y])
    return tape, cut(tape)


def test_regions_are_all_steps_in_their_order_and_equal_layers_are_equal_regions() -> None:
    weights = [torch.randn(4, 4, generator=torch.Generator().manual_seed(i)) for i in range(8)]
    tape, regions = layers(torch.ones(4, 4), weights)
    assert [step for region in regions for step in region.steps] == tape.steps
    made: set[int] = set(tape.given) | set(tape.outside)
    for region in regions:
        assert made >= set(region.reads)
        made |= set(region.makes)
    assert {at for at in tape.made if at is not None} <= made
    keys = [key_of(tape, region) for region in regions]
    assert len(regions) >= 8 and len(set(keys)) <= len(keys) // 2


def test_a_region_changes_nothing_that_was_made_before_it() -> None:
    tape, regions = layers(torch.ones(4, 4), [torch.eye(4)] * 8)
    assert any(step.changes for region in regions for step in region.steps)
    for region in regions:
        own = {tape.storages[at] for step in region.steps for at in step.made if at is not None}
        own -= {tape.storages[at] for at in region.reads}
        assert len(region.steps) == 1 or all(step.changes <= own for step in region.steps)


def test_a_region_is_a_function_of_what_it_reads() -> None:
    x = torch.randn(4, 4, generator=torch.Generator().manual_seed(1))
    tape, regions = layers(x, [torch.eye(4)] * 8)
    values: dict[int, Tensor] = {tape.given[0]: x} | tape.outside
    for region in regions:
        values |= zip(region.makes, graph_of(region)(*(values[at] for at in region.reads)), strict=True)
    (at,) = tape.made
    want = x
    for _ in range(8):
        want = layer(want, torch.eye(4))
    assert at is not None
    torch.testing.assert_close(values[at], want)


def test_recording_is_apart_from_the_time_of_steps_and_its_replay_is_not() -> None:
    apart, inside, model = list[str](), list[bool](), compile(load("transformer", TINY)).model()

    @contextmanager
    def pause() -> Iterator[None]:
        apart.append("begins")
        yield
        apart.append("ends")

    def function(given: list[Tensor]) -> list[Tensor | None]:
        inside.append(apart == ["begins"])
        return [given[0] + 1]

    recordings = Compiled(failing, most=0, apart=pause)
    for _ in range(2):
        recordings.run(model, "", function, [torch.ones(3)])
    assert inside == [True] and apart == ["begins", "ends"]


def test_a_run_that_has_no_step_left_says_nothing_of_compiling(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main([*two_steps(tmp_path)]) == 0
    assert main(["train", "--resume", str(tmp_path / "run"), "--compile", "--device", "cpu"]) == 0
    assert "no step was recorded" not in capsys.readouterr().err


def two_steps(folder: Path) -> list[str]:
    """The words of a run that logs each of its steps."""
    sizes = [word for key, value in TINY.items() for word in ("--set", f"{key}={value}")]
    return ["train", "transformer", "--steps", "2", "--out", str(folder / "run"), "--device", "cpu", *sizes]


def test_a_run_of_which_no_step_is_compiled_says_so(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for option in ("--compile", "--tape"):
        assert main([*two_steps(tmp_path / option), option]) == 0
        assert f"{option}: no step was recorded, since steps that log are run as always" in capsys.readouterr().err


def test_without_a_compiler_the_run_does_not_begin(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("no-such-compiler",))
    given = two_steps(tmp_path)
    assert main([*given, "--compile"]) == 4
    assert "--compile needs a C++ compiler" in capsys.readouterr().err
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_two_ways_to_record_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for two in (("--compile", "--cuda-graphs"), ("--compile", "--tape"), ("--tape", "--cuda-graphs")):
        assert main(["train", "transformer", *two]) == 2
        assert f"{' and '.join(two)} each record the steps" in capsys.readouterr().err


def test_a_tape_keeps_its_places_and_gives_each_again_that_is_read_no_more() -> None:
    x, names = torch.rand(2, 3), Counter[str]()

    def step() -> list[Tensor | None]:
        sums = [x.detach().t().sum(dim=1) + i * torch.eye(3)[i] for i in range(3)]
        sums[0].detach().mul_(2)  # another name for what is given out
        for function in (torch.sin, torch.cos, torch.exp, torch.tanh):
            sums[2] = function(sums[2])
        return [*sums, None]

    made, tape = recorded(step)
    names.update(step.operation._schema.name for step in tape.steps)
    program = repeated.Program(tape)
    assert names["aten::t"] == 3 and names["aten::eye"] == 3  # views are taken, and what nothing changes is made, once
    assert len(program.calls) == 1 + 3 + 1 + 4  # the sum, additions, in place, functions
    assert program.bytes == 64 * 4  # of eight results
    for _ in range(2):
        x.mul_(3)
        for a, b in zip(step(), program.run(), strict=True):
            assert (a is None and b is None) or (a is not None and b is not None and a.equal(b))
    assert made[3] is None


def test_what_a_step_makes_twice_of_the_same_is_made_once() -> None:
    x = torch.rand(3)

    def step() -> list[Tensor | None]:
        once, again, other = x.sin().exp(), x.detach().sin().exp(), x.sin()
        other.add_(once)  # its own: it is changed
        changed = other.cos()
        other.add_(again)
        return [once, again, other, changed, other.cos(), x.view(3, 1).sin()]

    _, tape = recorded(step)
    program = repeated.Program(tape)
    assert len(program.calls) == 2 + 1 + 4 + 1  # sin, exp; sin; add_, cos, add_, cos; another shape's sin
    for _ in range(2):
        x.mul_(2)
        assert all(a is not None and b is not None and a.equal(b) for a, b in zip(program.run(), step(), strict=True))


def test_what_is_made_twice_is_made_twice_where_keeping_it_takes_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.rand(3)

    def step() -> list[Tensor | None]:
        for function in (torch.cos, torch.exp, torch.tanh):
            y = function(function(x.sin()))
        return [y + x.sin()]

    calls = []
    for more in (0.0, 10.0):
        monkeypatch.setattr(repeated, "MORE", more)
        program = repeated.Program(recorded(step)[1])
        calls.append(len(program.calls))
        (made,), (want,) = program.run(), step()
        assert made is not None and want is not None and made.equal(want)
    assert calls[0] > calls[1]


def test_what_no_operation_writes_is_not_repeated() -> None:
    with pytest.raises(RuntimeError, match="a kernel writes what no operation does"):
        repeated.Program(recorded(lambda: [torch.empty(3) + 1])[1])


def test_a_weight_that_has_moved_is_not_read_where_it_was() -> None:
    x = torch.rand(3)
    program = repeated.Program(recorded(lambda: [x.sin()])[1])
    x.data = torch.rand(3)
    with pytest.raises(RuntimeError, match="no longer where it was"):
        program.run()


def padded(x: Tensor) -> list[Tensor]:
    """Of what has no place for its results, several of them, or that leave some of them out; numbers, and cuts."""
    y = x.view(2, 3).requires_grad_()
    z = torch.nn.functional.pad(torch.nn.functional.layer_norm(y, (3,)), (1, 2, 1, 0), value=2.0)
    out = (z[:, 1:3].cumsum(0) * z[1].relu().sum()).sum() + y.new_zeros(2).add_(y[:, 0]).sum() + y.std()
    return [
        out.detach(),
        *torch.autograd.grad(out, [y]),
        torch.logsumexp(y.detach().double(), 1),
        y.detach().sort(1)[1],
        torch.nn.functional.pad(1 - 0.1 * y.detach() / 3, (-1, 0, 0, -1)),
        (1 - y.detach().bfloat16() * 0.1) < 0.97,
        y.detach().long() * 3 - 1,
    ]


def test_operations_put_their_results_where_they_belong() -> None:
    x = torch.rand(6)
    _, tape = recorded(lambda: [*padded(x.detach())])
    program = repeated.Program(tape)
    for _ in range(2):
        x.copy_(torch.rand(6))
        assert all(a is not None and a.equal(b) for a, b in zip(program.run(), padded(x.detach()), strict=True))


def test_a_function_of_the_same_name_that_does_something_else_is_not_called(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(x: Tensor, out: Tensor) -> Tensor:
        return out.copy_(x)

    monkeypatch.setattr(torch, "sin", wrong)
    x = torch.rand(3)
    _, tape = recorded(lambda: [x.sin()])
    (made,) = repeated.Program(tape).run()
    assert made is not None and made.equal(x.sin())


def test_a_step_of_too_many_operations_is_run_as_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeated, "MOST", 10)
    module, said = module_of("transformer", TINY), list[str]()
    want, got = run(module), run(module, Repeated(said.append))
    assert want.losses == got.losses and len(said) == 1
    assert "operations are more than 10" in said[0] and said[0].startswith("--tape: a step cannot be recorded")


def test_other_numbers_than_the_recorded_ones_are_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeated.Program, "run", lambda program: [torch.zeros(())] * len(program.made))
    module, said = module_of("transformer", TINY), list[str]()
    want, got = run(module), run(module, Repeated(said.append))
    assert want.losses == got.losses
    assert "what is repeated gives other numbers" in said[0]
