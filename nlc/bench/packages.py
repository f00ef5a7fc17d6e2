"""Public packages that a user might take instead: imported where they are installed, asked for by name where not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def calling(package: str) -> Iterator[None]:
    """Its code runs here: whatever it raises is Missing, since no other row depends on it."""
    try:
        yield
    except Exception as error:
        raise Missing(f"needs a `{package}` that does not fail here ({type(error).__name__}: {error})") from error


def versions() -> dict[str, str]:
    """Of the packages that are here."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
