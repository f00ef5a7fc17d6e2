"""The time-boxed part of the fuzzing in continuous integration: NLC_FUZZ_SECONDS (90, at most 500) for programs of
tokens, a third of it for bare ones and a third for broken ones: three minutes with what hypothesis draws; twice it for
mutants."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.fuzz.worker import Twin


@pytest.fixture(scope="session")
def seconds() -> float:
    return float(os.environ.get("NLC_FUZZ_SECONDS", "90"))


@pytest.fixture(scope="module")
def twin() -> Iterator[Twin]:
    made = Twin()
    yield made
    made.close()
