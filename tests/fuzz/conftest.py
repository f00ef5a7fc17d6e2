"""The time-boxed part of the fuzzing in continuous integration: NLC_FUZZ_SECONDS for each of its parts (90)."""

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
