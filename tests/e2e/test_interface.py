"""`import nlc`: what the package offers, and that it stays light."""

from __future__ import annotations

import pytest

import nlc
from tests.e2e.command import Run


def test_import_nlc_imports_nothing_heavy(process: Run) -> None:
    code = "import sys, nlc; print(sorted({'torch', 'pydantic', 'networkx', 'typer'} & set(sys.modules)))"
    assert process(python=("-c", code)).out.strip() == "[]"


def test_functions_win_over_modules_of_the_same_name(process: Run) -> None:
    code = "import nlc.compile, nlc.interpret, nlc; "
    code += "print(callable(nlc.compile), callable(nlc.interpret), nlc.compile.__name__)"
    assert process(python=("-c", code)).out.strip() == "True True compile"


def test_every_name_is_there() -> None:
    for name in nlc.__all__:
        assert getattr(nlc, name) is not None
    with pytest.raises(AttributeError, match="nothing_here"):
        _ = nlc.nothing_here  # type: ignore[attr-defined]
