"""Memory that tensors leave is kept for the next ones."""

from __future__ import annotations

import subprocess
import sys

import pytest

from runtime.allocator import keep_freed_memory

FAULTS = """
import resource
import torch
from runtime.allocator import keep_freed_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        torch.ones(10 << 20)  # 40 MiB, of 10,240 pages
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
assert keep_freed_memory()
print(min(faults() for _ in range(4)))  # a heap settles
"""


@pytest.mark.skipif(not keep_freed_memory(), reason="the C library is not glibc")
def test_tensors_are_made_of_the_pages_that_others_left():
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1024
