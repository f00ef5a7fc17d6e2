"""Typed edits: each kind at every shipped architecture, what it says, and the same mutant from the same numbers."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pytest

from nlc.passes import build
from nlc.show import yaml_text
from nlc.spec import load, loads, shipped
from nlc.variants.edits import KINDS, WAYS, crossed, document_of, mutated
from nlc.variants.edits.draft import Draft
from nlc.variants.edits.kind import Unchanged
from nlc.variants.edits.tidy import tidied

Spec = dict[str, Any]
BARE = {"linear_gd", "linear_momentum"}  # without a stream x, which what is added is read into


@cache
def document(name: str) -> Spec:
    return document_of(load(name))


@cache
def draft(name: str) -> Draft:
    return Draft.of(document(name))


def legal(mutant: Spec) -> Any:
    return build(loads(yaml_text(mutant), "mutant.yaml"), check=True)


@pytest.mark.parametrize("name", shipped())
def test_every_kind_changes_every_architecture_that_it_has_a_place_in(name: str) -> None:
    parent, applied = draft(name), []
    for kind in KINDS.values():
        sites = kind.sites(parent)
        for n in range(min(len(sites), 2)):
            changed = parent.copy()
            try:
                edit = kind.make(changed, kind.sites(changed)[-1 - n], Random(n))
            except Unchanged:
                continue
            tidied(changed)
            assert edit
            assert changed.done() != parent.document
            applied.append(kind.name)
    expected = {"chunk", "form", "retention"} if name in BARE else {"rule", "duplicate", "read", "level", "memory"}
    assert expected <= set(applied)


@pytest.mark.parametrize("kind", KINDS)
def test_a_mutant_of_hope_is_legal_and_another_architecture(kind: str) -> None:
    mutant = mutated(document("hope"), Random(1), [kind])
    assert mutant.kind == kind
    assert mutant.document != document("hope")
    legal(mutant.document)


@pytest.mark.parametrize("way", WAYS)
def test_a_child_of_hope_is_legal(way: str) -> None:
    legal(crossed(document("hope"), document("deltanet"), Random(2), [way]).document)


def test_mutating_leaves_the_parent_as_it_was() -> None:
    before = json.dumps(document("hope"))
    mutated(document("hope"), Random(3))
    crossed(document("hope"), document("deltanet"), Random(3))
    assert json.dumps(document("hope")) == before


def test_a_chain_of_ten_edits_goes_on_from_mutants() -> None:
    found, rng = document("hope"), Random(5)
    for _ in range(10):
        found = mutated(found, rng, [k for k in KINDS if k != "mixer"]).document
    legal(found)


CHAIN = """
import json
from random import Random
from nlc.spec import load
from nlc.variants.edits import crossed, document_of, mutated
found, rng = document_of(load("hope")), Random(11)
for _ in range(3):
    found = mutated(found, rng).document
print(json.dumps(crossed(found, document_of(load("mamba2")), rng).document))
"""


def test_a_seed_means_the_same_mutant_in_any_process() -> None:
    answers = [
        subprocess.run(
            [sys.executable, "-c", CHAIN], env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("1", "2")
    ]  # fmt: skip
    assert answers[0] == answers[1]


def test_what_nothing_uses_any_more_goes_with_it() -> None:
    mutant = mutated(document("titans_lmm"), Random(0), ["rule"])
    assert "s" in mutant.edit.split("gone with it: ")[-1].split(", ")  # the gate of momentum(beta=s)
    assert "s = sigmoid" not in mutant.document["block"]


def test_a_kind_without_a_place_says_so() -> None:
    with pytest.raises(ValueError, match="none of mixer applies to 'linear_gd'"):
        mutated(document("linear_gd"), Random(0), ["mixer"])


def test_the_page_of_mutations_lists_every_kind() -> None:
    page = (Path(__file__).parents[3] / "docs" / "mutations.md").read_text(encoding="utf-8")
    for kind in (*KINDS.values(), *WAYS.values()):
        assert f"| `{kind.name}` | {kind.doc} |" in page


def test_equations_that_are_not_changed_stand_as_they_were_written() -> None:
    mutant = mutated(document("hope"), Random(0), ["read"])
    assert set(document("hope")["block"].splitlines()) < set(mutant.document["block"].splitlines())
