"""What a shell offers where a spec is expected: shipped names, and .yaml files below what is typed."""

from __future__ import annotations

from pathlib import Path


def specs(incomplete: str) -> list[str]:
    """Shipped names and paths of specs that begin as this does; a folder ends in a slash."""
    from nlc.spec.extends import shipped

    folder, _, begun = incomplete.rpartition("/")
    above = f"{folder}/" if "/" in incomplete else ""
    try:
        inside = sorted(Path(above or ".").iterdir())
    except OSError:
        inside = []
    found = [p for p in inside if p.name.startswith(begun) and (begun or not p.name.startswith("."))]
    paths = [f"{above}{p.name}/" for p in found if p.is_dir()]
    paths += [f"{above}{p.name}" for p in found if p.suffix in (".yaml", ".yml")]
    return [name for name in shipped() if name.startswith(incomplete)] + paths


def tasks(incomplete: str) -> list[str]:
    """Names of shipped tasks that begin as this does."""
    from nlc.spec import tasks as shipped

    return [name for name in shipped() if name.startswith(incomplete)]


def searches(incomplete: str) -> list[str]:
    """Names of shipped searches, and best."""
    from nlc.variants.search import searches as shipped

    return [name for name in (*shipped(), "best") if name.startswith(incomplete)]
