"""Weights come back as they were saved, and a damaged or foreign file is one clear line."""

import hashlib
import json
import os
import re
import struct
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fsframework.core.errors import UserError
from fsframework.utils.weights import load_metadata, load_state, read, save_state, verify


@pytest.fixture
def state() -> dict[str, Tensor]:
    weight = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    return {
        "weight": weight,
        "tied": weight,
        "part": weight[1:],
        "turned": weight.T,
        "count": torch.tensor(3),
        "none": torch.empty(0),
    }


@pytest.fixture
def expect_damage(check_message: Callable[..., None]) -> Callable[[Path], AbstractContextManager[None]]:
    """Expect a file to be refused, whatever the library that reads it says of it."""

    @contextmanager
    def expect(path: Path) -> Iterator[None]:
        with pytest.raises(UserError) as caught:
            yield
        message = str(caught.value)
        assert message.startswith(f"{path}: ") and "\n" not in message and "weights_only" not in message
        check_message(re.sub(r"(cannot be read as [^:]*): (?!the header ).*; it is", r"\1: REASON; it is", message))

    return expect


class Trap:
    """Leaves a file behind if it is ever unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("ending", [".safetensors", ".pt", ".pth"])
def test_state_comes_back(tmp_path: Path, state: dict[str, Tensor], ending: str) -> None:
    path = tmp_path / f"w{ending}"
    if ending == ".safetensors":
        save_state(path, state)
    else:
        torch.save(state, path)
    found = load_state(path, hashlib.sha256(path.read_bytes()).hexdigest().upper())
    assert found.keys() == state.keys()
    for name, tensor in state.items():
        assert torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype


def test_metadata_comes_back(tmp_path: Path, state: dict[str, Tensor]) -> None:
    save_state(tmp_path / "a.safetensors", state, {"recipe": "ä b"})
    save_state(tmp_path / "b.safetensors", state)
    assert load_metadata(tmp_path / "a.safetensors") == {"recipe": "ä b"}
    assert load_metadata(tmp_path / "b.safetensors") == {}


def test_verify_names_file_and_both_hashes(tmp_path: Path, expect_error: Callable[..., Any]) -> None:
    path = tmp_path / "w.bin"
    path.write_bytes(b"weights")
    right = hashlib.sha256(b"weights").hexdigest()
    verify(path, right)
    assert read(path, right) == b"weights"
    with expect_error("w.bin"):
        verify(path, "0" * 64)
    with expect_error("missing"):
        verify(tmp_path / "missing", right)


@pytest.mark.parametrize("ending", [".safetensors", ".pt"])
def test_cut_short_is_one_line(
    tmp_path: Path, state: dict[str, Tensor], ending: str, expect_damage: Callable[..., Any]
) -> None:
    path = tmp_path / f"w{ending}"
    if ending == ".safetensors":
        save_state(path, state)
    else:
        torch.save(state, path)
    whole = path.read_bytes()
    for length in (0, 4, 8, 50, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with expect_damage(path):
            load_state(path)


def test_truncated_header_of_metadata_is_one_line(tmp_path: Path, expect_damage: Callable[..., Any]) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", 2**62) + b"{}")
    with expect_damage(path):
        load_metadata(path)


def test_duplicate_tensor_is_refused(tmp_path: Path, expect_damage: Callable[..., Any]) -> None:
    entry = json.dumps({"dtype": "F32", "shape": [1], "data_offsets": [0, 4]})
    header = f'{{"a": {entry}, "a": {entry}}}'.encode()
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    with expect_damage(path):
        load_state(path)


@pytest.mark.parametrize(
    "header", [b"[1]", b"[" * 100_000, b"\xff\xfe", b"null"], ids=["list", "deep", "bytes", "null"]
)
def test_foreign_header_is_one_line(tmp_path: Path, header: bytes, expect_damage: Callable[..., Any]) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    with expect_damage(path):
        load_state(path)


def test_pickled_code_never_runs(tmp_path: Path, expect_damage: Callable[..., Any]) -> None:
    sentinel = tmp_path / "ran"
    torch.save({"a": Trap(sentinel)}, tmp_path / "w.pt")
    with expect_damage(tmp_path / "w.pt"):
        load_state(tmp_path / "w.pt")
    assert not sentinel.exists()


@pytest.mark.parametrize("content", [[1, 2], {"a": 1}, {"a": {"b": torch.zeros(1)}}, {1: torch.zeros(1)}])
def test_only_named_tensors(tmp_path: Path, content: object, expect_error: Callable[..., Any]) -> None:
    torch.save(content, tmp_path / "w.pt")
    with expect_error("w.pt"):
        load_state(tmp_path / "w.pt")


def test_other_endings_are_refused(tmp_path: Path, expect_error: Callable[..., Any]) -> None:
    with expect_error("w.pkl"):
        load_state(tmp_path / "w.pkl")


def test_failed_save_keeps_the_old_file(
    tmp_path: Path, state: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch, expect_error: Callable[..., Any]
) -> None:
    path = tmp_path / "w.safetensors"
    save_state(path, state)
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with expect_error("w.safetensors"):
        save_state(path, {"other": torch.zeros(1)})
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
    monkeypatch.undo()
    with expect_error("no/w.safetensors"):
        save_state(tmp_path / "no" / "w.safetensors", state)
