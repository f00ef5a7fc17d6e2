"""Generated files: formatted, without a dead name, the same bytes everywhere, and free of the compiler."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nlc.compile import compile

ROOT = Path(__file__).parents[2]
SMALL = sorted((ROOT / "tests/specs").glob("*.yaml"))
SHIPPED = sorted((ROOT / "specs/architectures").glob("*.yaml"))
GOLDEN = ROOT / "tests/golden/test_generated_style"
FEW = [ROOT / f"tests/specs/{name}.yaml" for name in ("own_self_chunks", "stack_shared", "names", "tail_flush")]

DIGEST = """
import hashlib, sys
from nlc.compile import compile
for path in sys.argv[1:]:
    for name, text in sorted(compile(path).files.items()):
        print(path, name, hashlib.sha256(text.encode()).hexdigest())
"""
ALONE = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] not in allowed:
            raise ImportError(f"a generated file asked for {name}")
        return None

import torch, torch.nn.functional  # what these import themselves is theirs
allowed = {"model", "runtime", "torch"} | set(sys.stdlib_module_names)
sys.meta_path.insert(0, Blocker())
folder, name = sys.argv[1:]
sys.path.insert(0, folder)
import model
made = getattr(model, name)()
logits, state = made(torch.arange(8).view(2, 4))
assert logits.shape == (2, 4, made.vocab)
assert not {"nlc", "codegen"} & {n.split(".")[0] for n in sys.modules}
"""


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    given = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | environment
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=given, check=False, cwd=ROOT
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every small and shipped program, compiled."""
    made = tmp_path_factory.mktemp("generated")
    for path in (*SMALL, *SHIPPED):
        for name, text in compile(path).files.items():
            if name.endswith(".py"):
                (made / f"{path.stem}_{name}").write_text(text, encoding="utf-8")
    return made


def test_every_file_is_formatted(folder: Path) -> None:
    result = run("-m", "ruff", "format", "--diff", "--isolated", "--line-length", "120", str(folder))
    assert result.returncode == 0, result.stdout[:3000] + result.stderr


def test_no_file_has_a_dead_name_or_a_long_line(folder: Path) -> None:
    result = run("-m", "ruff", "check", "--isolated", "--line-length", "120", "--select", "E,F", str(folder))
    assert result.returncode == 0, result.stdout[:3000]


def test_same_bytes_in_every_process() -> None:
    paths = [str(p.relative_to(ROOT)) for p in (*FEW, *SHIPPED)]
    first, second = (run("-c", DIGEST, *paths, PYTHONHASHSEED=seed) for seed in ("1", "2"))
    assert first.returncode == 0, first.stderr
    assert first.stdout == second.stdout


def test_same_bytes_twice_in_one_process() -> None:
    for path in FEW:
        one, other = (
            {name: hashlib.sha256(text.encode()).hexdigest() for name, text in compile(path).files.items()}
            for _ in range(2)
        )
        assert one == other


@pytest.mark.parametrize(("name", "cls"), [("own_self_shared", "OwnSelfShared"), ("loss_full", "LossFull")])
def test_generated_model_needs_only_torch_and_runtime(name: str, cls: str, tmp_path: Path) -> None:
    compile(ROOT / f"tests/specs/{name}.yaml", out=tmp_path)
    result = run("-c", ALONE, str(tmp_path), cls)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("name", ["dgd-cell", "loss_first_order"])
def test_golden(name: str, golden: Callable[[Path, str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Read these in review: what a small cell, and a small model of two frequencies, compile to."""
    monkeypatch.chdir(ROOT)
    golden(GOLDEN / f"{name}.txt", compile(f"tests/specs/{name}.yaml").files["model.py"])
