"""The adapter of lm-evaluation-harness: log-likelihoods of a model with a state; the harness itself, where it is."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import nlc
from runtime.data.tokens import Bytes
from runtime.errors import DataError, RunError
from runtime.evaluate import harness
from runtime.evaluate.harness import Reader
from runtime.trained import Trained

SIZES = {"sizes.width": 16, "sizes.heads": 2, "sizes.layers": 1, "sizes.context": 32, "run.batch": 2, "run.steps": 1}
HOPE = {
    "levels.titans.chunk": 4, "levels.cms.memories.fast.every": "4 tokens", "levels.cms.memories.mid.every": "8 tokens",
}  # fmt: skip
QUESTIONS = [
    ("two and two is", [" four", " five"], 0),
    ("the sky is", [" blue", " a fish"], 0),
    ("yes?", [" no", " y"], 1),
]
TASK = """\
task: tiny_choice
dataset_path: json
dataset_kwargs: {{data_files: {{test: '{file}'}}}}
output_type: multiple_choice
test_split: test
doc_to_text: "{{{{question}}}}"
doc_to_target: answer
doc_to_choice: "{{{{choices}}}}"
target_delimiter: ""
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
metadata: {{version: 1.0}}
"""


@pytest.fixture(scope="module", params=["transformer", "hope"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    spec = nlc.load(request.param, set=SIZES | (HOPE if request.param == "hope" else {}))
    folder = tmp_path_factory.mktemp(request.param)
    nlc.compile(spec, out=folder)
    from runtime import program

    made = program.load(folder)
    model = made.build(0).double()
    torch.manual_seed(1)
    for weight in model.parameters():
        if weight.dim() > 1:
            nn.init.normal_(weight, std=0.3)
    return Trained(model, made.settings, Bytes(), folder, folder / "model.safetensors", {})


def whole(trained: Trained, context: str, continuation: str) -> float:
    """log p(continuation | newline, context), from one reading of all of it."""
    text = ("\n" + context + continuation).encode()
    tokens = torch.tensor([list(text)])
    with torch.no_grad():
        logits = trained.model(tokens)[0].log_softmax(-1)
    at = torch.arange(len(text) - len(continuation.encode()) - 1, len(text) - 1)
    return float(logits[0, at, tokens[0, at + 1]].sum())


def test_likelihoods_are_those_of_reading_context_and_continuation_at_once(trained: Trained) -> None:
    requests = [(question, choice) for question, choices, _ in QUESTIONS for choice in choices] + [("", "x"), ("a", "")]
    found = Reader(trained, learn=True).likelihoods(requests)
    for (context, continuation), (total, _) in zip(requests, found, strict=True):
        expected = whole(trained, context, continuation) if continuation else 0.0
        assert total == pytest.approx(expected, abs=1e-9)
    assert Reader(trained, learn=True).likelihoods(requests[::-1])[::-1] == found  # no request sees another


def test_a_rolling_likelihood_is_that_of_the_whole_text(trained: Trained) -> None:
    text = "a text that is longer than the context of training, which a state does not mind"
    assert Reader(trained, learn=True).rolling(text) == pytest.approx(whole(trained, "", text), abs=1e-8)


def test_text_ends_before_the_first_stop(trained: Trained) -> None:
    reader = Reader(trained, learn=False)
    text = reader.until("once", {"max_gen_toks": 12})
    assert text and reader.until("once", {"until": [text[3]], "max_gen_toks": 12}) == text[: text.index(text[3])]


def test_names(monkeypatch: pytest.MonkeyPatch) -> None:
    assert harness.named("siqa") == "social_iqa" and harness.named("lm-eval:./mine.yaml") == "./mine.yaml"
    assert harness.named("mqar") is None
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(RunError, match=r"not installed: pip install 'nlc\[eval\]'") as error:
        harness.library()
    assert error.value.status == 4


def test_a_task_on_this_machine(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed: pip install 'nlc[eval]'")
    for name, value in {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}.items():
        monkeypatch.setenv(name, value)
    rows = [{"question": q, "choices": choices, "answer": answer} for q, choices, answer in QUESTIONS]
    (tmp_path / "test.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    (tmp_path / "tiny.yaml").write_text(TASK.format(file=tmp_path / "test.jsonl"))
    on, off = harness.evaluate(trained, [str(tmp_path / "tiny.yaml")], ways=(True, False))
    right = [
        max(choices, key=lambda c, q=q: whole(trained, q, c)) == choices[answer] for q, choices, answer in QUESTIONS
    ]  # type: ignore[misc]
    assert on.results["tiny_choice"]["acc"] == pytest.approx(sum(right) / 3) and on.items == {"tiny_choice": 3}
    assert (on.learn, off.learn) == (True, False) and off.results.keys() == on.results.keys()
    (tmp_path / "tiny.yaml").unlink()
    (tmp_path / "gone.yaml").write_text(TASK.format(file=tmp_path / "none.jsonl"))
    with pytest.raises(DataError, match=r"the data of tiny_choice cannot be had: .*none.jsonl"):
        harness.evaluate(trained, [str(tmp_path / "gone.yaml")])
