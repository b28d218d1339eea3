"""Detect faces in the frames of a video: in some whole frames, and between them only near known faces.

Searching a whole frame at all scales dominates the run time. Only every `EVERY`th frame is searched whole. In the
frames between, the detector searches small windows around the faces of the two nearest such frames. Windows are resized
to one size and form a batch. Where a window contains no face, the whole frame is searched.

Frames that are searched whole show faces at any angle (see `fsframework.faces.turned`). Windows around turned faces are
turned by their angles. Where turned copies of a whole frame show nothing, the next frames are not turned: up to `PAUSE`
of them, or until a new shot. Near a doubtful face that turned copies do not confirm, only certain faces are found.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import cv2
import numpy as np

from fsframework.core.components import Detector
from fsframework.core.types import Face
from fsframework.faces.align import _resample
from fsframework.faces.turned import (
    GREY,
    MAX_ROLL,
    SCORE_NEAR,
    Search,
    difference,
    elsewhere,
    is_doubtful,
    roll,
    rotation,
    search,
    to_frame,
)

EVERY = 16  # distance of two frames that are searched whole
WINDOW = 160  # side of a resized window, in pixels
AROUND = 2.0  # a window's side, in sides of the face's box
ASIDE = 0.75  # of a face's side, by which it may be beside a straight path between two whole frames
SAME = 0.4  # least intersection over union of two boxes of one face
ANGLES = 30.0  # degrees; a face that turns further between two whole frames has a window at each angle
TURNED_SIDE = 400  # longer side of turned copies of whole frames, in pixels
PAUSE = 3  # frames that are searched whole, but not turned, after turned copies showed nothing repeatedly


class Scan(NamedTuple):
    """The faces of a frame that is searched whole, and how the search goes on."""

    faces: list[Face]  # best first
    rejected: list[Face]  # doubtful, and not confirmed
    wait: int = 0  # next frames searched whole whose copies are not turned
    pause: int = 0  # the last such number, 0 if turned copies showed a face since


@dataclass
class SearchState:
    """The state between two groups of frames, from which an interrupted search goes on."""

    frame: int = 0  # the last frame that was searched whole; the faces of all before it were yielded
    scan: Scan | None = None  # its result; None before the first
    doubtful: int | None = None  # the first frame with a doubtful face that is left out


class _Window(NamedTuple):
    """A square of the frame, turned about its centre."""

    square: np.ndarray  # (3,) left, top, side, in pixels
    angle: float = 0.0  # degrees, counter-clockwise

    @property
    def matrix(self) -> np.ndarray:
        """Return the similarity (2, 3) from frame pixels to pixels of the resized window."""
        left, top, side = self.square
        linear = WINDOW / side * rotation(self.angle)
        centre = np.array([left, top]) + (side - 1) / 2
        return np.column_stack([linear, (WINDOW - 1) / 2 - linear @ centre])


class _Place(NamedTuple):
    """Place in which a face is expected."""

    windows: list[_Window]  # one, or one for each of two angles; the face is missing if none shows it
    path: tuple[np.ndarray, np.ndarray]  # its boxes (4,) in the first and the last frame, where they are known
    is_doubtful: bool = False  # whether only certain faces count, and nothing is missing
    is_new: bool = False  # whether only one of two whole frames shows the face, so that it may be missing between them


@dataclass
class _VideoSearch:
    detector: Detector
    state: SearchState
    cuts: Sequence[bool] = field(default=())

    def whole(self, frame: np.ndarray, before: Scan | None, is_new: bool) -> Scan:
        """Return the faces of a frame, at any angle; `is_new` in the first frame of a shot that is searched whole."""
        wait, pause = (0, 0) if before is None or is_new else (before.wait, before.pause)
        (detected,) = self.detector([frame])
        known = [] if before is None else before.faces
        result = search(self.detector, frame, detected, known, wait == 0, TURNED_SIDE)
        if not result.is_turned:
            return Scan(result.faces, result.rejected, max(0, wait - 1), pause)
        is_found = any(abs(roll(face)) > MAX_ROLL for face in result.faces)
        pause = 0 if is_found else min(2 * pause + 1, PAUSE)
        return Scan(result.faces, result.rejected, pause, pause)

    def missing(self, frames: list[np.ndarray]) -> Iterator[Search]:
        """Yield the faces of frames in which some are missing; whole frames are not turned."""
        for frame, detected in zip(frames, self.detector(frames) if frames else [], strict=True):
            yield search(self.detector, frame, detected, turn=False)

    def is_new_shot(self) -> bool:
        """Return whether a shot begins in the group of frames after the last one that was searched whole."""
        return any(self.cuts[self.state.frame + 1 : self.state.frame + EVERY + 1])

    def note(self, frame: int, rejected: Sequence[Face]) -> None:
        if rejected and (self.state.doubtful is None or frame < self.state.doubtful):
            self.state.doubtful = frame


def find_faces(
    detector: Detector,
    frames: Iterable[np.ndarray],
    state: SearchState | None = None,
    cuts: Sequence[bool] = (),
) -> Iterator[list[Face]]:
    """Yield the faces of each frame (H, W, 3) uint8, best first, in order.

    Parameters
    ----------
    detector:
        A detector of upright faces.
    frames:
        All frames, or those from `state.frame` on.
    state:
        The state, which is updated before the faces of a frame that is searched whole are yielded.
    cuts:
        Whether each frame of the video begins a new shot, at least as far as frames were taken from `frames`.
    """
    state = SearchState() if state is None else state
    searching = _VideoSearch(detector, state, cuts)
    group: list[np.ndarray] = []
    for frame in frames:
        group.append(frame)
        if len(group) == 1 and state.scan is None:
            state.scan = searching.whole(frame, None, True)
        elif len(group) == EVERY + 1 and state.scan is not None:
            last = searching.whole(frame, state.scan, searching.is_new_shot())
            yield from _between(searching, group, state.scan, last)
            group = [frame]  # the last frame begins the next group
            state.frame, state.scan = state.frame + EVERY, last
    if state.scan is not None and len(group) > 1:
        last = searching.whole(group[-1], state.scan, searching.is_new_shot())
        yield from _between(searching, group, state.scan, last)
        state.frame, state.scan = state.frame + len(group) - 1, last
    if state.scan is not None and group:
        searching.note(state.frame, state.scan.rejected)
        yield state.scan.faces


def _between(searching: _VideoSearch, group: list[np.ndarray], first: Scan, last: Scan) -> Iterator[list[Face]]:
    """Yield the faces of the first frame and of those before the last, both of which have been searched."""
    searching.note(searching.state.frame, first.rejected)
    yield first.faces
    detector = searching.detector
    inner = group[1:-1]
    places = _places(first, last)
    crops = [_crop_window(frame, window) for frame in inner for place in places for window in place.windows]
    detections = iter(detector(crops) if crops else [])
    results: list[tuple[list[Face], bool]] = []
    for offset in range(1, len(inner) + 1):
        faces: list[Face] = []
        is_missing = False
        for place in places:
            placed = [
                _to_frame(face, window)
                for window in place.windows
                for face in next(detections)
                if _has_expected_size(face)
            ]
            if len(place.windows) > 1:  # at the wrong angle, a smaller face is often found inside the right one
                placed = sorted(placed, key=lambda face: -face.score)[:1]
            certain = [face for face in placed if not is_doubtful(face, detector.certain_score)]
            if not place.is_doubtful:
                certain += [
                    face for face in elsewhere(placed, certain) if _is_expected(place, face, offset / (len(group) - 1))
                ]
                is_missing |= not certain
            faces += certain
        results.append((_suppress_overlaps(faces), is_missing))
    whole = searching.missing([frame for frame, (_, missing) in zip(inner, results, strict=True) if missing])
    for offset, (faces, missing) in enumerate(results, 1):
        if not missing:
            yield faces
            continue
        result = next(whole)
        # A whole frame that is not turned does not show what turned windows show.
        turned = [face for face in faces if abs(roll(face)) > MAX_ROLL]
        searching.note(searching.state.frame + offset, elsewhere(result.rejected, turned))
        known = [face for face in result.faces if face.score >= SCORE_NEAR or _is_known(face, first, last)]
        yield turned + elsewhere(known, turned)


def _places(first: Scan, last: Scan) -> list[_Place]:
    """Return where the faces of two frames are expected between them."""
    doubtful = elsewhere([*first.rejected, *elsewhere(last.rejected, first.rejected)], [*first.faces, *last.faces])
    places: list[_Place] = []
    matched: set[int] = set()
    for face in first.faces:
        others = [
            index for index, other in enumerate(last.faces) if index not in matched and _near(face.box, other.box)
        ]
        matched.update(others[:1])
        places.append(_place([face, *(last.faces[index] for index in others[:1])]))
    places += [_place([face]) for index, face in enumerate(last.faces) if index not in matched]
    places += [_place([face])._replace(is_doubtful=True) for face in doubtful]
    return [place for place in places if place.windows[0].square[2] > 0]


def _place(faces: list[Face]) -> _Place:
    """Return where a face is expected between its appearances in one or two frames."""
    square = _square([face.box for face in faces])
    angles = [angle if abs(angle) > MAX_ROLL else 0.0 for angle in map(roll, faces)]
    apart = difference(angles[-1], angles[0])
    if abs(apart) <= ANGLES:
        middle = angles[0] + apart / 2
        angles = [middle if abs(middle) > MAX_ROLL else 0.0]
    windows = [_Window(square, angle) for angle in angles]
    return _Place(windows, (faces[0].box, faces[-1].box), is_new=len(faces) == 1)


def _is_expected(place: _Place, face: Face, time: float) -> bool:
    """Return whether a face is about where a straight path leads at a time, from 0 in the first to 1 in the last frame.

    Windows are larger than faces, and doubtful faces elsewhere in them are mostly none. So are turned ones of low
    scores before a face appears, or after it disappears.
    """
    if place.is_new and abs(roll(face)) > MAX_ROLL and face.score < SCORE_NEAR:
        return False
    one, other = place.path
    box = one + time * (other - one)
    distance = np.hypot(*(box[:2] + box[2:] - face.box[:2] - face.box[2:])) / 2
    return bool(distance < ASIDE * (box[2:] - box[:2]).max())


def _is_known(face: Face, first: Scan, last: Scan) -> bool:
    """Return whether a face may be one of two frames that were searched whole."""
    return any(_near(face.box, other.box) for other in (*first.faces, *last.faces))


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


def _crop_window(frame: np.ndarray, window: _Window) -> np.ndarray:
    """Return a window resized to (WINDOW, WINDOW, 3); outside the frame it is grey."""
    if window.angle:
        return _resample(frame, window.matrix, (WINDOW, WINDOW), cv2.BORDER_CONSTANT, GREY)
    left, top, side = (int(value) for value in window.square)
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


def _to_frame(face: Face, window: _Window) -> Face:
    """Return a face in a window in pixels of the frame."""
    if window.angle:
        return to_frame(face, window.matrix)
    left, top, side = window.square
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
