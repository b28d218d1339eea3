"""Triton kernels: their tests, triton_kernels.py, run in a process of their own."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from fsframework.ops.triton import launch

TESTS = Path(__file__).with_name("triton_kernels.py")


@pytest.mark.slow
@pytest.mark.system
def test_kernels_equal_plain_torch() -> None:
    """On a GPU where there is one, elsewhere by Triton's interpreter, which is asked for before Triton is imported."""
    pytest.importorskip("triton")
    environment = dict(os.environ)
    if not torch.cuda.is_available():
        environment["TRITON_INTERPRET"] = "1"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(TESTS)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if "only 0-dimensional arrays can be converted" in done.stdout:
        pytest.skip("the interpreter of Triton 3.6 does not work with numpy 2.4")
    assert done.returncode == 0, done.stdout[-3000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed and int(passed[1]) >= 20


@pytest.mark.parametrize(("blocked", "used"), [("", True), ("aad", True), ("triton", False), ("winograd,all", False)])
def test_they_can_be_left_out(blocked: str, used: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    monkeypatch.setenv("FSF_BLOCK_KERNELS", blocked)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    assert launch._found.__wrapped__() == used


def test_old_gpus_do_not_use_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    assert not launch._found.__wrapped__()


def test_cpus_do_not_use_them() -> None:
    assert not launch.usable(torch.zeros(1))


def test_the_compiler_asks_once_whether_there_is_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Mock(return_value=True)
    monkeypatch.setattr(launch, "_found", found)
    compiled = torch.compile(lambda x: x + 1 if launch._has_triton() else x, backend="eager", fullgraph=True)
    assert compiled(torch.zeros(1)) == 1 and compiled(torch.ones(1)) == 2
    found.assert_called_once()


POINTERS = {"mean", "scale", "sums", "weight", "bias", "att_bias", "m", "dm", "dlogits"}  # float32 whatever maps are
NUMBERS = {"height", "width", "steps", "pixels", "programs", "rows_of_sums", "tall", "wide"}
CONSTANTS = {"C": 24, "BC": 32, "P": 64, "LAYERS": 2, "HALF": True}


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize(
    ("module", "kernel"),
    [
        ("fsframework.ops.triton.upsample", "_upsample"),
        ("fsframework.ops.triton.upsample", "_upsample_backward"),
        ("fsframework.ops.triton.instance_norm", "_sum_moments"),
        ("fsframework.ops.triton.instance_norm", "_finish_moments"),
        ("fsframework.ops.triton.instance_norm", "_normalise"),
        ("fsframework.ops.triton.instance_norm", "_normalise_backward"),
        ("fsframework.ops.triton.instance_norm", "_sum_gradients"),
        ("fsf_faceshifter.aad_triton", "_modulate"),
        ("fsf_faceshifter.aad_triton", "_modulate_backward"),
    ],
)
def test_kernels_are_compiled_for_gpus(
    module: str, kernel: str, capability: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As machine code, without a GPU: the interpreter takes what the compiler refuses."""
    triton = pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    compiler, backends = (importlib.import_module(f"triton.{name}") for name in ("compiler", "backends.compiler"))
    function = getattr(importlib.import_module(module), kernel)
    types = {name: "constexpr" for name in function.arg_names if name in CONSTANTS}
    types |= {name: "i32" for name in function.arg_names if name in NUMBERS}
    types |= {name: "fp32" for name in function.arg_names if name == "epsilon"}
    types = {name: types.get(name) or ("*fp32" if name in POINTERS else "*bf16") for name in function.arg_names}
    constants = {(place,): CONSTANTS[name] for place, name in enumerate(function.arg_names) if name in CONSTANTS}
    source = compiler.ASTSource(function, types, constexprs=constants)
    made = triton.compile(source, target=backends.GPUTarget("cuda", capability, 32), options={"num_warps": 8})
    assert len(made.asm["cubin"]) > 1000
