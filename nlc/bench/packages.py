"""Public packages that a user might take instead: imported where they are installed, asked for by name where not."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType

from nlc.bench.rows import Missing

PACKAGES = ("titans-pytorch", "nested-learning", "fla-core")


def needed(package: str, *modules: str) -> list[ModuleType]:
    """Its modules.  Raises Missing where it is not installed, or cannot be imported."""
    try:
        version(package)
        return [import_module(module) for module in modules]
    except PackageNotFoundError:
        raise Missing(f"needs `{package}`") from None
    except ImportError as error:
        raise Missing(f"needs `{package}`, which cannot be imported: {error}") from None


def versions() -> dict[str, str]:
    """Of the packages that are here."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
