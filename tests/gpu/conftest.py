"""What all tests on a GPU share."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """The judges run on the processor, one in each worker: threads of all of them would wait for one another."""
    torch.set_num_threads(1)
