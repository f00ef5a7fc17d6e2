"""What this machine has, and what will be slow on it and why: the facts of `nlc doctor`."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

OLDEST = {"torch": (2, 11), "triton": (3, 6)}
LIBRARIES = ("torch", "triton", "numpy", "safetensors", "pydantic", "networkx", "jinja2", "matplotlib")
EXTRAS = {"hf": ("tokenizers", "datasets", "transformers"), "search": ("optuna", "ray"), "eval": ("lm_eval",),
          "tensorboard": ("tensorboard",)}  # fmt: skip
ROOM = 2e9  # bytes below which a run may not finish


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.  verdict: ok, slow (it works, and why it will be slow) or wrong (it will not work)."""

    what: str
    says: str
    verdict: str = "ok"
    advice: str = ""


def examine(folder: Path = Path()) -> list[Finding]:
    """Everything, cheapest first.  Imports torch."""
    return [*versions(), *extras(), *threads(), speed(), *accelerators(), disk(folder)]


def versions() -> Iterator[Finding]:
    python = platform.python_version()
    old = sys.version_info < (3, 11)
    yield Finding("python", python, *(("wrong", "3.11 or newer is needed") if old else ()))
    yield Finding("nlc", version("nlc") or "not installed: run from a checkout")
    for name in LIBRARIES:
        found = version(name)
        if not found:
            missing = name != "triton" or sys.platform == "linux"
            yield Finding(name, "missing", "wrong" if missing else "ok", f"pip install {name}" if missing else "")
        elif name in OLDEST and numbers(found) < OLDEST[name]:
            yield Finding(name, found, "wrong", f"{'.'.join(map(str, OLDEST[name]))} or newer is needed")
        else:
            yield Finding(name, found)


def extras() -> Iterator[Finding]:
    for extra, names in EXTRAS.items():
        missing = [name for name in names if not version(name)]
        lacks = "not installed" if len(missing) == len(names) else f"{', '.join(missing)} not installed"
        yield Finding(f"extra {extra}", f"{lacks}: pip install 'nlc[{extra}]'" if missing else "installed")


def threads() -> Iterator[Finding]:
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = torch.get_num_threads()
    said = f"{count} of torch, {cores} cores"
    if count > cores:
        yield Finding("threads", said, "slow", f"they wait for one another: OMP_NUM_THREADS={cores}")
    elif cores > 1:
        advice = f"one sequence at a time hardly fills several threads: --processes {cores} shares the batch instead"
        yield Finding("threads", said, "ok", advice)
    else:
        yield Finding("threads", said)
    capability = torch.backends.cpu.get_cpu_capability()
    plain = capability in ("DEFAULT", "NO AVX")
    yield Finding("processor", capability, *(("slow", "no vector instructions that torch can use") if plain else ()))
    flushes = torch.set_flush_denormal(True)
    torch.set_flush_denormal(False)
    if not flushes:
        yield Finding("subnormal numbers", "kept", "slow", "a trained model slows down by half over them")


def speed() -> Finding:
    """Float32 products of 512 x 512 matrices, the best of ten, one after another."""
    import torch

    a = torch.randn(512, 512)
    times = []
    for _ in range(10):
        began = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - began)
    return Finding("matrix products", f"{2 * 512**3 / min(times) / 1e9:,.0f} GFLOP/s in float32")


def accelerators() -> Iterator[Finding]:
    import torch

    if not torch.cuda.is_available():
        yield Finding("GPU", "none", "slow", "everything runs on the processor: larger models want a GPU")
    for i in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(i)
        yield Finding(f"GPU {i}", f"{facts.name}, {facts.total_memory / 2**30:.0f} GiB, sm_{facts.major}{facts.minor}")


def disk(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    said = f"{free / 1e9:,.0f} GB free where runs are kept"
    return Finding(
        "disk", said, *(("slow", "a run may not find room for its checkpoints: --keep 2") if free < ROOM else ())
    )


def version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return ""


def numbers(version: str) -> tuple[int, ...]:
    """2.13.0+cpu -> (2, 13)."""
    return tuple(int(part) for part in version.split("+")[0].split(".")[:2] if part.isdigit())
