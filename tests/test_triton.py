"""Triton kernels: their tests, triton_kernels.py, run in a process of their own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fsframework import native_gpu

TESTS = Path(__file__).with_name("triton_kernels.py")


def test_kernels_equal_plain_torch() -> None:
    """On a GPU where there is one, elsewhere by Triton's interpreter, which is asked for before Triton is imported."""
    pytest.importorskip("triton")
    environment = dict(os.environ)
    if not torch.cuda.is_available():
        environment["TRITON_INTERPRET"] = "1"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(TESTS)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed and int(passed[1]) >= 18


@pytest.mark.parametrize(("blocked", "used"), [("", True), ("aad", True), ("triton", False), ("winograd,all", False)])
def test_they_can_be_left_out(blocked: str, used: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    monkeypatch.setenv("FSF_BLOCK_KERNELS", blocked)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    assert native_gpu._found.__wrapped__() == used


def test_old_gpus_do_not_use_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    assert not native_gpu._found.__wrapped__()


def test_cpus_do_not_use_them() -> None:
    assert not native_gpu.usable(torch.zeros(1))
