"""Detect faces in the frames of a video: in some whole frames, and between them only near known faces.

Searching a whole frame at all scales dominates the run time. Only every `EVERY`th frame is searched whole. In the
frames between, the detector searches small windows around the faces of the two nearest such frames. Windows are resized
to one size and form a batch. Where a window contains no face, the whole frame is searched.
"""

from collections.abc import Callable, Iterable, Iterator

import cv2
import numpy as np

from fsframework.core.types import Face

EVERY = 16  # distance of two frames that are searched whole
WINDOW = 160  # side of a resized window, in pixels
AROUND = 2.0  # a window's side, in sides of the face's box
GREY = 127  # of pixels outside of the frame; a replicated edge shifts the landmarks of faces that it cuts
SAME = 0.4  # least intersection over union of two boxes of one face

Detect = Callable[[list[np.ndarray]], list[list[Face]]]


def find_faces(detect: Detect, frames: Iterable[np.ndarray]) -> Iterator[list[Face]]:
    """Yield the faces of each frame (H, W, 3) uint8, best first, in order.

    `detect` maps frames of any sizes to the faces of each, best first.
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
            group, first = [frame], last  # the last frame begins the next group
    if len(group) > 1:
        (last,) = detect([group[-1]])
        yield from _between(detect, group, first, last)
        first = last
    if group:
        yield first


def _between(detect: Detect, group: list[np.ndarray], first: list[Face], last: list[Face]) -> Iterator[list[Face]]:
    """Yield the faces of the first frame and of those before the last, both of which have been searched."""
    inner = group[1:-1]
    windows = _windows(first, last, group[0].shape[:2])
    crops = [_crop_window(frame, window) for frame in inner for window in windows]
    detections = iter(detect(crops) if crops else [])
    results: list[list[Face] | None] = []
    for _ in inner:
        faces: list[Face] = []
        is_missing = False
        for window in windows:
            placed = [_to_frame(face, window) for face in next(detections) if _has_expected_size(face)]
            is_missing |= not placed
            faces += placed
        results.append(None if is_missing else _suppress_overlaps(faces))
    whole = iter(detect([frame for frame, faces in zip(inner, results, strict=True) if faces is None]))
    yield first
    for result in results:
        yield next(whole) if result is None else result


def _windows(first: list[Face], last: list[Face], size: tuple[int, int]) -> list[np.ndarray]:
    """Return squares (left, top, side) that contain each face of two frames and its path between them."""
    windows: list[np.ndarray] = []
    matched: set[int] = set()
    for face in first:
        candidates = [index for index, other in enumerate(last) if index not in matched and _near(face.box, other.box)]
        boxes = [face.box]
        if candidates:
            matched.add(candidates[0])
            boxes.append(last[candidates[0]].box)
        windows.append(_square(boxes))
    windows += [_square([face.box]) for index, face in enumerate(last) if index not in matched]
    return [window for window in windows if window[2] > 0]


def _near(one: np.ndarray, other: np.ndarray) -> bool:
    """Return whether two boxes may contain one moving face.

    Their centres are less than a side apart, and their sides differ by less than a factor of 2.
    """
    sides = [max(box[2] - box[0], box[3] - box[1]) for box in (one, other)]
    distance = np.hypot(*((one[:2] + one[2:]) / 2 - (other[:2] + other[2:]) / 2))
    return bool(distance < max(sides) and max(sides) < 2 * min(sides))


def _square(boxes: list[np.ndarray]) -> np.ndarray:
    """Return the square (left, top, side) around boxes, with a margin, in whole pixels."""
    corners = np.stack(boxes)
    low, high = corners[:, :2].min(axis=0), corners[:, 2:].max(axis=0)
    face = (corners[:, 2:] - corners[:, :2]).max()
    side = (high - low).max() + (AROUND - 1) * face
    return np.rint([*((low + high) / 2 - side / 2), side])


def _crop_window(frame: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Return a window resized to (WINDOW, WINDOW, 3); outside the frame it is grey."""
    left, top, side = (int(value) for value in window)
    height, width = frame.shape[:2]
    inside = frame[max(0, top) : min(height, top + side), max(0, left) : min(width, left + side)]
    if inside.shape[:2] != (side, side):
        sides = (max(0, -top), max(0, top + side - height), max(0, -left), max(0, left + side - width))
        inside = cv2.copyMakeBorder(inside, *sides, cv2.BORDER_CONSTANT, value=(GREY,) * 3)
    interpolation = cv2.INTER_AREA if side > WINDOW else cv2.INTER_LINEAR
    return np.ascontiguousarray(cv2.resize(inside, (WINDOW, WINDOW), interpolation=interpolation))


def _has_expected_size(face: Face) -> bool:
    """Return whether a face in a window is about as large as the one that the window was placed around.

    Faces of other sizes are mostly false positives.
    """
    return bool(0.5 < AROUND / WINDOW * (face.box[2:] - face.box[:2]).max() < 1.5)


def _to_frame(face: Face, window: np.ndarray) -> Face:
    """Return a face in a window in pixels of the frame."""
    left, top, side = window
    scale = side / WINDOW
    corner = np.array([left, top])
    box = face.box * scale + np.tile(corner, 2)
    return Face(box=box, landmarks=(face.landmarks + 0.5) * scale - 0.5 + corner, score=face.score)


def _suppress_overlaps(faces: list[Face]) -> list[Face]:
    """Return faces, best first, without those that overlap a better one."""
    selected: list[Face] = []
    for face in sorted(faces, key=lambda candidate: -candidate.score):
        if all(overlap(face.box, other.box) < SAME for other in selected):
            selected.append(face)
    return selected


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Return the intersection over union of two boxes (left, top, right, bottom)."""
    inner = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    intersection = float(np.prod(inner.clip(min=0)))
    areas = [float(np.prod(box[2:] - box[:2])) for box in (one, other)]
    return intersection / (sum(areas) - intersection) if intersection else 0.0
