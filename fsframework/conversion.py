"""Faces in pictures -> swapped."""

import os
from csv import DictReader
from csv import Error as CsvError
from dataclasses import dataclass
from functools import lru_cache
from io import StringIO
from pathlib import Path
from typing import NamedTuple, Self

import click
import numpy as np
import torch
from torch import Tensor

from fsframework.alignment import align, paste, soft_mask, transform
from fsframework.components import Detector, Swapper
from fsframework.errors import UserError
from fsframework.images import read_image, to_images, to_tensor, writable_format, write_image
from fsframework.progress import progress
from fsframework.runs import Run
from fsframework.types import AlignedFace, Batch, Face, Faces

COLUMNS = ("source", "target", "name")  # of a list of pictures to swap
TOGETHER = 16  # faces of one picture that go through the networks at once


@dataclass(frozen=True, eq=False)
class Source:
    """Who is put into a picture: computed once, used for any number of targets."""

    faces: Faces  # B = 1
    z_id: Tensor  # (1, D)


class Converter:
    """Swaps faces in pictures with one trained method.

    Which faces of a target are swapped is said by `face`: "largest" (by the area of its box), "all", or a number
    from 1, counted from left to right by the middle of the box. Of a source it is always the largest.

    Parameters
    ----------
    model:
        A run directory.
    device:
        As torch names it; by default the run decides.

    Raises
    ------
    UserError
        There is no run that can be loaded.
    """

    def __init__(self, model: Path, device: str | None = None) -> None:
        run = Run.load(model, device)
        detector = run.recipe.detector.build()
        detector.load()
        self._assemble(run.load_swapper(), detector, run.recipe.size, run.device)

    @classmethod
    def of(cls, swapper: Swapper, detector: Detector, size: int, device: str | torch.device = "cpu") -> Self:
        """A converter of parts that are loaded already; `size` is the side of the swapper's crops."""
        converter = cls.__new__(cls)
        converter._assemble(swapper, detector, size, device)
        return converter

    def _assemble(self, swapper: Swapper, detector: Detector, size: int, device: str | torch.device) -> None:
        self.swapper = swapper.to(device).eval()
        self.detector = detector.to(device).eval()
        self.size = size
        self.device = device

    def find(self, frame: np.ndarray, name: str) -> list[Face]:
        """The faces of a frame (H, W, 3) uint8, best first. Raises UserError, with `name`, if there is none."""
        with torch.inference_mode():
            faces = self.detector([frame])[0]
        if not faces:
            raise UserError(f"{name}: no face was found; use a picture that shows a whole face, upright and not small")
        return faces

    def source(self, frame: np.ndarray, name: str) -> Source:
        """The largest face of a frame (H, W, 3) uint8 as a source. Raises UserError, with `name`, if there is none."""
        faces = self._networks_input([align(frame, _largest(self.find(frame, name)), self.size)])
        with torch.inference_mode():
            return Source(faces, self.swapper.identity(faces))

    def read_source(self, path: Path) -> Source:
        """The largest face of a file as a source. Raises UserError if it cannot be read or shows no face."""
        return self.source(read_image(path), str(path))

    def swap(self, source_frame: np.ndarray, target_frame: np.ndarray, face: str = "largest") -> np.ndarray:
        """The target's frame with the source's identity in the faces that `face` chooses.

        Frames are (H, W, 3) uint8. Raises UserError if a frame shows no face, or fewer than `face` says.
        """
        return self.put(self.source(source_frame, "source"), target_frame, "target", face)

    def put(self, source: Source, frame: np.ndarray, name: str, face: str = "largest") -> np.ndarray:
        """A source put into a frame (H, W, 3) uint8; `name` is what errors call the frame. Errors as in `swap`."""
        chosen = choose(self.find(frame, name), face, name)
        crops = [align(frame, each, self.size) for each in chosen]
        for start in range(0, len(crops), TOGETHER):
            for crop, image, mask in self._swap_crops(source, crops[start : start + TOGETHER]):
                frame = paste(frame, image, crop.matrix, mask)
        return frame

    def _swap_crops(self, source: Source, crops: list[AlignedFace]) -> list[tuple[AlignedFace, np.ndarray, np.ndarray]]:
        """Each crop, its swap (S, S, 3) uint8 and how much of it to take (S, S)."""
        count = len(crops)
        who = Faces.of(source.faces.image.expand(count, -1, -1, -1), source.faces.landmarks.expand(count, -1, -1))
        with torch.inference_mode():
            result = self.swapper(Batch.of(who, self._networks_input(crops)), source.z_id.expand(count, -1))
        images, oval = to_images(result.image), soft_mask(self.size)
        if result.mask is not None:  # the generator itself says where the target shows
            masks = result.mask[:, 0].float().clamp(0, 1).cpu().numpy()
            return [(crop, image, mask * oval) for crop, image, mask in zip(crops, images, masks, strict=True)]
        return [(crop, match_edge(image, crop.image, oval), oval) for crop, image in zip(crops, images, strict=True)]

    def _networks_input(self, crops: list[AlignedFace]) -> Faces:
        landmarks = np.stack([transform(crop.face.landmarks, crop.matrix) for crop in crops])
        image = to_tensor(np.stack([crop.image for crop in crops]))
        return Faces.of(image, torch.from_numpy(landmarks).float()).to(self.device)

    def swap_file(self, source: Path | Source, target: Path, out: Path, face: str = "largest") -> None:
        """Write the picture `target` with the face of `source` to `out`, in one step or not at all.

        Raises
        ------
        UserError
            `out` is the source or the target, has an unknown suffix or lies in no folder; a picture cannot be read
            or shows no such face; `out` cannot be written.
        """
        check_face(face)
        check_output(out, *([target] if isinstance(source, Source) else [target, source]))
        who = source if isinstance(source, Source) else self.read_source(source)
        write_image(out, self.put(who, read_image(target), str(target), face))


