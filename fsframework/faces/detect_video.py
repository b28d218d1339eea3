"""Faces in the frames of a video: all of a frame's now and then, and between only where faces were.

A detector searches a whole frame at all sizes, which costs more than everything else. Here it does so on every
`EVERY`th frame. In the frames between, it sees small windows around the faces of the two nearest such frames, all
brought to one size, so that a batch of them is one call. Where a window shows no face, the whole frame is searched.
"""

from collections.abc import Callable, Iterable, Iterator

import cv2
import numpy as np

from fsframework.core.types import Face

EVERY = 16  # frames between two that are searched whole
WINDOW = 160  # side of what the detector sees of a window, in pixels
AROUND = 2.0  # a window's side, in sides of the face's box
SAME = 0.4  # intersection over union from which two boxes show one face

Detect = Callable[[list[np.ndarray]], list[list[Face]]]


def find_faces(detect: Detect, frames: Iterable[np.ndarray]) -> Iterator[list[Face]]:
    """The faces of each frame (H, W, 3) uint8, best first, in order.

    `detect` takes frames of any sizes and gives the faces of each, best first.
    """
    group: list[np.ndarray] = []
    first: list[Face] = []
    for frame in frames:
        group.append(frame)
        if len(group) == 1:
            (first,) = detect(group)
        elif len(group) == EVERY + 1:
            (last,) = detect([frame])
            yield from _between(detect, group, first, last)
            group, first = [frame], last  # which begins the next group
    if len(group) > 1:
        (last,) = detect([group[-1]])
        yield from _between(detect, group, first, last)
        first = last
    if group:
        yield first


def _between(detect: Detect, group: list[np.ndarray], first: list[Face], last: list[Face]) -> Iterator[list[Face]]:
    """The faces of the frames from the first, before the last, both of which have been searched."""
    inner = group[1:-1]
    windows = _windows(first, last, group[0].shape[:2])
    crops = [_cut(frame, window) for frame in inner for window in windows]
    seen = iter(detect(crops) if crops else [])
    found: list[list[Face] | None] = []
    for _ in inner:
        faces: list[Face] = []
        missed = False
        for window in windows:
            here = [_placed(face, window) for face in next(seen) if _fills(face)]
            missed |= not here
            faces += here
        found.append(None if missed else _distinct(faces))
    whole = iter(detect([frame for frame, faces in zip(inner, found, strict=True) if faces is None]))
    yield first
    for known in found:
        yield next(whole) if known is None else known


def _windows(first: list[Face], last: list[Face], size: tuple[int, int]) -> list[np.ndarray]:
    """Squares (left, top, side) that hold each face of two frames all the way between them."""
    places: list[np.ndarray] = []
    taken: set[int] = set()
    for face in first:
        near = [place for place, other in enumerate(last) if place not in taken and _near(face.box, other.box)]
        boxes = [face.box]
        if near:
            taken.add(near[0])
            boxes.append(last[near[0]].box)
        places.append(_square(boxes))
    places += [_square([face.box]) for place, face in enumerate(last) if place not in taken]
    return [place for place in places if place[2] > 0]


def _near(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two boxes may show one face that moves: their middles are less than a side apart."""
    sides = [max(box[2] - box[0], box[3] - box[1]) for box in (one, other)]
    apart = np.hypot(*((one[:2] + one[2:]) / 2 - (other[:2] + other[2:]) / 2))
    return bool(apart < max(sides) and max(sides) < 2 * min(sides))


def _square(boxes: list[np.ndarray]) -> np.ndarray:
    """The square (left, top, side), in whole pixels, around boxes with some room."""
    corners = np.stack(boxes)
    low, high = corners[:, :2].min(axis=0), corners[:, 2:].max(axis=0)
    face = (corners[:, 2:] - corners[:, :2]).max()
    side = (high - low).max() + (AROUND - 1) * face
    return np.rint([*((low + high) / 2 - side / 2), side])


def _cut(frame: np.ndarray, window: np.ndarray) -> np.ndarray:
    """A window as the detector sees it, (WINDOW, WINDOW, 3); what lies outside the frame repeats its edge."""
    left, top, side = (int(value) for value in window)
    height, width = frame.shape[:2]
    inside = frame[max(0, top) : min(height, top + side), max(0, left) : min(width, left + side)]
    if inside.shape[:2] != (side, side):
        sides = (max(0, -top), max(0, top + side - height), max(0, -left), max(0, left + side - width))
        inside = cv2.copyMakeBorder(inside, *sides, cv2.BORDER_REPLICATE)
    way = cv2.INTER_AREA if side > WINDOW else cv2.INTER_LINEAR
    return np.ascontiguousarray(cv2.resize(inside, (WINDOW, WINDOW), interpolation=way))


def _fills(face: Face) -> bool:
    """Whether a face of a window is about as large as the one that it was cut for; others are seldom faces."""
    return bool(0.5 < AROUND / WINDOW * (face.box[2:] - face.box[:2]).max() < 1.5)


def _placed(face: Face, window: np.ndarray) -> Face:
    """A face of a window, in pixels of the frame."""
    left, top, side = window
    scale = side / WINDOW
    corner = np.array([left, top])
    box = face.box * scale + np.tile(corner, 2)
    return Face(box=box, landmarks=(face.landmarks + 0.5) * scale - 0.5 + corner, score=face.score)


def _distinct(faces: list[Face]) -> list[Face]:
    """Faces, best first, without those that a better one's box covers."""
    kept: list[Face] = []
    for face in sorted(faces, key=lambda each: -each.score):
        if all(overlap(face.box, other.box) < SAME for other in kept):
            kept.append(face)
    return kept


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two boxes (left, top, right, bottom)."""
    inner = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    shared = float(np.prod(inner.clip(min=0)))
    areas = [float(np.prod(box[2:] - box[:2])) for box in (one, other)]
    return shared / (sum(areas) - shared) if shared else 0.0
