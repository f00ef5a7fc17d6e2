"""nlc compiles nested-learning specs: what learns, how often, from what, and by which rule.

    spec    = nlc.load("hope", set={"sizes.width": 64})      # a path or a shipped name
    graph   = nlc.build(spec)                                # the graph after all passes
    program = nlc.compile(spec, out="build/hope")            # writes model.py, train.py, ...
    model   = program.model(seed=0)                          # a torch.nn.Module

Nothing heavy is imported until it is asked for: `import nlc` does not import torch.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nlc.compile import Program, compile
    from nlc.diagnostics import SpecError
    from nlc.interpret import interpret
    from nlc.passes import build
    from nlc.spec.load import load

__version__ = "0.1.0"
__all__ = ["Program", "SpecError", "__version__", "build", "compile", "interpret", "load"]

_HOME = {
    "Program": "nlc.compile",
    "SpecError": "nlc.diagnostics",
    "build": "nlc.passes",
    "compile": "nlc.compile",
    "interpret": "nlc.interpret",
    "load": "nlc.spec",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'nlc' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """Python binds an imported submodule to its package.  `nlc.compile` and `nlc.interpret` are functions of the
    interface as well as modules; the function wins, however the module came to be imported first."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
