"""Find faces at any angle with a detector of upright faces.

Frames are searched upright first. A face is doubtful if its score is below the detector's `certain_score`, its eyes are
not level, or its landmarks are no face's. Detectors of upright faces often place a small one across a face that lies or
is upside down, so a doubtful face is searched again in turned copies of its surroundings. Where that fails, or nothing
was found, the whole frame is turned. In a copy in which its eyes are level, a face must be where it was found. Dark and
pale faces are doubtful, too, so the contrast of copies of their surroundings is raised.

`search` is the same of a frame whose upright faces are detected already, for videos: there turned faces of an earlier
frame are searched first, and turning the whole frame is optional.
"""

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import cv2
import numpy as np

from fsframework.core.components import Detector
from fsframework.core.types import Face
from fsframework.faces.align import TEMPLATE, _resample, fit_similarity, invert, transform
from fsframework.faces.select import area

GREY = 127  # of pixels outside of the frame; a replicated edge shifts the landmarks of faces that it cuts
MAX_ROLL = 12.0  # degrees between the line of the eyes and the horizontal, above which a face is doubtful
MAX_MISFIT = 0.25  # of landmarks from the template, in eye distances; one in a hundred upright faces has 0.2
MAX_SHIFT = 0.15  # mean distance, in eye distances, of the landmarks in two copies that agree
KEPT_SHIFT = 0.25  # the same of a nearly upright detection and its level copy; an eighth of LFW's have more than 0.1
# The lower of the scores of a nearly upright detection in the frame and in its level copy, from which it is kept ...
SCORE_NEAR = 0.98  # where no turned copy of its surroundings has a better score
SCORE_FRAME = 0.95  # where no turned copy of the frame has a face there, either
SCORE_RAISED = 0.9  # the least score in the level copy alone, where its contrast is raised
TURNED_SCORE = 0.98  # least score of a turned face in its level copy
LEVEL = 5.0  # degrees by which a face in its level copy may be turned
COPIES = 4  # at most, until a face is level
AROUND = 2.5  # side of a copy of a face's surroundings, in sides of the face's box
# Grey levels between the darkest and the brightest 2 % of a face's middle, below which they are stretched to RAISED.
CONTRAST = 100.0
RAISED = 20.0, 235.0
LEAST_CONTRAST = 16.0  # grey levels; less is noise
FACE = 51  # side of the face's box in such a copy, in pixels; O-Net takes 48
QUARTERS = (90, 180, 270)  # degrees
TURNS = (QUARTERS, (45, 135, 225, 315))  # of whole frames; the second where the first find nothing


class Search(NamedTuple):
    """The faces of a frame."""

    faces: list[Face]  # best first
    rejected: list[Face]  # detections that turned copies do not confirm
    is_turned: bool = False  # whether turned copies of the whole frame were searched


class _Copy(NamedTuple):
    """A turned copy of a frame or of a part of it."""

    image: np.ndarray  # (h, w, 3) uint8
    matrix: np.ndarray  # (2, 3), a similarity from frame pixels to pixels of the copy
    is_raised: bool = False  # whether its contrast is


def find_at_any_angle(detector: Detector, frame: np.ndarray) -> Search:
    """Return the faces of a frame (H, W, 3) uint8, at any angle.

    Faces that are certain, or confirmed and nearly upright, are returned as the detector found them.
    """
    return search(detector, frame, detector([frame])[0])


def search(
    detector: Detector,
    frame: np.ndarray,
    detected: list[Face],
    known: Sequence[Face] = (),
    turn: bool = True,
    side: int | None = None,
) -> Search:
    """Return the faces of a frame (H, W, 3) uint8, at any angle.

    Parameters
    ----------
    detector:
        The detector.
    frame:
        The frame.
    detected:
        The faces that the detector finds in it, best first.
    known:
        Faces of an earlier frame. Turned ones may be about the same place at about the same angle. Upright ones that
        are not detected may have turned there.
    turn:
        Whether the whole frame may be turned.
    side:
        Longer side, in pixels, to which turned copies of the whole frame are shrunk; None: they keep its size.
    """
    faces = _known(detector, frame, detected, known)
    detected = elsewhere(detected, faces)
    doubtful = [face for face in detected if is_doubtful(face, detector.certain_score)]
    certain = [face for face in detected if all(face is not other for other in doubtful)]
    if (faces or certain) and not doubtful:
        return Search(sorted(faces + certain, key=lambda face: -face.score) if faces else certain, [])
    faces += certain
    weak, unconfirmed = [], []
    for face in doubtful:
        confirmed, score = _confirmed(detector, frame, face)
        if confirmed is None:
            unconfirmed.append(face)
        elif score < SCORE_NEAR:
            weak.append(face)
        else:
            faces += elsewhere([confirmed], faces)
    # Turned copies of the frame take several times as long as the frame, so they wait for the largest face.
    turn = turn and max(map(area, weak + unconfirmed), default=0) >= max(map(area, faces), default=0)
    if turn:
        turned = _in_turned_frames(detector, frame, side)
        faces = turned + elsewhere(faces, turned)
    faces += elsewhere(weak, faces)
    return Search(sorted(faces, key=lambda face: -face.score), elsewhere(unconfirmed, faces), turn)


