"""Cache of aligned crops on disk, memory-mapped by any number of processes.

A cache is an index (`fsf_data.face_index`) with images.npy (N, S, S, C) uint8 and landmarks.npy (N, 5, 2) float32.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fsf_data import cache
from fsf_data.face_index import FaceIndex, FaceIndexWriter
from fsf_data.texts import mapped
from fsframework.core.errors import UserError
from fsframework.core.types import Sample

FORMAT = 3  # version of the stored format


@dataclass(frozen=True, eq=False)
class Row:
    """Result of aligning one image: an aligned crop, or None and the reason."""

    name: str
    person: str | None
    image: np.ndarray | None = None  # (S, S, C) uint8, of which the first three are RGB
    landmarks: np.ndarray | None = None  # (5, 2) crop pixels
    note: str = ""  # reason for a missing crop, or a remark on the crop


class AlignedFaces(FaceIndex):
    """Aligned crops of a cache folder.

    Raises
    ------
    OSError, EOFError, ValueError, KeyError, TypeError
        There is no complete cache in the folder.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.landmarks, self.images = (mapped(folder, name) for name in ("landmarks", "images"))
        if not len(self) == len(self.landmarks) == len(self.images):
            raise ValueError(f"{folder}: its files do not belong together")

    def __getitem__(self, index: int) -> Sample:
        return Sample(
            image=self.images[index].copy(),
            name=self.names[index],
            person=self.person_of(index),
            landmarks=self.landmarks[index].copy(),
        )


def cached(folder: Path | None, depends_on: dict[str, Any], make: Callable[[], Iterable[Row]]) -> AlignedFaces:
    """Return the aligned crops that `make` yields, from the cache if present; see `fsf_data.cache`.

    Raises
    ------
    UserError
        No image gives a crop, or the cache cannot be written.
    """
    key = {"format": FORMAT, **depends_on}
    return cache.cached(folder, "faces", key, lambda path: _write(path, make()), AlignedFaces)


def _write(folder: Path, rows: Iterable[Row]) -> None:
    landmarks: list[np.ndarray] = []
    with FaceIndexWriter(folder) as index, (folder / "images.npy").open("wb") as file:
        shape: tuple[int, ...] = ()
        for row in rows:
            if row.image is None or row.landmarks is None:
                index.skip(row.name, row.note)
                continue
            if not shape:
                shape = row.image.shape
                _header(file, (0, *shape))
            file.write(np.ascontiguousarray(row.image, dtype=np.uint8).data)
            landmarks.append(row.landmarks)
            index.add(row.name, row.person, row.note)
        if not landmarks:
            name, reason = index.skipped[0]
            raise UserError(f"{name}: {reason}; none of {len(index.skipped)} pictures can be used, this is the first")
        file.seek(0)
        _header(file, (len(landmarks), *shape))  # numpy pads headers, so the data stay in place
    np.save(folder / "landmarks.npy", np.array(landmarks, dtype=np.float32))


def _header(file: Any, shape: tuple[int, ...]) -> None:
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
