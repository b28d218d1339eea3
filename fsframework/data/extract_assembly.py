"""Faces of many files -> a folder: copies dropped, a number for each person, crops by their names, a table.

The files are gone through in order, so the result does not depend on who found their faces, or when.
"""

import csv
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fsframework.data.extract_faces import ExtractOptions, Record, folder_of
from fsframework.data.webdataset import write_shards
from fsframework.utils.progress import tracked

# Mean difference of two small crops, in grey levels, below which they show one picture. Other qualities and sizes of a
# portrait differed by 1.8 and 3.7, different pictures of one person of ORL by 4.9 and more.
COPY = 4.0
TABLE = "faces.csv"
COLUMNS = ("crop", "person", "source", "frame", "score", "sharpness", "box", "landmarks", "matrix")
TOGETHER = 4096  # faces that are compared with all people at once

Found = tuple[Path, str]  # a file, and the SHA-256 of its content


def assemble(
    folder: Path, found: Sequence[Found], parts: Path, wanted: ExtractOptions, match_threshold: float
) -> tuple[int, int]:
    """Write the faces of files that are kept in `parts` to a folder, as `wanted` says; `group` has the threshold.

    Returns how many faces were written, of how many people: none if no face was kept. Memory grows by about 1 kB for
    each face, not by its crop.
    """
    kept, z_id = _without_copies(found, parts)
    if not z_id:
        return 0, 0
    people = group(np.concatenate(z_id), match_threshold)
    crops: list[tuple[str, Path]] = []
    with (folder / TABLE).open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        for row, crop in _rows(found, kept, people, parts, wanted.suffix):
            table.writerow(row)
            crops.append((row[0], crop))
    shown = tracked(crops, "writing", len(crops), "crops")
    if wanted.sharded is None:
        write_crops(folder, shown)
    else:
        write_shards(folder, shown, wanted.sharded)
    return len(crops), max(people) + 1


def write_crops(folder: Path, crops: Iterable[tuple[str, Path]]) -> None:
    """Put crops into a folder: of each its name there, PERSON/NAME.png, and the file that holds it, which stays."""
    for name, file in crops:
        (folder / name).parent.mkdir(exist_ok=True)
        try:
            os.link(file, folder / name)
        except OSError:  # there are file systems without links
            shutil.copyfile(file, folder / name)


def _without_copies(found: Sequence[Found], parts: Path) -> tuple[list[list[int]], list[np.ndarray]]:
    """Of each file the rows that look like none before, and their embeddings (n, D)."""
    looks = Looks()
    kept, z_id = [], []
    for _, content in tracked(found, "comparing", len(found), "files"):
        record = Record.read(folder_of(parts, content))
        rows = [row for row, look in enumerate(record.looks) if looks.add(look)]
        kept.append(rows)
        if rows:
            z_id.append(record.z_id[rows])
    return kept, z_id


def _rows(
    found: Sequence[Found], kept: Sequence[Sequence[int]], people: Sequence[int], parts: Path, suffix: str
) -> Iterator[tuple[list[Any], Path]]:
    """The table's rows, each with the file of its crop."""
    numbers = iter(people)
    taken: set[str] = set()
    for (file, content), rows in zip(found, kept, strict=True):
        if not rows:
            continue
        record = Record.read(folder_of(parts, content))
        for row in rows:
            person = f"person-{next(numbers) + 1:04}"
            stem = file.stem.replace(".", "_")  # webdataset takes what follows the first dot for the kind
            name = _free(f"{stem}-{record.frames[row]}", suffix, person, taken)
            quality = [f"{record.scores[row]:.4f}", f"{record.sharpness[row]:.2f}"]
            places = [record.boxes[row], record.landmarks[row], record.matrices[row]]
            words = [" ".join(f"{value:.3f}" for value in place) for place in places]
            yield (
                [f"{person}/{name}", person, file, record.frames[row], *quality, *words],
                folder_of(parts, content) / f"{row}{suffix}",
            )


def _free(stem: str, suffix: str, person: str, taken: set[str]) -> str:
    """A name that no other crop of a person has."""
    name, number = f"{stem}{suffix}", 1
    while f"{person}/{name}" in taken:
        number += 1
        name = f"{stem}-{number}{suffix}"
    taken.add(f"{person}/{name}")
    return name


class Looks:
    """What crops look like that were kept (see `small`), to tell copies of them.

    A crop is compared with few of them, and no copy is missed: neither the sums of all pixels nor those of sixteen
    blocks of two crops are farther apart than their pixels.
    """

    def __init__(self) -> None:
        self.count = 0
        self.looks = np.empty((1024, 256), np.uint8)
        self.blocks = np.empty((1024, 16), np.int16)
        self.sums = np.empty(1024, np.int32)

    def add(self, look: np.ndarray) -> bool:
        """Keep a look (256,), unless it is a copy of one that was kept before."""
        apart = COPY * look.size
        total = int(look.sum(dtype=np.int32))
        blocks = look.reshape(4, 4, 4, 4).sum(axis=(1, 3), dtype=np.int16).reshape(-1)
        near = np.flatnonzero(np.abs(self.sums[: self.count] - total) < apart)
        near = near[np.abs(self.blocks[near] - blocks).sum(axis=1) < apart]
        if is_copy(look, self.looks[near]):
            return False
        if self.count == len(self.sums):
            self.looks, self.blocks, self.sums = _grown(self.looks), _grown(self.blocks), _grown(self.sums)
        self.looks[self.count], self.blocks[self.count], self.sums[self.count] = look, blocks, total
        self.count += 1
        return True


def is_copy(look: np.ndarray, seen: Sequence[np.ndarray] | np.ndarray) -> bool:
    """Whether a crop looks like one of others, such as another size or quality of one picture."""
    apart = np.abs(np.asarray(seen, np.int16).reshape(-1, look.size) - look).mean(axis=1)
    return bool((apart < COPY).any())


def group(z_id: np.ndarray, match_threshold: float) -> list[int]:
    """Who is who: a number for each embedding (N, D) of unit length, 0 for the person with most faces.

    Each goes to the nearest person's mean if their cosine is `match_threshold` or more, or begins a new one; then all
    are given again to the means that came out.

    Time grows with faces times people, memory with their sum. scikit-learn's needs the square of the faces.
    """
    count = 0
    sums = np.empty((64, z_id.shape[1]), z_id.dtype)
    means = np.empty_like(sums)  # of unit length
    for row in z_id:
        likeness = means[:count] @ row
        nearest = int(likeness.argmax()) if count else 0
        if count and likeness[nearest] >= match_threshold:
            sums[nearest] += row
        else:
            if count == len(sums):
                sums, means = _grown(sums), _grown(means)
            nearest = count
            sums[nearest] = row
            count += 1
        means[nearest] = sums[nearest] / np.linalg.norm(sums[nearest])
    starts = range(0, len(z_id), TOGETHER)
    given = np.concatenate([(z_id[start : start + TOGETHER] @ means[:count].T).argmax(axis=1) for start in starts])
    counts = np.bincount(given, minlength=count)
    ranks = np.empty(count, np.int64)
    ranks[np.argsort(-counts, kind="stable")] = np.arange(count)
    return [int(rank) for rank in ranks[given]]


def _grown(array: np.ndarray) -> np.ndarray:
    """The same rows, and room for as many more."""
    return np.concatenate([array, np.empty_like(array)])
