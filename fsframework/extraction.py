"""`fsf extract`: faces in pictures and videos -> aligned crops that recipes train on, a folder for each person.

The result is a folder: PERSON/NAME.png for every face, and faces.csv, a line for each crop: where it came from, where
it is there, and how good it is.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import torch
from torch.nn import functional as F

from fsframework.alignment import align, transform
from fsframework.components import Detector, IdentityEncoder
from fsframework.errors import UserError
from fsframework.files import making
from fsframework.images import media_in, read_image, to_tensor, write_image
from fsframework.people import KNOWN
from fsframework.progress import progress
from fsframework.types import AlignedFace, Faces
from fsframework.video import is_video, probe, read

# Mean difference of two small crops, in grey levels, below which they show one picture. Other qualities and sizes of a
# portrait differed by 1.8 and 3.7, different pictures of one person of ORL by 4.9 and more.
COPY = 4.0
TABLE = "faces.csv"
COLUMNS = ("crop", "person", "source", "frame", "score", "sharpness", "box", "landmarks", "matrix")


@dataclass(frozen=True)
class Wanted:
    """Which faces are taken, and how."""

    size: int = 256  # side of the crops, in pixels
    smallest: float = 40.0  # side of the box, in pixels
    score: float = 0.9  # of the detector, 0 to 1
    sharpness: float = 0.0  # see `sharpness`
    every: float = 1.0  # seconds between frames of videos


@dataclass(frozen=True, eq=False)
class Found:
    """A face that is taken."""

    source: Path
    frame: int  # of a video; 0 of a picture
    crop: AlignedFace
    z_id: np.ndarray  # (D,) unit length


def extract(
    inputs: Sequence[Path], out: Path, wanted: Wanted, detector: Detector, encoder: IdentityEncoder, device: Any = "cpu"
) -> tuple[int, int, int]:
    """Write the faces of pictures, folders and videos to a new folder, in one step or not at all.

    Parameters
    ----------
    inputs:
        Files and folders, at any depth.
    out:
        A folder that does not exist, or is empty.
    wanted:
        Which faces are taken.
    detector, encoder:
        Loaded, on the device. The encoder's embeddings say who is who.

    Returns
    -------
    How many faces were written, of how many people, and how many files could not be read, which are named on standard
    error.

    Raises
    ------
    UserError
        An input does not exist, no face was found, or the folder cannot be written.
    """
    files = [file for each in inputs for file in _files(each)]
    if not files:
        raise UserError(f"{inputs[0]}: holds no pictures and no videos; choose another folder")
    problems: list[UserError] = []
    found: list[Found] = []
    seen: list[np.ndarray] = []
    with making(out) as folder:
        with progress("extracting", len(files), "files") as ticker:
            for file in files:
                try:
                    for place, frame in _frames(file, wanted.every):
                        found += _faces(frame, file, place, wanted, seen, detector, encoder, device)
                except UserError as error:
                    problems.append(error)
                ticker.advance(note=f"{len(found)} faces")
        for problem in problems:
            click.echo(problem, err=True)
        if not found:
            raise UserError(f"{inputs[0]}: no face was found in {len(files)} files; try smaller --smallest or --score")
        people = group(np.stack([face.z_id for face in found]))
        _write(folder, found, people)
    return len(found), max(people) + 1, len(problems)


def _files(place: Path) -> list[Path]:
    if not place.exists():
        raise UserError(f"{place}: there is no such file or folder")
    return [place] if place.is_file() else media_in(place)


def _frames(file: Path, every: float) -> Iterator[tuple[int, np.ndarray]]:
    """A picture, or frames of a video so many seconds apart, with their places."""
    if not is_video(file):
        yield 0, read_image(file)
        return
    video = probe(file)
    seconds = [float((time - video.times[0]) * video.base) for time in video.times]
    due = 0.0
    for place, frame in enumerate(read(video)):
        if seconds[place] >= due - 1e-6:
            due = seconds[place] + every
            yield place, frame


def _faces(
    frame: np.ndarray,
    file: Path,
    place: int,
    wanted: Wanted,
    seen: list[np.ndarray],
    detector: Detector,
    encoder: IdentityEncoder,
    device: Any,
) -> list[Found]:
    """The faces of a frame that are taken; `seen` remembers what they look like."""
    with torch.inference_mode():
        faces = detector([frame])[0]
    crops = []
    for face in faces:
        side = float(min(face.box[2] - face.box[0], face.box[3] - face.box[1]))
        if side < wanted.smallest or face.score < wanted.score:
            continue
        crop = align(frame, face, wanted.size)
        look = small(crop.image)
        if sharpness(crop.image) < wanted.sharpness or is_copy(look, seen):
            continue
        seen.append(look)
        crops.append(crop)
    if not crops:
        return []
    image = to_tensor(np.stack([crop.image for crop in crops]))
    points = torch.from_numpy(np.stack([transform(crop.face.landmarks, crop.matrix) for crop in crops])).float()
    with torch.inference_mode():
        z_id = F.normalize(encoder(Faces.of(image, points).to(device)).float(), dim=1).cpu().numpy()
    return [Found(file, place, crop, row) for crop, row in zip(crops, z_id, strict=True)]


def small(image: np.ndarray) -> np.ndarray:
    """What a crop looks like: 16x16 grey levels (256,) int16."""
    grey = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (16, 16), interpolation=cv2.INTER_AREA)
    return grey.reshape(-1).astype(np.int16)


def is_copy(look: np.ndarray, seen: Sequence[np.ndarray]) -> bool:
    """Whether a crop looks like one of others, such as another size or quality of one picture."""
    return bool(seen) and bool((np.abs(np.stack(seen) - look).mean(axis=1) < COPY).any())


def sharpness(image: np.ndarray) -> float:
    """Standard deviation of the Laplacian of a crop's grey levels, at 128 px; blurred faces have less than 5."""
    grey = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (128, 128), interpolation=cv2.INTER_AREA)
    return float(cv2.Laplacian(grey.astype(np.float32), cv2.CV_32F).std())


