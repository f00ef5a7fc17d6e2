"""A generated package on disk -> its modules, imported without leaving a trace in `sys.path` or under plain names."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from runtime.errors import USAGE, RunError

MODULES = ("model", "train")  # a generated file imports the other by its plain name


def load(folder: str | Path, name: str = "train") -> ModuleType:
    """Module `name` of the package in `folder`.  Two packages can be loaded in one process, each with its own model."""
    folder = Path(folder).resolve()
    path = folder / f"{name}.py"
    if not path.is_file():
        raise RunError(f"'{folder}' is not a generated package: it has no {name}.py", USAGE)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    hidden = {other: sys.modules.pop(other) for other in MODULES if other in sys.modules}
    sys.path.insert(0, str(folder))
    sys.modules[name] = module  # dataclasses look their module up while it is being made
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(folder))
        for other in MODULES:
            sys.modules.pop(other, None)
        sys.modules.update(hidden)
    return module
