"""Aligned crops on disk: made once, then read in microseconds by any number of processes.

A cache is a folder with images.npy (N, S, S, 3) uint8, landmarks.npy (N, 5, 2) float32 and faces.json. Its name is a
hash of everything its content depends on. It is built beside its place and renamed when it is complete, so a folder
with the right name is a complete cache.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from fsframework.errors import UserError
from fsframework.files import cache_folder, sync_folder
from fsframework.types import Sample

FORMAT = 2  # changes when the same pictures would be stored differently


@dataclass(frozen=True, eq=False)
class Row:
    """What became of one picture: an aligned crop, or None and the reason."""

    name: str
    person: str | None
    image: np.ndarray | None = None  # (S, S, 3) uint8
    landmarks: np.ndarray | None = None  # (5, 2) crop pixels
    note: str = ""  # the reason, or what is special about the crop


class AlignedFaces:
    """An open cache. A pickle of it holds the path only.

    Raises
    ------
    OSError, EOFError, ValueError, KeyError, TypeError
        There is no complete cache in the folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        facts = json.loads((folder / "faces.json").read_text(encoding="utf-8"))
        self.names: list[str] = facts["names"]
        self.people: list[str | None] = facts["people"]
        self.notes: dict[str, str] = facts["notes"]  # name -> what is special about a crop
        self.skipped: list[tuple[str, str]] = [(name, reason) for name, reason in facts["skipped"]]
        self.landmarks = np.load(folder / "landmarks.npy")
        # A plain view: indexing np.memmap itself is several times slower.
        self.images = np.load(folder / "images.npy", mmap_mode="r").view(np.ndarray)
        if not len(self.names) == len(self.people) == len(self.landmarks) == len(self.images):
            raise ValueError(f"{folder}: its files do not belong together")

    def __reduce__(self) -> tuple[type[Self], tuple[Path]]:
        return type(self), (self.folder,)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        return Sample(
            image=self.images[index].copy(),
            name=self.names[index],
            person=self.people[index],
            landmarks=self.landmarks[index].copy(),
        )


def cached(folder: Path | None, depends_on: dict[str, Any], make: Callable[[], Iterable[Row]]) -> AlignedFaces:
    """The aligned crops that `make` yields, from the cache if they are there.

    Parameters
    ----------
    folder:
        Of all caches; None for the default.
    depends_on:
        Everything the crops depend on, fit for JSON.
    make:
        Called only if there is no cache. Of two processes that need the same cache one makes it and one waits.

    Raises
    ------
    UserError
        No crop is left, or the cache cannot be written.
    """
    folder = (folder or cache_folder()).expanduser()
    text = json.dumps({"format": FORMAT, **depends_on}, sort_keys=True)
    place = folder / f"faces-{hashlib.sha256(text.encode()).hexdigest()[:24]}"
    found = _opened(place)
    if found is not None:
        return found
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(place):
            found = _opened(place)  # another process may have made it meanwhile
            if found is not None:
                return found
            _build(place, make())
            return AlignedFaces(place)
    except OSError as error:
        advice = "free some space, or name another folder with the option cache"
        raise UserError(f"{folder}: the cache cannot be written: {error.strerror or error}; {advice}") from error


def _opened(place: Path) -> AlignedFaces | None:
    try:
        return AlignedFaces(place)
    except (OSError, EOFError, ValueError, KeyError, TypeError):
        return None  # absent, or damaged by somebody


@contextmanager
def _alone(place: Path) -> Iterator[None]:
    """One process at a time, where the system has such locks; elsewhere several may build, and the first one wins."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with place.with_suffix(".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # ends with the process, however that ends
        for left_over in place.parent.glob(f"{place.name}.*.partial"):
            shutil.rmtree(left_over, ignore_errors=True)
        yield


def _build(place: Path, rows: Iterable[Row]) -> None:
    partial = place.with_name(f"{place.name}.{os.getpid()}.partial")
    partial.mkdir()
    try:
        _write(partial, rows)
        sync_folder(partial)
        if place.exists():
            shutil.rmtree(place)  # damaged, or it would have been used
        partial.rename(place)
        sync_folder(place.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write(folder: Path, rows: Iterable[Row]) -> None:
    landmarks: list[np.ndarray] = []
    facts: dict[str, Any] = {"names": [], "people": [], "notes": {}, "skipped": []}
    with (folder / "images.npy").open("wb") as file:
        shape: tuple[int, ...] = ()
        for row in rows:
            if row.image is None or row.landmarks is None:
                facts["skipped"].append((row.name, row.note))
                continue
            if not shape:
                shape = row.image.shape
                _header(file, (0, *shape))
            file.write(np.ascontiguousarray(row.image, dtype=np.uint8).data)
            landmarks.append(row.landmarks)
            facts["names"].append(row.name)
            facts["people"].append(row.person)
            if row.note:
                facts["notes"][row.name] = row.note
        if not landmarks:
            name, reason = facts["skipped"][0]
            raise UserError(
                f"{name}: {reason}; none of {len(facts['skipped'])} pictures can be used, this is the first"
            )
        file.seek(0)
        _header(file, (len(landmarks), *shape))  # numpy pads headers, so a longer number does not move the data
        _sync(file)
    with (folder / "landmarks.npy").open("wb") as file:
        np.save(file, np.array(landmarks, dtype=np.float32))
        _sync(file)
    with (folder / "faces.json").open("wb") as file:
        file.write(json.dumps(facts, indent=0).encode())
        _sync(file)


def _header(file: Any, shape: tuple[int, ...]) -> None:
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})


def _sync(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())
