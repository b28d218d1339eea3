"""Compile C kernels at first use and load them; keep the libraries in the user's cache folder.

A kernel is a C file in the package that uses it. Every caller has a fallback in plain torch, so a machine without a C
compiler works too, only slower. `FSF_BLOCK_KERNELS=aad,winograd` disables kernels, `all` disables all of them.
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

from fsframework.core.errors import UserError
from fsframework.utils.files import cache_folder, replacing

SOURCES = Path(__file__).parent
HEADER = SOURCES / "simd.h"  # included by all kernels
LANES = (16, 8)  # channels per vector: with AVX-512, and on every processor
FLAGS = ["-O3", "-march=native", "-fopenmp", "-fno-math-errno", "-shared", "-fPIC"]
COMPILERS = ("cc", "gcc", "clang")
SECONDS = 120  # time limit of a compiler


class Kernels:
    """Functions of a C file, compiled at first use for the widest vectors that the numbers of channels allow.

    `functions` maps each name to its number of pointers and its number of longs; no function returns a value.
    """

    def __init__(self, source: Path, **functions: tuple[int, int]) -> None:
        self.source, self.functions = source, functions
        self._libraries: dict[int, ctypes.CDLL | None] = {}  # by lanes

    def suit(self, *channels: int) -> bool:
        """Return whether the kernels are available and support maps of so many channels."""
        return self._library(*channels) is not None

    def of(self, *channels: int) -> ctypes.CDLL:
        """Return the functions for maps of so many channels, which `suit` accepts."""
        compiled = self._library(*channels)
        assert compiled is not None, "call suit first"
        return compiled

    def _library(self, *channels: int) -> ctypes.CDLL | None:
        lanes = _lanes(*channels)
        if lanes and lanes not in self._libraries:
            self._libraries[lanes] = library(self.source, lanes, **self.functions)
        return self._libraries[lanes] if lanes else None


def _lanes(*channels: int) -> int:
    """Return the largest vector size of this processor that divides all numbers of channels; 0 if none does."""
    sizes = LANES if torch.backends.cpu.get_cpu_capability() == "AVX512" else LANES[1:]
    return next((lanes for lanes in sizes if not any(count % lanes for count in channels)), 0)


def library(source: Path, lanes: int = LANES[-1], **functions: tuple[int, int]) -> ctypes.CDLL | None:
    """Return the compiled functions of a C file, or None with a note on stderr where they are not available.

    Keep the result: every call searches for the compiler. `functions` is as in `Kernels`.

    The name of the compiled file is a hash of the source, the header, the compiler and the processor's features.
    Machines may therefore share a cache folder. OpenMP threads are torch's own: both load the same libgomp.
    """
    blocked = os.environ.get("FSF_BLOCK_KERNELS", "").split(",")
    if source.stem in blocked or "all" in blocked:
        return None
    try:
        compiled = _loaded(source, lanes)
    except FileNotFoundError as error:
        _note(str(error))
        return None
    except (OSError, subprocess.SubprocessError, UserError) as error:
        _note(f"{source.name}: {_reason(error)}")
        return None
    for name, (pointers, numbers) in functions.items():
        function = getattr(compiled, name)
        function.argtypes, function.restype = [ctypes.c_void_p] * pointers + [ctypes.c_long] * numbers, None
    return compiled


def is_half(maps: Tensor) -> int:
    """Return the kernels' argument `half` for maps: 1 for bfloat16, 0 for float32."""
    return int(maps.dtype == torch.bfloat16)


@cache
def _note(what: str) -> None:
    """Print a note once, even if several kernels are missing."""
    print(f"note: {what}; training and swapping are slower without it", file=sys.stderr)


def _loaded(source: Path, lanes: int) -> ctypes.CDLL:
    """Return the loaded library, rebuilt if its file is damaged."""
    file = _compiled(source, lanes)
    try:
        return ctypes.CDLL(str(file))
    except OSError:  # the file is damaged
        file.unlink()
        return ctypes.CDLL(str(_compiled(source, lanes)))


def _compiled(source: Path, lanes: int) -> Path:
    """Return the path of the compiled library, which is built if it is missing."""
    chosen = os.environ.get("CC")
    compiler = next((path for name in ([chosen] if chosen else COMPILERS) if (path := shutil.which(name))), None)
    if compiler is None:
        raise FileNotFoundError(f"no C compiler was found (looked for {chosen or ', '.join(COMPILERS)})")
    features = _run([compiler, "-march=native", "-dM", "-E", "-x", "c", os.devnull])  # includes the compiler's version
    flags = [*FLAGS, f"-DLANES={lanes}"]
    inputs = [source.read_bytes(), HEADER.read_bytes(), " ".join(flags).encode(), features]
    key = hashlib.sha256(b"\0".join(inputs)).hexdigest()[:24]
    folder = cache_folder() / "native"
    file = folder / f"{source.stem}-{key}.so"
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(file) as temporary:
            _run([compiler, *flags, f"-I{HEADER.parent}", str(source), "-o", str(temporary)])
    return file


def _run(command: list[str]) -> bytes:
    """Run a command and return its output."""
    return subprocess.run(command, capture_output=True, check=True, timeout=SECONDS, stdin=subprocess.DEVNULL).stdout


def _reason(error: Exception) -> str:
    """Return an error as one line."""
    if isinstance(error, subprocess.CalledProcessError):
        lines = error.stderr.decode(errors="replace").strip().splitlines()
        return f"{Path(error.cmd[0]).name} failed: {lines[0] if lines else error.returncode}"
    return " ".join(str(error).split())
