"""A look inside on steps that log: what it says, and that it leaves no trace."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import nlc
from runtime import program
from runtime.ops.watch import Watch, watch
from runtime.probe import FEW, look

SMALL = {"sizes.width": 16, "sizes.heads": 2, "sizes.layers": 2, "sizes.context": 24, "sizes.vocab": 32}


def model_of(spec: str, **more: object) -> nn.Module:
    found: nn.Module = nlc.compile(nlc.load(spec, set=SMALL | more)).model(seed=0, dtype=torch.float64)
    return found


def probe(model: nn.Module, x: torch.Tensor, y: torch.Tensor, starts: torch.Tensor | None = None) -> dict[str, float]:
    """A step, watched, and a look at the last token of a few."""
    with watch() as seen:
        model.loss(x, y, starts=starts)
    return look(seen, model, x, y, starts)


def batch(B: int = 3, T: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randint(32, (B, T + 1), generator=torch.Generator().manual_seed(0))
    return x[:, :-1], x[:, 1:]


HOPE = {
    "levels.titans.chunk": 8,
    "levels.cms.memories.fast.every": "8 tokens",
    "levels.cms.memories.mid.every": "16 tokens",
}


def test_it_speaks_of_every_level_that_writes_and_of_every_memory() -> None:
    found = probe(model_of("hope", **HOPE), *batch())
    for memory in ("titans.key", "titans.value", "titans.eta", "titans.alpha", "titans.memory", "cms.fast", "cms.mid"):
        assert found[f"memory/{memory}/surprise"] > 0
    for level in ("titans", "cms.fast", "cms.mid"):
        assert found[f"level/{level}/update"] > 0 and found[f"level/{level}/rate"] > 0
    assert 0 < found["level/titans/retain"] < 1 and "level/cms.fast/retain" not in found
    assert found["level/cms.fast/rate"] == pytest.approx(0.05)
    assert not any(name.startswith(("level/train", "level/cms.slow")) for name in found)


@pytest.mark.parametrize("spec", ["titans_lmm", "linear_attention", "hope_deep", "hope_attention", "transformer"])
def test_every_shipped_spec_can_be_looked_into(spec: str) -> None:
    model = model_of(spec)
    found = probe(model, *batch())
    levels = {name.split("/")[1] for name in found if name.endswith("/update")}
    assert {level for level in getattr(model, "writing", ()) if not level.startswith("cms")} <= levels
    assert all(value == value and value >= 0 for value in found.values())


def test_the_update_of_a_level_of_tokens_is_what_the_last_token_changed() -> None:
    model, (x, y) = model_of("linear_attention"), batch(B=1)
    found = probe(model, x, y)
    with torch.no_grad():
        _, early = model.loss(x[:, : FEW - 1], y[:, : FEW - 1])
        _, late = model.loss(x[:, :FEW], y[:, :FEW])
    places = [place for place in late if place.endswith("attention.memory")]
    squares = [float((late[p]["M"] - early[p]["M"]).square().sum()) for p in places]
    (level,) = model.writing
    assert found[f"level/{level}/update"] == pytest.approx((sum(squares) / len(squares)) ** 0.5, rel=1e-6)


def test_it_leaves_no_trace() -> None:
    model, (x, y) = model_of("hope", **HOPE), batch()
    weights = {name: w.clone() for name, w in model.state_dict().items()}
    with watch() as seen:
        model.loss(x, y)
    random, fires = torch.get_rng_state(), dict(model.fires)
    assert look(seen, model, x, y) == look(seen, model, x, y)
    assert all(torch.equal(w, weights[name]) for name, w in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random) and model.fires == fires and model.training
    assert all(w.grad is None for w in model.parameters())


def test_only_a_few_tokens_are_read_again() -> None:
    model, (x, y) = model_of("linear_attention", **{"sizes.context": 2 * FEW}), batch(T=2 * FEW)
    one, other = look(Watch(), model, x, y), look(Watch(), model, x[:1, :FEW], y[:1, :FEW])
    assert one == other and list(one) == [f"level/{model.writing[0]}/update"]


def test_borders_of_documents_and_single_tokens_do_not_matter() -> None:
    model, (x, y) = model_of("hope", **HOPE), batch()
    starts = torch.zeros_like(x, dtype=torch.bool)
    starts[:, [0, 5]] = True
    assert probe(model, x, y, starts)["level/titans/update"] > 0
    starts[:, FEW - 1] = True  # that token begins a document: what it changed is not an update
    assert "level/titans/update" not in probe(model, x, y, starts)
    assert probe(model, x[:, :1], y[:, :1])["memory/titans.key/surprise"] > 0


def test_a_run_learns_to_the_bit_what_it_learns_unwatched(
    tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nlc.compile(
        nlc.load("hope", set=SMALL | HOPE | {"sizes.vocab": 256, "run.batch": 2, "run.warmup": 2}), tmp_path / "code"
    )

    def weights(name: str) -> dict[str, bytes]:
        run = ["--out", str(tmp_path / name), "--data", str(text), "--steps", "20", "--quiet"]
        assert program.load(tmp_path / "code").main(run) == 0
        place = tmp_path / name / "checkpoints/step-000020"
        return {file: (place / file).read_bytes() for file in ("model.safetensors", "optimiser.safetensors")}

    watched = weights("watched")
    monkeypatch.setattr("runtime.probe.look", lambda *given: {})
    monkeypatch.setattr("runtime.ops.watch.begin", lambda: None)
    monkeypatch.setattr(
        "runtime.level.Level.watched", property(lambda self: False, lambda self, value: None), raising=False
    )
    assert weights("unwatched") == watched
    said = (tmp_path / "unwatched/metrics.jsonl").read_text()
    assert "level/train/update" not in said and "surprise" not in said
