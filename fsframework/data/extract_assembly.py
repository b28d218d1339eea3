"""Assemble the cached faces of many files: remove copies, group faces by person, and write crops and a table.

Files are processed in order, so the result does not depend on which process found their faces, or when.
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

# Mean difference of two thumbnails, in grey levels, below which crops are copies of one image. Other qualities and
# sizes of a portrait differed by 1.8 and 3.7, different images of one person of ORL by 4.9 and more.
COPY = 4.0
TABLE = "faces.csv"
COLUMNS = ("crop", "person", "source", "frame", "score", "sharpness", "box", "landmarks", "matrix")
CHUNK = 4096  # faces compared with all people in one matrix product

HashedFile = tuple[Path, str]  # path and SHA-256 of the content


def assemble(
    folder: Path, files: Sequence[HashedFile], parts: Path, options: ExtractOptions, match_threshold: float
) -> tuple[int, int]:
    """Write the faces of files, cached in `parts`, to a folder, and return the numbers of faces and people.

    Both are 0 if there is no face. `match_threshold` is the cosine for `group`. Memory grows by about 1 kB for each
    face, not by its crop.
    """
    rows, z_id = _without_copies(files, parts)
    if not z_id:
        return 0, 0
    persons = group(np.concatenate(z_id), match_threshold)
    crops: list[tuple[str, Path]] = []
    with (folder / TABLE).open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        for row, crop in _rows(files, rows, persons, parts, options.suffix):
            table.writerow(row)
            crops.append((row[0], crop))
    progress = tracked(crops, "writing", len(crops), "crops")
    if options.sharded is None:
        write_crops(folder, progress)
    else:
        write_shards(folder, progress, options.sharded)
    return len(crops), max(persons) + 1


def write_crops(folder: Path, crops: Iterable[tuple[str, Path]]) -> None:
    """Link or copy crops into a folder, from (PERSON/NAME.png, cached file) pairs; cached files stay."""
    for name, file in crops:
        (folder / name).parent.mkdir(exist_ok=True)
        try:
            os.link(file, folder / name)
        except OSError:  # the file system has no hard links
            shutil.copyfile(file, folder / name)


def _without_copies(files: Sequence[HashedFile], parts: Path) -> tuple[list[list[int]], list[np.ndarray]]:
    """Return for each file the rows of faces that are no copies, and their embeddings (n, D)."""
    looks = Looks()
    kept_rows, z_id = [], []
    for _, content in tracked(files, "comparing", len(files), "files"):
        record = Record.read(folder_of(parts, content))
        rows = [row for row, look in enumerate(record.looks) if looks.add(look)]
        kept_rows.append(rows)
        if rows:
            z_id.append(record.z_id[rows])
    return kept_rows, z_id


def _rows(
    files: Sequence[HashedFile], kept_rows: Sequence[Sequence[int]], people: Sequence[int], parts: Path, suffix: str
) -> Iterator[tuple[list[Any], Path]]:
    """Yield the table's rows, each with the path of its cached crop."""
    numbers = iter(people)
    taken: set[str] = set()
    for (file, content), rows in zip(files, kept_rows, strict=True):
        if not rows:
            continue
        record = Record.read(folder_of(parts, content))
        for row in rows:
            person = f"person-{next(numbers) + 1:04}"
            stem = file.stem.replace(".", "_")  # webdataset splits key and extension at the first dot
            name = _unique_name(f"{stem}-{record.frames[row]}", suffix, person, taken)
            quality = [f"{record.scores[row]:.4f}", f"{record.sharpness[row]:.2f}"]
            arrays = [record.boxes[row], record.landmarks[row], record.matrices[row]]
            words = [" ".join(f"{value:.3f}" for value in array) for array in arrays]
            yield (
                [f"{person}/{name}", person, file, record.frames[row], *quality, *words],
                folder_of(parts, content) / f"{row}{suffix}",
            )


def _unique_name(stem: str, suffix: str, person: str, taken: set[str]) -> str:
    """Return a file name that no other crop of the person has, and add it to `taken`."""
    name, number = f"{stem}{suffix}", 1
    while f"{person}/{name}" in taken:
        number += 1
        name = f"{stem}-{number}{suffix}"
    taken.add(f"{person}/{name}")
    return name


class Looks:
    """An index of thumbnails (see `small`) that detects copies of earlier crops.

    Two lower bounds of the pixel distance preselect candidates: the difference of the sums of all pixels, and that of
    the sums of sixteen blocks. No copy is missed.
    """

    def __init__(self) -> None:
        self.count = 0
        self.looks = np.empty((1024, 256), np.uint8)
        self.blocks = np.empty((1024, 16), np.int16)
        self.sums = np.empty(1024, np.int32)

    def add(self, look: np.ndarray) -> bool:
        """Add a thumbnail (256,) and return True, or return False if it is a copy of an earlier one."""
        apart = COPY * look.size
        total = int(look.sum(dtype=np.int32))
        blocks = look.reshape(4, 4, 4, 4).sum(axis=(1, 3), dtype=np.int16).reshape(-1)
        candidates = np.flatnonzero(np.abs(self.sums[: self.count] - total) < apart)
        candidates = candidates[np.abs(self.blocks[candidates] - blocks).sum(axis=1) < apart]
        if is_copy(look, self.looks[candidates]):
            return False
        if self.count == len(self.sums):
            self.looks, self.blocks, self.sums = _grown(self.looks), _grown(self.blocks), _grown(self.sums)
        self.looks[self.count], self.blocks[self.count], self.sums[self.count] = look, blocks, total
        self.count += 1
        return True


def is_copy(look: np.ndarray, others: Sequence[np.ndarray] | np.ndarray) -> bool:
    """Return whether a thumbnail (256,) shows the same image as one of others (n, 256), up to size and quality."""
    apart = np.abs(np.asarray(others, np.int16).reshape(-1, look.size) - look).mean(axis=1)
    return bool((apart < COPY).any())


def group(z_id: np.ndarray, match_threshold: float) -> list[int]:
    """Cluster embeddings (N, D) of unit length and return a person number for each, 0 for the person with most faces.

    Each embedding joins the nearest person's mean if their cosine is `match_threshold` or more; otherwise it starts a
    new person. Then every embedding is reassigned to the nearest of the final means.

    Time grows with faces times people, memory with their sum. scikit-learn's clustering needs the square of the faces.
    """
    count = 0
    sums = np.empty((64, z_id.shape[1]), z_id.dtype)
    means = np.empty_like(sums)  # of unit length
    for row in z_id:
        similarity = means[:count] @ row
        nearest = int(similarity.argmax()) if count else 0
        if count and similarity[nearest] >= match_threshold:
            sums[nearest] += row
        else:
            if count == len(sums):
                sums, means = _grown(sums), _grown(means)
            nearest = count
            sums[nearest] = row
            count += 1
        means[nearest] = sums[nearest] / np.linalg.norm(sums[nearest])
    starts = range(0, len(z_id), CHUNK)
    assignment = np.concatenate([(z_id[start : start + CHUNK] @ means[:count].T).argmax(axis=1) for start in starts])
    counts = np.bincount(assignment, minlength=count)
    ranks = np.empty(count, np.int64)
    ranks[np.argsort(-counts, kind="stable")] = np.arange(count)
    return [int(rank) for rank in ranks[assignment]]


def _grown(array: np.ndarray) -> np.ndarray:
    """Return an array with the same rows and capacity for as many more."""
    return np.concatenate([array, np.empty_like(array)])
