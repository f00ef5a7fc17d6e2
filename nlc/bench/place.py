"""What a result says of the place it was made in."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

from nlc import __version__
from nlc.bench.packages import versions


def place() -> dict[str, Any]:
    """The day, the machine, and the versions of what ran."""
    machine: dict[str, Any] = {"processor": processor(), "cores": os.cpu_count(), "system": platform.system()}
    if torch.cuda.is_available():
        machine["gpu"] = torch.cuda.get_device_name()
    mine = {"python": platform.python_version(), "torch": torch.__version__, "nlc": __version__, "commit": commit()}
    return {"date": datetime.date.today().isoformat(), "machine": machine, "versions": mine | versions()}


def processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def commit() -> str:
    """The revision that ran; "+" says that files had been changed.  Empty outside a git checkout."""
    command = [
        "git",
        "-C",
        str(Path(__file__).parent),
        "describe",
        "--always",
        "--abbrev=12",
        "--dirty=+",
        "--exclude=*",
    ]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def said(place: dict[str, Any]) -> str:
    """`place` as a sentence."""
    machine, versions = place["machine"], dict(place["versions"])
    commit = versions.pop("commit") or "no checkout"
    here = f"{machine['processor']} ({machine['cores']} cores)" + (f", {machine['gpu']}" if "gpu" in machine else "")
    return f"{place['date']}, {here}, " + ", ".join(f"{a} {b}" for a, b in versions.items()) + f" ({commit})."
