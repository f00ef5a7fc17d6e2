"""The wheel: four packages, with shipped specs, templates and type markers; and it works from an empty environment."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.e2e.command import ROOT

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--disable-pip-version-check"]
    command += ["--no-deps", "--no-build-isolation", "-w", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, timeout=500)
    (made,) = folder.glob("*.whl")
    return made


def files(*patterns: str) -> set[str]:
    found = {path for pattern in patterns for path in ROOT.glob(pattern)}
    return {path.relative_to(ROOT).as_posix() for path in found if "__pycache__" not in path.parts}


def test_the_wheel_holds_everything_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert {name.split("/")[0] for name in held} == {"nlc", "codegen", "runtime", "specs"}
    wanted = files(
        "nlc/**/*.py",
        "nlc/bench/specs/*.yaml",
        "codegen/**/*.py",
        "runtime/**/*.py",
        "specs/**/*.yaml",
        "codegen/templates/*.j2",
    )
    assert len(files("specs/**/*.yaml")) >= 10 and files("codegen/templates/*.j2")
    assert wanted <= held, sorted(wanted - held)
    assert {"nlc/py.typed", "codegen/py.typed", "specs/__init__.py"} <= held


def test_the_wheel_works_away_from_the_repository(wheel: Path, tmp_path: Path) -> None:
    """Unpacked on its own, with the dependencies of this environment but not its source tree."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); import nlc; from nlc.cli import main; "
    code += "print(nlc.__file__); checked = main(['check', 'hope', 'hope_deep']); "
    code += "sys.exit(checked or main(['compile', 'hope', '-o', 'made']))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(tmp_path / "site"))
    assert (tmp_path / "made" / "model.py").is_file()
