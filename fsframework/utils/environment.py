"""Record versions, hardware and commit, to be stored with results."""

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

LIBRARIES = (
    "fsframework",
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "pillow",
    "opencv-python-headless",
    "safetensors",
    "openvino",
    "onnxruntime",
)


def environment(device: torch.device) -> dict[str, Any]:
    """Return versions and hardware, for manifests and results."""
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
    """Return what a script of benchmarks/scripts stores with its results: command, date and the CPU's environment."""
    return {
        "command": shlex.join(["python", f"benchmarks/scripts/{script}", *sys.argv[1:]]),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **environment(torch.device("cpu")),
    }


def _version(distribution: str) -> str | None:
    """Return the version of an installed distribution, None if it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Return the commit of the checkout that contains this code, None outside of a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
