"""C kernels for what torch does slowly on CPUs: compiled when they are first needed, kept in the user's cache folder.

A kernel is a C file in the package that uses it, and every caller has a way in plain torch beside it, so a machine
without a C compiler works too, only slower. `FSF_BLOCK_KERNELS=aad,winograd` leaves kernels out, `all` leaves out all.
"""

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from fsframework.errors import UserError
from fsframework.files import cache_folder, replacing

HEADER = Path(__file__).with_name("lanes.h")  # that every kernel may include
LANES = 8  # channels that kernels work on at once, as it says there
FLAGS = ["-O3", "-march=native", "-fopenmp", "-fno-math-errno", "-shared", "-fPIC"]
COMPILERS = ("cc", "gcc", "clang")
SECONDS = 120  # that a compiler may take


def library(source: Path, **functions: tuple[int, int]) -> ctypes.CDLL | None:
    """The compiled functions of a C file, or None where they cannot be had; then one line on standard error says why.

    `functions` says of each how many pointers it takes, and then how many longs; none returns anything. Keep what this
    returns: every call looks for the compiler.

    The compiled file's name is a hash of the source, the header, the compiler and the processor's abilities, so a cache
    folder can be shared between machines. OpenMP threads are torch's own: both load the same libgomp.
    """
    blocked = os.environ.get("FSF_BLOCK_KERNELS", "").split(",")
    if source.stem in blocked or "all" in blocked:
        return None
    try:
        found = _loaded(source)
    except FileNotFoundError as error:
        _note(str(error))
        return None
    except (OSError, subprocess.SubprocessError, UserError) as error:
        _note(f"{source.name}: {_reason(error)}")
        return None
    for name, (pointers, numbers) in functions.items():
        function = getattr(found, name)
        function.argtypes, function.restype = [ctypes.c_void_p] * pointers + [ctypes.c_long] * numbers, None
    return found


def is_half(maps: Tensor) -> int:
    """What kernels are told of maps: 1 if they are bfloat16, 0 if they are float32."""
    return int(maps.dtype == torch.bfloat16)


@cache
def _note(what: str) -> None:
    """Say it once, however many kernels are missed."""
    print(f"note: {what}; training and swapping are slower without it", file=sys.stderr)


def _loaded(source: Path) -> ctypes.CDLL:
    file = _compiled(source)
    try:
        return ctypes.CDLL(str(file))
    except OSError:  # damaged by somebody
        file.unlink()
        return ctypes.CDLL(str(_compiled(source)))


def _compiled(source: Path) -> Path:
    """The library's file, made unless it is there."""
    named = os.environ.get("CC")
    compiler = next((path for name in ([named] if named else COMPILERS) if (path := shutil.which(name))), None)
    if compiler is None:
        raise FileNotFoundError(f"no C compiler was found (looked for {named or ', '.join(COMPILERS)})")
    abilities = _run([compiler, "-march=native", "-dM", "-E", "-x", "c", os.devnull])  # names the compiler, too
    made_of = [source.read_bytes(), HEADER.read_bytes(), " ".join(FLAGS).encode(), abilities]
    key = hashlib.sha256(b"\0".join(made_of)).hexdigest()[:24]
    folder = cache_folder() / "native"
    file = folder / f"{source.stem}-{key}.so"
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(file) as temporary:
            _run([compiler, *FLAGS, f"-I{HEADER.parent}", str(source), "-o", str(temporary)])
    return file


def _run(command: list[str]) -> bytes:
    return subprocess.run(command, capture_output=True, check=True, timeout=SECONDS, stdin=subprocess.DEVNULL).stdout


def _reason(error: Exception) -> str:
    """One line."""
    if isinstance(error, subprocess.CalledProcessError):
        said = error.stderr.decode(errors="replace").strip().splitlines()
        return f"{Path(error.cmd[0]).name} failed: {said[0] if said else error.returncode}"
    return " ".join(str(error).split())
