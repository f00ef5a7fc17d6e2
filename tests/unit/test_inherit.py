"""`start: from(checkpoint:path)`: what matches by name, and what is refused where it does not."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from nlc.compile import STARTS, compile
from nlc.diagnostics import SpecError
from nlc.inherit import inherited
from nlc.passes import build
from nlc.spec import load

SPEC = """
nlc: 1
name: small
sizes: {width: 4, heads: 1, layers: 2, vocab: 7, context: 8}
run: {batch: 2}
tied: false
levels:
  - name: cms
    objective: loss
    rule: gd
    memories:
      fast: {form: mlp(hidden=1x), every: 2 tokens START}
      slow: {form: mlp(hidden=1x), every: 1 step, carry: model}
  - {name: train, every: 1 step, objective: loss, rule: adamw, memories: rest OUTER}
block: |
  x = x + linear(fast(x))
  x = slow(x)
"""


def spec(folder: Path, memory: str = "", outer: str = "") -> Path:
    path = folder / "small.yaml"
    path.write_text(
        SPEC.replace("START", f", start: '{memory}'" if memory else "").replace(
            "OUTER", f", start: '{outer}'" if outer else ""
        )
    )
    return path


def weights(folder: Path, name: str = "old.safetensors", **shapes: tuple[int, ...]) -> dict[str, torch.Tensor]:
    found = {n.replace("__", "."): torch.randn(shape) for n, shape in shapes.items()}
    save_file(found, folder / name)
    return found


def refused(path: Path) -> str:
    with pytest.raises(SpecError) as error:
        inherited(build(load(path)))
    (found,) = error.value.diagnostics
    return f"{found.code} {found.at.line}: {found.message} ({found.hint})"


def test_weights_of_one_name_begin_alike(tmp_path: Path) -> None:
    old = weights(tmp_path, embedding=(7, 4), linear=(7, 4), blocks__1__x__linear=(4, 4), other=(3,))
    program = compile(spec(tmp_path, outer="from(checkpoint:old.safetensors)"))
    made = program.model(seed=3).state_dict()
    for name in ("embedding", "linear", "blocks.1.x.linear"):
        assert torch.equal(made[name], old[name])
    (origin,) = program.inherited.origins
    assert origin.unused == ("other",)
    assert set(origin.missing) >= {"rmsnorm", "blocks.0.x.linear", "blocks.0.cms.fast.start.W_in"}
    assert not any("slow" in name for name in origin.missing)  # another level's
    fresh = compile(spec(tmp_path)).model(seed=3).state_dict()
    assert all(torch.equal(made[name], fresh[name]) for name in origin.missing)


def test_a_block_that_the_model_carried_begins_one_that_tokens_write(tmp_path: Path) -> None:
    old = weights(tmp_path, blocks__0__cms__fast__W_in=(4, 4), blocks__1__cms__fast__W_in=(4, 4))
    program = compile(spec(tmp_path, memory="from(checkpoint:old.safetensors)"), out=tmp_path / "out")
    made = program.model(dtype=torch.float64).state_dict()
    for i in range(2):
        found = made[f"blocks.{i}.cms.fast.start.W_in"]
        assert torch.equal(found, old[f"blocks.{i}.cms.fast.W_in"].double())
    assert (tmp_path / "out" / STARTS).is_file()
    compile(spec(tmp_path), out=tmp_path / "out")
    assert not (tmp_path / "out" / STARTS).exists()


def test_the_graph_needs_no_checkpoint(tmp_path: Path) -> None:
    path = spec(tmp_path, outer="from(checkpoint:gone)")
    assert compile(path, starts=False).model() is not None
    assert refused(path).startswith("NLC0415 14: 'gone' is not there (a run")


@pytest.mark.parametrize(
    ("memory", "expected"),
    [
        ("from(checkpoint:wide.safetensors)", "NLC0416 12: blocks.0.cms.fast.start.W_in is [4, 4], and blocks.0"),
        ("from(checkpoint:old.safetensors)", "NLC0416 12: 'old.safetensors' has no blocks.0.cms.fast.start.W_in"),
        ("from(checkpoint:old.safetensors, W_in=x.liner)", "NLC0416 12: 'old.safetensors' has no 'x.liner' (did you"),
        ("from(checkpoint:old.safetensors, W_inn=x.linear)", "NLC0416 12: nothing that begins here is called 'W_inn'"),
        ("from(checkpoint:small.yaml)", "NLC0415 12: 'small.yaml' is no .safetensors file"),
        ("from(checkpoint:torn.safetensors)", "NLC0415 12: 'torn.safetensors' is torn"),
        ("from(checkpoint:empty)", "NLC0415 12: 'empty' holds no checkpoint"),
        ("from(checkpoint:old.safetensors, W_in)", "NLC0406 12: memory 'cms.fast': 'W_in' does not say which"),
        ("from(runs/first)", "NLC0406 12: memory 'cms.fast': from(runs/first) (write from(checkpoint:path)"),
        ("from(checkpoint:../a)", "NLC0406 12: memory 'cms.fast': '../a' is outside the spec's folder"),
    ],
)
def test_what_does_not_fit_is_refused_where_it_is_said(tmp_path: Path, memory: str, expected: str) -> None:
    weights(tmp_path, blocks__0__x__linear=(4, 4))
    weights(tmp_path, "wide.safetensors", blocks__0__cms__fast__W_in=(8, 4))
    whole = (tmp_path / "old.safetensors").read_bytes()
    (tmp_path / "torn.safetensors").write_bytes(whole[:-4])
    (tmp_path / "empty").mkdir()
    assert refused(spec(tmp_path, memory)).startswith(expected)


def test_a_name_that_nothing_here_has_is_refused_though_its_weight_is_there(tmp_path: Path) -> None:
    weights(tmp_path, embedding=(7, 4), linear=(7, 4))
    said = refused(spec(tmp_path, outer="from(checkpoint:old.safetensors, embeding=embedding)"))
    assert said.startswith("NLC0416 14: nothing that begins here is called 'embeding' (did you mean 'embedding'?")


def test_weights_are_floats(tmp_path: Path) -> None:
    save_file({"embedding": torch.ones(7, 4, dtype=torch.int64)}, tmp_path / "old.safetensors")
    said = refused(spec(tmp_path, outer="from(checkpoint:old.safetensors)"))
    assert said.startswith("NLC0416 14: embedding of 'old.safetensors' holds whole numbers or truth values, I64")


def test_weights_are_finite(tmp_path: Path) -> None:
    save_file({"embedding": torch.full((7, 4), torch.nan), "linear": torch.ones(7, 4)}, tmp_path / "old.safetensors")
    program = compile(spec(tmp_path, outer="from(checkpoint:old.safetensors)"))
    with pytest.raises(SpecError, match=r"embedding of 'old\.safetensors' holds numbers that are not finite"):
        program.write(tmp_path / "out")


def test_an_outer_level_says_no_other_start(tmp_path: Path) -> None:
    assert refused(spec(tmp_path, outer="zeros")).startswith("NLC0411 14: level 'train' owns ordinary weights")


def test_an_altered_checkpoint_is_not_begun_from(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "t" / "checkpoints" / "step-000001"
    folder.mkdir(parents=True)
    weights(folder, "model.safetensors", embedding=(7, 4))
    file = folder / "model.safetensors"
    entry = {"bytes": file.stat().st_size, "sha256": "0" * 64}
    (folder / "manifest.json").write_text(json.dumps({"format": 1, "files": {file.name: entry}}))
    program = compile(spec(tmp_path, outer="from(checkpoint:runs/t)"))
    with pytest.raises(SpecError, match="is altered") as error:
        program.model()
    assert error.value.diagnostics[0].code == "NLC0415"


def test_a_head_that_lies_about_its_length_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.safetensors").write_bytes(struct.pack("<Q", 2**60) + b"{}")
    assert refused(spec(tmp_path, "from(checkpoint:bad.safetensors)")).startswith("NLC0415 12: 'bad.safetensors' is no")
