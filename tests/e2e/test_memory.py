"""Memory that a run holds: as much at step 500 as at step 10."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.command import ROOT, Run

SAMPLED = """
import json, os, sys
from nlc.cli import main
from runtime.trainer import Run

report, seen = Run.report, {}

def sampled(run, *arguments):
    report(run, *arguments)
    with open("/proc/self/statm") as file:
        seen[run.step] = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

Run.report = sampled
status = main(sys.argv[1:])
print(json.dumps([status, seen[10], seen[500]]))
"""
SMALL = {
    "sizes.width": "16", "sizes.heads": "2", "sizes.layers": "1", "sizes.context": "16", "run.batch": "2",
    "levels.titans.chunk": "8", "levels.titans.carry": "stream", "levels.cms.memories.fast.every": "8 tokens",
    "levels.cms.memories.mid.every": "never",
}  # fmt: skip


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads resident memory from /proc")
def test_resident_memory_is_flat_within_two_percent(process: Run) -> None:
    settings = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]
    where = ["--data", str(ROOT / "README.md"), "--out", "run", "--steps", "500", "--quiet"]
    ended = process("train", "hope", *where, *settings, python=("-c", SAMPLED), OMP_NUM_THREADS="1")
    status, early, late = json.loads(ended.out.splitlines()[-1])
    assert status == 0, ended.err
    assert abs(late - early) <= 0.02 * early, f"{early / 1e6:.1f} MB, then {late / 1e6:.1f} MB"