def _known(detector: Detector, frame: np.ndarray, detected: list[Face], known: Sequence[Face]) -> list[Face]:
    """Return the turned faces of a frame that are where known faces are, which `search` describes."""
    turned = [face for face in known if abs(roll(face)) > MAX_ROLL]
    views = [_levelled(detector, frame, face) for face in turned]
    faces = [view for view in views if view is not None]
    lost = elsewhere([face for face in known if abs(roll(face)) <= MAX_ROLL], [*detected, *faces])
    views = [_confirmed(detector, frame, face)[0] for face in lost]
    return _distinct(faces + [view for view in views if view is not None and abs(roll(view)) > MAX_ROLL])


def is_doubtful(face: Face, certain_score: float) -> bool:
    """Return whether a detection needs confirmation, as the right face and upright."""
    return face.score < certain_score or abs(roll(face)) > MAX_ROLL or misfit(face) > MAX_MISFIT


def roll(face: Face) -> float:
    """Return a face's rotation in the image plane, in degrees from -180 to 180, clockwise."""
    matrix = _to_template(face)
    return float(np.degrees(np.arctan2(-matrix[1, 0], matrix[0, 0])))


def misfit(face: Face) -> float:
    """Return the root mean square distance of landmarks from the fitted template, in the template's eye distances."""
    rest = transform(face.landmarks.astype(np.float64), _to_template(face)) - TEMPLATE
    return float(np.sqrt((rest**2).sum(axis=1).mean()) / (TEMPLATE[1, 0] - TEMPLATE[0, 0]))


def shift(one: Face, other: Face) -> float:
    """Return the mean distance of two faces' landmarks, in eye distances of the second."""
    eyes = np.linalg.norm(other.landmarks[0] - other.landmarks[1])
    return float(np.linalg.norm(one.landmarks - other.landmarks, axis=1).mean() / eyes)


def _to_template(face: Face) -> np.ndarray:
    """Return the similarity (2, 3) from a face's landmarks to the template, or the identity if they coincide."""
    try:
        return fit_similarity(face.landmarks.astype(np.float64), TEMPLATE)
    except ValueError:
        return np.eye(2, 3)


def _confirmed(detector: Detector, frame: np.ndarray, face: Face) -> tuple[Face | None, float]:
    """Return the face at the place of a detection, at any angle, or None if copies of it disagree, and its score.

    A detection that is confirmed and nearly upright is returned itself.
    """
    angle = roll(face)
    copies = [_window(frame, face, angle + quarter) for quarter in (0, *QUARTERS)]
    level, *others = (_near(face, views) for views in _detect(detector, copies))
    views = [view for view in (level, *others) if view is not None]
    if not views:
        return None, 0.0
    best = max(views, key=lambda view: view.score)
    is_raised = copies[0].is_raised
    score = best.score if is_raised else min(face.score, best.score)
    least = SCORE_RAISED if is_raised else SCORE_FRAME
    if best is level and abs(angle) <= MAX_ROLL and shift(face, level) <= KEPT_SHIFT and score >= least:
        return face, score
    levelled = _levelled(detector, frame, best)
    return levelled, 0.0 if levelled is None else levelled.score


def _levelled(detector: Detector, frame: np.ndarray, face: Face) -> Face | None:
    """Return a face as detected in a copy in which its eyes are level, or None if copies disagree."""
    for _ in range(COPIES):
        angle = roll(face)
        view = _near(face, _detect(detector, [_window(frame, face, angle)])[0])
        if view is None:
            return None
        agrees = shift(face, view) <= MAX_SHIFT and abs(difference(roll(view), angle)) <= LEVEL
        if agrees and view.score >= TURNED_SCORE and misfit(view) <= 2 * MAX_MISFIT:
            return view
        face = view
    return None


def _in_turned_frames(detector: Detector, frame: np.ndarray, side: int | None = None) -> list[Face]:
    """Return the confirmed faces of turned copies of a whole frame, shrunk to a longer side of `side` pixels."""
    scale = 1.0 if side is None else min(1.0, side / max(frame.shape[:2]))
    small = frame if scale == 1 else cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    for angles in TURNS:
        found = [*chain.from_iterable(_detect(detector, [_turned(small, angle) for angle in angles]))]
        views = found if scale == 1 else [_enlarged(face, 1 / scale) for face in found]
        levelled = [_levelled(detector, frame, view) for view in _distinct(views)]
        if faces := _distinct([face for face in levelled if face is not None]):
            return faces
    return []


def _enlarged(face: Face, scale: float) -> Face:
    """Return a face of a shrunk frame in pixels of the frame."""
    return Face((face.box + 0.5) * scale - 0.5, (face.landmarks + 0.5) * scale - 0.5, face.score)


