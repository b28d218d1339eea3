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

from fsframework.core.errors import UserError
from fsframework.utils.files import cache_folder, replacing

SOURCES = Path(__file__).parent
HEADER = SOURCES / "simd.h"  # that every kernel may include
LANES = (16, 8)  # channels that kernels work on at once: AVX-512's, and everybody's
FLAGS = ["-O3", "-march=native", "-fopenmp", "-fno-math-errno", "-shared", "-fPIC"]
COMPILERS = ("cc", "gcc", "clang")
SECONDS = 120  # that a compiler may take


class Kernels:
    """The functions of a C file, compiled when they are first needed, for as many lanes as numbers of channels allow.

    `functions` says of each how many pointers it takes, and then how many longs; none returns anything.
    """

    def __init__(self, source: Path, **functions: tuple[int, int]) -> None:
        self.source, self.functions = source, functions
        self._found: dict[int, ctypes.CDLL | None] = {}  # by lanes

    def suit(self, *channels: int) -> bool:
        """Whether they can be had, and work on maps of so many channels."""
        return self._library(*channels) is not None

    def of(self, *channels: int) -> ctypes.CDLL:
        """The functions for maps of so many channels, which `suit`."""
        found = self._library(*channels)
        assert found is not None, "ask whether they suit first"
        return found

    def _library(self, *channels: int) -> ctypes.CDLL | None:
        lanes = _lanes(*channels)
        if lanes and lanes not in self._found:
            self._found[lanes] = library(self.source, lanes, **self.functions)
        return self._found[lanes] if lanes else None


def _lanes(*channels: int) -> int:
    """The most lanes that divide all numbers of channels, on this processor; 0: none do."""
    most = LANES if torch.backends.cpu.get_cpu_capability() == "AVX512" else LANES[1:]
    return next((lanes for lanes in most if not any(each % lanes for each in channels)), 0)


def library(source: Path, lanes: int = LANES[-1], **functions: tuple[int, int]) -> ctypes.CDLL | None:
    """The compiled functions of a C file, or None where they cannot be had; then one line on standard error says why.

    Keep what this returns: every call looks for the compiler. `functions` as of `Kernels`.

    The compiled file's name is a hash of the source, the header, the compiler and the processor's abilities, so a cache
    folder can be shared between machines. OpenMP threads are torch's own: both load the same libgomp.
    """
    blocked = os.environ.get("FSF_BLOCK_KERNELS", "").split(",")
    if source.stem in blocked or "all" in blocked:
        return None
    try:
        found = _loaded(source, lanes)
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


def _loaded(source: Path, lanes: int) -> ctypes.CDLL:
    file = _compiled(source, lanes)
    try:
        return ctypes.CDLL(str(file))
    except OSError:  # damaged by somebody
        file.unlink()
        return ctypes.CDLL(str(_compiled(source, lanes)))


def _compiled(source: Path, lanes: int) -> Path:
    """The library's file, made unless it is there."""
    named = os.environ.get("CC")
    compiler = next((path for name in ([named] if named else COMPILERS) if (path := shutil.which(name))), None)
    if compiler is None:
        raise FileNotFoundError(f"no C compiler was found (looked for {named or ', '.join(COMPILERS)})")
    abilities = _run([compiler, "-march=native", "-dM", "-E", "-x", "c", os.devnull])  # names the compiler, too
    flags = [*FLAGS, f"-DLANES={lanes}"]
    made_of = [source.read_bytes(), HEADER.read_bytes(), " ".join(flags).encode(), abilities]
    key = hashlib.sha256(b"\0".join(made_of)).hexdigest()[:24]
    folder = cache_folder() / "native"
    file = folder / f"{source.stem}-{key}.so"
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(file) as temporary:
            _run([compiler, *flags, f"-I{HEADER.parent}", str(source), "-o", str(temporary)])
    return file


def _run(command: list[str]) -> bytes:
    return subprocess.run(command, capture_output=True, check=True, timeout=SECONDS, stdin=subprocess.DEVNULL).stdout


def _reason(error: Exception) -> str:
    """One line."""
    if isinstance(error, subprocess.CalledProcessError):
        said = error.stderr.decode(errors="replace").strip().splitlines()
        return f"{Path(error.cmd[0]).name} failed: {said[0] if said else error.returncode}"
    return " ".join(str(error).split())
