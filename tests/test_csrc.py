"""C kernels: compiled once, and everything works without them."""

import ctypes
import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fsframework.ops.allocator import retain_freed_memory
from fsframework.ops.csrc import build

GOOD = "long twice(long x) { return 2 * x; }\n"


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("FSF_BLOCK_KERNELS", raising=False)
    file = tmp_path / "twice.c"
    file.write_text(GOOD)
    return file


def library(source: Path) -> ctypes.CDLL | None:
    build._note.cache_clear()
    return build.library(source)


@pytest.fixture
def compiler() -> None:
    if not any(map(shutil.which, build.COMPILERS)):
        pytest.skip("needs a C compiler")


@pytest.mark.usefixtures("compiler")
def test_compiles_once(source: Path, tmp_path: Path) -> None:
    found = library(source)
    assert found is not None and found.twice(21) == 42
    (file,) = (tmp_path / "cache" / "fsframework" / "native").iterdir()
    made = file.stat().st_mtime_ns
    assert library(source) is not None and file.stat().st_mtime_ns == made
    source.write_text(GOOD.replace("2 *", "3 *"))
    changed = library(source)
    assert changed is not None and changed.twice(1) == 3


def refused(source: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert library(source) is None
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("note: ")
    return line


@pytest.mark.usefixtures("compiler")
def test_a_mistake_in_the_source_is_one_line(
    source: Path, capsys: pytest.CaptureFixture[str], check_message: Callable[..., None]
) -> None:
    source.write_text("not C\n")
    line = refused(source, capsys)
    assert line.startswith("note: twice.c: ")
    said, _, rest = line.removeprefix("note: twice.c: ").rpartition("; ")  # first what the compiler says
    assert said
    check_message(rest)


def test_no_compiler(
    source: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    check_message: Callable[..., None],
) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    line = refused(source, capsys)
    assert "no-such-compiler" in line
    check_message(line)
    assert build.library(source) is None and not capsys.readouterr().err  # said once


@pytest.mark.usefixtures("compiler")
def test_a_cache_that_cannot_be_written(
    source: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    check_message: Callable[..., None],
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    line = refused(source, capsys)
    assert line.startswith("note: twice.c: ")
    check_message(line, {f"[Errno {errno.ENOTDIR}] {os.strerror(errno.ENOTDIR)}": "REASON"})


@pytest.mark.usefixtures("compiler")
def test_a_damaged_library_is_made_again(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert library(source) is not None
    (file,) = (tmp_path / "cache" / "fsframework" / "native").iterdir()
    other = file.with_name("copy.so")
    other.write_bytes(file.read_bytes()[:100])
    other.replace(file)  # another file: the first one is still open
    found = library(source)
    assert found is not None and found.twice(4) == 8
    assert not capsys.readouterr().err


@pytest.mark.usefixtures("compiler")
def test_blocked(source: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for blocked, there in (("other,twice", False), ("all", False), ("other", True)):
        monkeypatch.setenv("FSF_BLOCK_KERNELS", blocked)
        assert (library(source) is not None) == there
    assert not capsys.readouterr().err


FAULTS = """
import resource, torch
from fsframework.ops.allocator import retain_freed_memory
kept = retain_freed_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(16_000_000)  # 64 MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
for _ in range(10):  # until the allocator has found its places
    faults()
print(kept, faults())
"""


@pytest.mark.system
def test_memory_is_kept() -> None:
    said = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True).stdout.split()
    if said[0] == "False":
        pytest.skip("needs glibc")
    assert int(said[1]) < 100  # of more than 15 thousand pages


def test_memory_is_left_alone_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert retain_freed_memory() is False
    assert torch.ones(1).item() == 1


@pytest.mark.parametrize(
    ("level", "channels", "lanes"),
    [("AVX512", (64,), 16), ("AVX512", (64, 24), 8), ("AVX2", (64,), 8), ("AVX512", (64, 5), 0), ("AVX2", (5,), 0)],
)
def test_lanes(level: str, channels: tuple[int, ...], lanes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The most that divide all channels and that the processor has."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: level)
    assert build._lanes(*channels) == lanes


@pytest.mark.usefixtures("compiler")
def test_kernels_are_compiled_for_both(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    source.write_text("void tell(long *found) { *found = LANES; }\n")
    kernels = build.Kernels(source, tell=(1, 0))
    found = ctypes.c_long()
    for channels, lanes in ((64, 16), (8, 8), (32, 16)):
        assert kernels.suit(channels)
        kernels.of(channels).tell(ctypes.addressof(found))
        assert found.value == lanes
    assert not kernels.suit(7)