def match_edge(image: np.ndarray, target: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A crop (S, S, 3) uint8, shifted by one colour to agree with the target's crop where the mask (S, S) fades.

    The shift is the median difference there, so that a strand of hair on the edge does not colour the face.
    """
    fading = (mask > 0.05) & (mask < 0.95)
    if not fading.any():
        return image
    shift = np.median(target[fading].astype(np.float32) - image[fading], axis=0)
    return np.rint(np.clip(image + shift, 0, 255)).astype(np.uint8)


def _area(face: Face) -> float:
    left, top, right, bottom = face.box
    return float((right - left) * (bottom - top))


def _largest(faces: list[Face]) -> Face:
    return max(faces, key=_area)


def check_face(face: str) -> None:
    """Raise UserError unless `face` is "largest", "all" or a number from 1."""
    if face not in ("largest", "all") and not (face.isdecimal() and int(face) > 0):
        raise UserError(f"face: {face!r} says no face; write largest, all, or a number counted from the left from 1")


def choose(faces: list[Face], face: str, name: str) -> list[Face]:
    """The faces that `face` means (see `Converter`). Raises UserError, with `name`, if there is no such face."""
    check_face(face)
    if face == "largest":
        return [_largest(faces)]
    if face == "all":
        return sorted(faces, key=_area)  # where two meet, the larger one, which is nearer, comes on top
    if int(face) > len(faces):
        raise UserError(f"{name}: face {face} was asked for, {len(faces)} found; count from the left from 1")
    return [sorted(faces, key=lambda each: each.box[0] + each.box[2])[int(face) - 1]]


def check_output(out: Path, *inputs: Path) -> None:
    """Raise UserError, before any work, if a picture cannot be written there or would replace an input."""
    writable_format(out)
    for path in inputs:
        if _same_file(out, path):
            raise UserError(f"{out}: is also an input, which is never overwritten; choose another name")
    if not out.parent.is_dir():
        raise UserError(f"{out}: there is no folder {out.parent}; make it, or choose another")


def _same_file(first: Path, second: Path) -> bool:
    try:
        return first.samefile(second)
    except (OSError, ValueError):  # one of them does not exist, or cannot
        return False


class Job(NamedTuple):
    """One picture to make, and the line of the list that asks for it."""

    line: int
    source: Path
    target: Path
    out: Path


def read_rows(table: Path) -> list[tuple[int, list[str]]]:
    """The lines of a CSV file: number, and source, target, name, which the file may hold in any order.

    Raises
    ------
    UserError
        The file cannot be read, lacks a column or holds no line.
    """
    try:
        text = table.read_text(encoding="utf-8-sig")
        if "\0" in text:
            raise UserError(f"{table}: is no text; give a CSV file")
        reader = DictReader(StringIO(text, newline=""), skipinitialspace=True)
        missing = [column for column in COLUMNS if column not in (reader.fieldnames or [])]
        if missing:
            raise UserError(f"{table}: line 1: no column {', '.join(missing)}; begin with {','.join(COLUMNS)}")
        rows = [(reader.line_num, [row[column] or "" for column in COLUMNS]) for row in reader]
    except (OSError, UnicodeDecodeError, CsvError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"{table}: cannot be read: {why}; give a CSV file in UTF-8") from error
    if not rows:
        raise UserError(f"{table}: holds no lines; add lines like a.jpg,b.jpg,c.png")
    return rows


def read_jobs(table: Path, folder: Path) -> tuple[list[Job], list[tuple[int, UserError]]]:
    """The jobs of a CSV file, and beside them the lines that cannot be used: number, and what is wrong.

    Errors are those of `read_rows`.
    """
    rows = read_rows(table)
    jobs: list[Job] = []
    problems: list[tuple[int, UserError]] = []
    taken = {os.path.realpath(table.parent / path): "is also an input" for _, row in rows for path in row[:2]}
    for line, (source, target, name) in rows:
        try:
            if not (source and target and name):
                raise UserError("source, target or name is empty; fill it in")
            out = place_inside(folder, name)
            if reason := taken.get(os.path.realpath(out)):
                raise UserError(f"{out}: {reason}; choose another name")
            taken[os.path.realpath(out)] = "is made by an earlier line"
            jobs.append(Job(line, table.parent / source, table.parent / target, out))
        except UserError as error:
            problems.append((line, error))
    return jobs, problems


def place_inside(folder: Path, name: str) -> Path:
    """Where a picture of that name goes; a name without suffix gets .png.

    Raises UserError if the name leads out of the folder, or has a suffix that is not written.
    """
    path = Path(name)
    inside = path.name and not path.is_absolute() and ".." not in path.parts
    # Resolved, because the folder may hold a link that leads elsewhere.
    if not inside or not Path(os.path.realpath(folder / path)).is_relative_to(os.path.realpath(folder)):
        raise UserError(f"{name!r}: this name does not stay inside the output folder; write a name like c.png")
    path = path if path.suffix else path.with_suffix(".png")
    writable_format(path)
    return folder / path


def swap_pairs(converter: Converter, csv: Path, folder: Path, face: str = "largest") -> int:
    """Swap many pictures; one that fails does not stop the rest.

    Parameters
    ----------
    converter:
        Does the work.
    csv:
        A CSV file with the columns `source`, `target` (paths, from the folder of the CSV file) and `name`, what the
        result is called inside `folder`; without a suffix it is a .png.
    folder:
        Where results go; it is made.
    face:
        Which faces of each target (see `Converter`).

    Returns
    -------
    How many lines failed. What is wrong with each is printed on standard error, at the end.

    Raises
    ------
    UserError
        The CSV file as a whole cannot be used, or `face` says no face.
    """
    check_face(face)
    jobs, problems = read_jobs(csv, folder)
    # In order of their sources, so that remembering one is enough to read and embed each once.
    jobs.sort(key=lambda job: job.source)
    read_source = lru_cache(maxsize=1)(converter.read_source)
    with progress("swapping", len(jobs), "pictures") as ticker:
        for job in jobs:
            try:
                _make_folder(job.out.parent)
                converter.swap_file(read_source(job.source), job.target, job.out, face)
            except UserError as error:
                problems.append((job.line, error))
            ticker.advance()
    for line, problem in sorted(problems, key=lambda each: each[0]):
        click.echo(f"{csv}: line {line}: {problem}", err=True)
    return len(problems)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be made: {error.strerror or error}; choose another folder") from error
