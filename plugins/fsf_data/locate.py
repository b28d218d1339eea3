"""Detect the main face of each image and align it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from fsf_data.aligned_cache import Row
from fsf_data.sources import ImageSource, Picture
from fsframework.core.components import Detector
from fsframework.core.errors import UserError
from fsframework.core.types import Face
from fsframework.faces.align import align, transform

BATCH = 32  # maximum frames of equal size per batch of the detector
BATCH_PIXELS = 8_000_000  # maximum pixels per batch
GUESSED = "no face was found; aligned by other pictures' landmarks"


@dataclass(frozen=True, eq=False)
class Located:
    """An image and its main face, or the reason why it has none."""

    picture: Picture
    frame: np.ndarray | None  # (H, W, 3) uint8
    face: Face | None
    reason: str = ""


def fingerprint(source: ImageSource, size: int, detector: Any) -> dict[str, Any]:
    """Return everything that aligned crops depend on, serialisable as JSON; `detector` is None without detection."""
    return {
        "place": source.place,
        "pictures": [(picture.name, picture.size, picture.stamp) for picture in source.pictures],
        "size": size,
        "detector": detector and {"use": detector.name, "options": detector.options.model_dump(mode="json")},
    }


def locate(source: ImageSource, detector: Any) -> Iterator[Located]:
    """Yield the main face of every image, in the source's order.

    Consecutive images of equal size form a batch. An unreadable image is reported in its result.

    Parameters
    ----------
    source:
        Images.
    detector:
        Detector as `fsframework.core.part.Part`; it is built and loaded here.
    """
    network: Detector = detector.build()
    network.load()
    network.eval()
    waiting: list[tuple[Picture, np.ndarray]] = []
    for picture in source.pictures:
        try:
            frame = source.read(picture)
        except UserError as error:
            yield from _detect(network, waiting)
            waiting = []
            yield Located(picture, None, None, str(error))
            continue
        full = len(waiting) == BATCH or frame.shape[0] * frame.shape[1] * (len(waiting) + 1) > BATCH_PIXELS
        if waiting and (full or frame.shape != waiting[0][1].shape):
            yield from _detect(network, waiting)
            waiting = []
        waiting.append((picture, frame))
    yield from _detect(network, waiting)


def _detect(network: Detector, waiting: list[tuple[Picture, np.ndarray]]) -> Iterator[Located]:
    if not waiting:
        return
    with torch.inference_mode():
        detections = network([frame for _, frame in waiting])
    for (picture, frame), faces in zip(waiting, detections, strict=True):
        face = main_face(faces, frame.shape)
        yield Located(picture, frame, face, "" if face else "no face was found")


def main_face(faces: list[Face], shape: tuple[int, ...]) -> Face | None:
    """Return the main face of an image (H, W, ...): the one with the largest side x closeness x score; None if none.

    The side is the shorter side of the box. Closeness falls from 1 at the image's centre to 0 at its corners. In
    collections such as LFW, the person is in the centre, and a truncated face at the edge may be larger.
    """
    middle = np.array([shape[1], shape[0]]) / 2

    def weight(face: Face) -> float:
        left_top, right_bottom = face.box[:2], face.box[2:]
        distance = np.linalg.norm((left_top + right_bottom) / 2 - middle) / np.linalg.norm(middle)
        return float(min(right_bottom - left_top) * max(1 - distance, 0) * face.score)

    return max(faces, key=weight, default=None)


def fill_in(located: list[Located]) -> list[Located]:
    """Return the results, where images without a face get the median landmarks of their person, or else of all."""
    everybody = [item.face.landmarks for item in located if item.face is not None]
    if not everybody:
        return located
    filled = []
    for item in located:
        if item.face is None and item.frame is not None:
            same = [
                other.face.landmarks
                for other in located
                if other.face is not None and other.picture.person == item.picture.person
            ]
            landmarks = np.median(same or everybody, axis=0)
            box = np.concatenate([landmarks.min(axis=0), landmarks.max(axis=0)])
            item = replace(item, face=Face(box=box, landmarks=landmarks, score=0.0), reason=GUESSED)
        filled.append(item)
    return filled


def cut(located: Iterable[Located], size: int) -> Iterator[Row]:
    """Yield the aligned crop (size, size, 3) uint8 of each located face, or the reason for a missing one."""
    for item in located:
        picture = item.picture
        if item.frame is None or item.face is None:
            yield Row(picture.name, picture.person, note=item.reason)
            continue
        try:
            aligned = align(item.frame, item.face, size)
        except ValueError as error:
            yield Row(picture.name, picture.person, note=f"the face cannot be aligned: {error}")
            continue
        landmarks = transform(item.face.landmarks, aligned.matrix)
        yield Row(picture.name, picture.person, aligned.image, landmarks, item.reason)
