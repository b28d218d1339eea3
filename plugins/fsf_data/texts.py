"""Memory-mapped sequence of millions of short strings in two files: concatenated bytes and end offsets."""

from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np


def mapped(folder: Path, name: str) -> np.ndarray:
    """Return a memory-mapped array of a folder, as plain ndarray: indexing np.memmap is several times slower."""
    return np.load(folder / f"{name}.npy", mmap_mode="r").view(np.ndarray)  # type: ignore[no-any-return]


class Texts(Sequence[str]):
    """Sequence of strings on disk, read on access.

    Raises
    ------
    OSError, ValueError
        The folder holds no such files, or they are inconsistent.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._ends = mapped(folder, f"{name}.ends")  # (N,) int64
        size = (folder / f"{name}.txt").stat().st_size
        if size != (self._ends[-1] if len(self._ends) else 0):
            raise ValueError(f"{folder}: {name} was cut, or belongs to another index")
        empty = np.zeros(0, np.uint8)  # an empty file cannot be mapped
        self._bytes = np.memmap(folder / f"{name}.txt", np.uint8, "r").view(np.ndarray) if size else empty

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        position = index % len(self)
        start = int(self._ends[position - 1]) if position else 0
        return self._bytes[start : int(self._ends[position])].tobytes().decode("utf-8", "surrogateescape")


class TextsWriter:
    """Writer of `Texts`, string by string."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name
        self._file: Any = (folder / f"{name}.txt").open("wb")
        self._ends = array("q")
        self._end = 0

    def add(self, text: str) -> None:
        """Append a string."""
        content = text.encode("utf-8", "surrogateescape")
        self._file.write(content)
        self._end += len(content)
        self._ends.append(self._end)

    def close(self) -> None:
        """Close the files and write the end offsets."""
        self._file.close()
        np.save(self._folder / f"{self._name}.ends.npy", np.array(self._ends, np.int64))
