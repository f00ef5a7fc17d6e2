"""Memory that tensors leave is kept for the next ones."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from runtime.allocator import in_huge_pages, keep_freed_memory

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


def test_copies_in_huge_pages_are_apart_from_one_another_and_from_what_they_are_of():
    given = [torch.randn(3, 5), torch.randn(300, 1000).double(), torch.tensor(2.0), torch.randn(4, 6).mT]
    copies = in_huge_pages(given)
    assert all(torch.equal(*both) and both[0].dtype == both[1].dtype for both in zip(copies, given, strict=True))
    assert all(x.is_contiguous() and x.data_ptr() % 64 == 0 for x in copies)
    assert len({x.untyped_storage().data_ptr() for x in (*copies, *given)}) == 8
    copies[0].zero_()
    assert given[0].any() and torch.equal(copies[1], given[1]) and in_huge_pages([]) == []