def _window(frame: np.ndarray, face: Face, angle: float) -> _Copy:
    """Return a copy of a face's surroundings, turned counter-clockwise by an angle in degrees.

    Low contrast of the face is raised.
    """
    centre = (face.box[:2] + face.box[2:]) / 2
    linear = FACE / max(float((face.box[2:] - face.box[:2]).max()), 1.0) * rotation(angle)
    size = round(FACE * AROUND)
    matrix = np.column_stack([linear, (size - 1) / 2 - linear @ centre])
    low, high = _levels(frame, face)
    if high - low >= CONTRAST:
        return _Copy(_resample(frame, matrix, (size, size), cv2.BORDER_CONSTANT, GREY), matrix)
    copy = _resample(frame, matrix, (size, size), cv2.BORDER_CONSTANT, round((low + high) / 2))
    table = np.interp(np.arange(256), [low, max(high, low + LEAST_CONTRAST)], RAISED)
    return _Copy(cv2.LUT(copy, np.rint(table).astype(np.uint8)), matrix, True)


def _levels(frame: np.ndarray, face: Face) -> tuple[float, float]:
    """Return the levels below and above which 2 % of a face's middle are; 0 and 255 outside of the frame."""
    quarter = (face.box[2:] - face.box[:2]) / 4  # its edge has background, which may be much brighter
    (left, top), (right, bottom) = np.rint([face.box[:2] + quarter, face.box[2:] - quarter]).astype(int).clip(0)
    inside = frame[top:bottom, left:right]
    low, high = np.percentile(inside, (2, 98)).tolist() if inside.size else (0.0, 255.0)
    return low, high


def _turned(frame: np.ndarray, angle: int) -> _Copy:
    """Return a copy of a whole frame, turned counter-clockwise by an angle in degrees; outside of it is grey."""
    height, width = frame.shape[:2]
    linear = np.rint(rotation(angle)) if angle % 90 == 0 else rotation(angle)
    corners = np.array([[0, 0], [width - 1, 0], [0, height - 1], [width - 1, height - 1]]) @ linear.T
    low, high = corners.min(axis=0), corners.max(axis=0)
    matrix = np.column_stack([linear, -low])
    if angle % 90 == 0:
        return _Copy(np.ascontiguousarray(np.rot90(frame, angle // 90)), matrix)
    wide, tall = np.ceil(high - low + 1).astype(int)
    return _Copy(_resample(frame, matrix, (int(wide), int(tall)), cv2.BORDER_CONSTANT, GREY), matrix)


def rotation(angle: float) -> np.ndarray:
    """Return the rotation (2, 2) of points counter-clockwise on the screen by an angle in degrees."""
    turn = np.radians(angle)
    return np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])


def _detect(detector: Detector, copies: Sequence[_Copy]) -> list[list[Face]]:
    """Return the faces of each copy, best first, in pixels of the frame."""
    found = detector([copy.image for copy in copies])
    return [[to_frame(face, copy.matrix) for face in faces] for copy, faces in zip(copies, found, strict=True)]


def to_frame(face: Face, matrix: np.ndarray) -> Face:
    """Return a face of a copy in pixels of its frame, with an upright box of the same size around the same centre."""
    back = invert(matrix)
    scale = np.hypot(*back[:, 0])
    box = face.box.astype(np.float64)
    centre = transform(((box[:2] + box[2:]) / 2)[None], back)[0]
    reach = (box[2:] - box[:2]) / 2 * scale
    if abs(back[0, 1]) > abs(back[0, 0]):  # lying: height and width change places
        reach = reach[::-1]
    landmarks = transform(face.landmarks.astype(np.float64), back)
    return Face(box=np.concatenate([centre - reach, centre + reach]), landmarks=landmarks, score=face.score)


def _near(face: Face, views: Sequence[Face]) -> Face | None:
    """Return the best of the faces that are about where a face is, or None."""
    return next((view for view in views if _same_place(face, view)), None)


def _same_place(one: Face, other: Face) -> bool:
    """Return whether the centre of one of two boxes is inside the middle half of the other."""
    distance = np.abs(one.box[:2] + one.box[2:] - other.box[:2] - other.box[2:]) / 2
    reach = np.maximum(one.box[2:] - one.box[:2], other.box[2:] - other.box[:2]) / 2
    return bool((distance < reach).all())


def elsewhere(faces: list[Face], others: list[Face]) -> list[Face]:
    """Return the faces that are at the place of none of the others."""
    return [face for face in faces if not any(_same_place(face, other) for other in others)]


def _distinct(faces: list[Face]) -> list[Face]:
    """Return faces, best first, without those at the place of a better one."""
    distinct: list[Face] = []
    for face in sorted(faces, key=lambda candidate: -candidate.score):
        if not any(_same_place(face, other) for other in distinct):
            distinct.append(face)
    return distinct


def difference(one: float, other: float) -> float:
    """Return the difference of two angles in degrees, from -180 to 180."""
    return (one - other + 180) % 360 - 180
