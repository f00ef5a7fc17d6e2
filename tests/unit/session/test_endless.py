"""What `bench/stream.py` shows over a million tokens, over twenty thousand: nothing grows with the stream."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

import pytest
import torch

from nlc.compile import compile
from nlc.spec import load
from runtime.metrics import norms
from runtime.session import Session
from runtime.trained import find
from tests.differential.sessions import TINY, weights_of

# The product of a chunk is at most retain^C + 2 rate / (1 - retain), below 1; keys and values have unit norm.
ENDLESS = {
    **TINY,
    "sizes.width": "8",
    "levels.titans.rate": "0.04 * sigmoid(linear(eta(u), out=1))",
    "levels.titans.retain": "0.9 * sigmoid(linear(alpha(u), out=1) + 4)",
    "levels.cms.retain": "0.99",
    "levels.cms.retain_to": "start",
}
FIRST, LAST = 4_000, 20_000


def resident() -> int:
    """Bytes in memory, without what the allocator keeps back."""
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc and trims glibc's heap")
def test_neither_memory_nor_norms_nor_the_state_grow_with_the_stream(tmp_path: Path) -> None:
    program = compile(load("hope", ENDLESS), tmp_path / "hope")
    session = Session(find(tmp_path / "hope", weights=weights_of(program, tmp_path / "w.safetensors", perturb=False)))
    text = torch.randint(32, 127, (LAST,), generator=torch.Generator().manual_seed(0))
    taken: dict[int, tuple[int, int, dict[str, float]]] = {}
    for mark in (FIRST, LAST):
        session.read(text[session.tokens : mark - 20], piece=1024)
        assert len(list(session.generate(20))) == 20
        state = session.stream.state
        assert state is not None
        size = sum(x.numel() * x.element_size() for register in state.values() for x in register.values())
        taken[session.tokens] = resident(), size, norms(state)
    (memory, size, before), (later, size_later, after) = taken[FIRST], taken[LAST]
    assert later <= 1.02 * memory
    assert size_later <= size  # the sums of a period may be there or not
    assert all(after[name] <= 2 * before[name] for name in before)