def group(z_id: np.ndarray) -> list[int]:
    """Who is who: a number for each embedding (N, D) of unit length, 0 for the person with most faces.

    Each goes to the nearest person's mean, or begins a new one; then all are given again to the means that came out.
    Memory and time grow with faces times people.
    """
    means: list[np.ndarray] = []
    for row in z_id:
        likeness = np.array([row @ mean / np.linalg.norm(mean) for mean in means])
        if len(means) and likeness.max() >= KNOWN:
            means[int(likeness.argmax())] = means[int(likeness.argmax())] + row
        else:
            means.append(row)
    centres = np.stack(means) / np.linalg.norm(np.stack(means), axis=1, keepdims=True)
    nearest = (z_id @ centres.T).argmax(axis=1)
    counts = np.bincount(nearest, minlength=len(centres))
    ranks = {int(person): rank for rank, person in enumerate(np.argsort(-counts, kind="stable"))}
    return [ranks[int(person)] for person in nearest]


def _write(folder: Path, found: Sequence[Found], people: Sequence[int]) -> None:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    taken: set[str] = set()
    for face, number in zip(found, people, strict=True):
        person = f"person-{number + 1:04}"
        name = _free(f"{face.source.stem}-{face.frame}", person, taken)
        (folder / person).mkdir(exist_ok=True)
        write_image(folder / person / name, face.crop.image, synthetic=False)
        found_at = face.crop.face
        numbers = [found_at.box, found_at.landmarks.reshape(-1), face.crop.matrix.reshape(-1)]
        words = [" ".join(f"{value:.3f}" for value in row) for row in numbers]
        quality = [f"{found_at.score:.4f}", f"{sharpness(face.crop.image):.2f}"]
        table.writerow([f"{person}/{name}", person, face.source, face.frame, *quality, *words])
    (folder / TABLE).write_text(text.getvalue(), encoding="utf-8")


def _free(stem: str, person: str, taken: set[str]) -> str:
    """A name that no other crop of a person has."""
    name, number = f"{stem}.png", 1
    while f"{person}/{name}" in taken:
        number += 1
        name = f"{stem}-{number}.png"
    taken.add(f"{person}/{name}")
    return name
