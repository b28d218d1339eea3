"""Versions, hardware and commit: what a figure needs beside it."""

import datetime
import os
import platform
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from fsframework.core.registry import registry

LIBRARIES = ("fsframework", "torch", "torchvision", "timm", "numpy", "pillow", "opencv-python-headless", "safetensors")


def environment(device: torch.device) -> dict[str, Any]:
    """Versions and hardware, for manifests and results."""
    is_gpu = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if is_gpu else f"{platform.machine()} CPU, {os.cpu_count()} cores",
        "threads": torch.get_num_threads(),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in LIBRARIES},
        "plugins": registry().distributions,
        "commit": _commit(),
    }


def of_script(script: str) -> dict[str, Any]:
    """What a script of benchmarks/ keeps beside its figures: its command, the time, and the environment of a CPU."""
    return {
        "command": shlex.join(["python", f"benchmarks/{script}", *sys.argv[1:]]),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **environment(torch.device("cpu")),
    }


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the checkout that the code runs from, if it runs from one."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
