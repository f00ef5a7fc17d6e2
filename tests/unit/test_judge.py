"""What `nlc verify` compares: a state that differs anywhere is found, and a bare program's inputs are legal."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import nlc
from nlc.graph.nodes import Memory
from nlc.period import Unit
from nlc.spec import load, shipped
from nlc.verify import verify
from nlc.verify.cases import shares, vectors
from nlc.verify.judge import FLOAT64, compare, length
from nlc.verify.small import CHUNKS, chunk_settings, small_settings
from tests.differential.machine import SPECS, Run, case_of, compiled, generated, reference
from tests.unit.programs import cell


@pytest.mark.parametrize(
    ("spec", "part"),
    [
        ("periodic_dgd", "sum.M"),
        ("periodic_dgd", "gram.M"),
        ("periodic_kept", "kept"),
        ("adamw_token", "rule.count"),
        ("tail_drop", "origin"),
    ],
)
def test_every_register_is_compared(spec: str, part: str) -> None:
    program, model = compiled(SPECS / f"{spec}.yaml")
    case = case_of(program, 5, batch=1)
    right, mine = (run(program, model, case, (5,)) for run in (reference, generated))
    assert compare("", "", mine, right, FLOAT64).passed  # type: ignore[arg-type]
    found = [place for place, register in mine.state.items() if part in register]
    assert found, f"no register of {spec} holds {part}"
    for place in found:
        changed = {**mine.state, place: {**mine.state[place], part: mine.state[place][part] + 1}}
        outcome = compare("", "", Run(None, mine.outputs, changed, mine.gradients), right, FLOAT64)  # type: ignore[arg-type]
        assert not outcome.passed and outcome.where.endswith(f"{place} {part}")


@pytest.mark.parametrize("spec", ["tail_vector_flush", "stream"])
def test_where_the_end_of_a_call_matters_the_interpreter_is_cut_there_too(spec: str) -> None:
    report = verify(str(SPECS / f"{spec}.yaml"), chunks=(4,), full=False)
    assert report.passed, "\n".join(report.lines())
    assert "streamed" in {outcome.way for outcome in report.outcomes}


@pytest.mark.parametrize("name", shipped())
def test_verify_runs_every_memory_written_at_each_token_in_chunks_of_1_and_16_and_64(name: str) -> None:
    written = load(name)
    assert sorted(CHUNKS) == [1, 16, 64]
    longest = nlc.build(load(name, small_settings(written) | chunk_settings(written, 64)))
    memories = [m for m in longest.of(Memory) if m.rule and (m.period.count, m.period.unit) == (1, Unit.TOKEN)]
    assert all(memory.chunk == 64 for memory in memories)


def test_only_what_is_a_share_itself_is_kept_between_0_and_1() -> None:
    level = """
        - {name: a, every: 1 token, rate: 0.5 * eta, retain: 1 - alpha, objective: huber(d),
           memories: {m: {form: matrix, keys: k, values: v}}}
        - {name: b, every: 1 token, retain: tanh(g) * tanh(g), memories: {n: {form: matrix, keys: k, values: v}}}
    """
    vector, number = "[heads, head]", "[heads]"
    inputs = {"k": vector, "v": vector, "q": vector} | dict.fromkeys(("eta", "alpha", "d", "g"), number)
    text = "{" + ", ".join(f"{name}: {shape}" for name, shape in inputs.items()) + "}"
    graph = cell(level, "y = m(q) + n(q)", inputs=text)
    assert shares(graph) == {"eta", "alpha", "d"}
    drawn = vectors(graph, 2, 50, torch.Generator().manual_seed(0))
    assert all(bool(((x > 0) & (x < 1)).all()) for name, x in drawn.items() if name in shares(graph))
    assert float(drawn["g"].min()) < 0


def test_the_length_of_numbers_whose_squares_overflow() -> None:
    assert length(torch.tensor([3e200, 4e200], dtype=torch.float64)) == pytest.approx(5e200)
    assert length(torch.tensor([3e-200, 4e-200], dtype=torch.float64)) == pytest.approx(5e-200)
    assert length(torch.zeros(2)) == length(torch.zeros(0)) == 0


FAR = """
nlc: 1
name: far
sizes: {heads: 2, head: 4}
inputs: {k: [heads, head], v: [heads, head]}
levels:
  - {name: a, every: 1 token, rate: 1e9, memories: {m: {form: matrix, keys: k, values: v}}}
block: y = m(k)
outputs: [y]
"""


def test_of_a_program_that_diverges_itself_it_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "far.yaml").write_text(FAR)
    report = verify(str(tmp_path / "far.yaml"), chunks=(1,), full=False)
    assert not report.passed and "not finite in the interpreter either" in report.lines()[-1]
