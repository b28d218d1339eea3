"""Measure which share of a face is inside its frame, and leave out faces of which it is small.

Networks see repeated pixels where the frame cuts a face, and detectors place landmarks outside of the frame by guess.
Of 60 faces of LFW, each cut at one of four sides, mtcnn finds 90, 60, 47 and 10 % where 70, 60, 50 and 40 % of the
face is visible. Its landmarks are off by 7, 8, 12 and 34 % of the distance of the eyes in the median, by 10, 11, 19
and 49 % at the 90th percentile. Swaps differ from those of whole faces by 6, 7, 9 and 12 grey levels, and by 1 where
nothing is cut. `MIN_VISIBLE` is the share down to which landmarks are within 15 %. The command is
`python benchmarks/scripts/cut_faces.py data/lfw/val.zip --count 60 --save lfw`.

Where people cross in a video, the landmarks of the half-hidden face are wrong, or missing and interpolated. Its swap
would also cover hair and ears of the person in front. Faces that are evidently hidden are left alone in these frames.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fsframework.core.types import Face
from fsframework.faces.align import TEMPLATE, fit_similarity, invert, transform
from fsframework.faces.track import Track

# The oval mask of `paste.soft_mask`, as far as its weight is a half: centre and radii in units of the crop's side.
CENTRE, RADII = np.array([0.504, 0.60]), 0.875 * np.array([0.33, 0.38])
MIN_VISIBLE = 0.6  # share of a face inside its frame, below which it is left alone
AGAIN = 0.05  # more, from which it is not left alone any more in a later frame of a video
HEAD = 0.2  # of a face's box, by which the head is wider on each side
HIDDEN = 0.25  # share of the box of a face that is not certain, from which a head in front leaves it alone
STEPS = 32  # points per axis by which its area is measured


def _oval() -> np.ndarray:
    """Return evenly spaced points (N, 2) inside the oval, in units of the crop's side."""
    axis = (np.arange(STEPS) + 0.5) / STEPS * 2 - 1
    unit = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    points: np.ndarray = CENTRE + RADII * unit[np.hypot(*unit.T) <= 1]
    return points


OVAL = _oval()


def visible_share(face: Face, size: tuple[int, int]) -> float:
    """Return the share of a face that is inside a frame, from 0 to 1; 0 if its landmarks coincide.

    Parameters
    ----------
    face:
        A face, in pixels of the frame.
    size:
        The frame's width and height, in pixels.
    """
    try:
        points = transform(OVAL, invert(fit_similarity(face.landmarks.astype(np.float64), TEMPLATE)))
    except (ValueError, np.linalg.LinAlgError):
        return 0.0
    return float(((points > -0.5) & (points < np.array(size) - 0.5)).all(axis=1).mean())


def without_cut(faces: Sequence[Face], size: tuple[int, int]) -> tuple[list[Face], list[Face]]:
    """Return the faces of which a frame of a width and a height shows enough, and the others."""
    shares = [visible_share(face, size) for face in faces]
    return (
        [face for face, share in zip(faces, shares, strict=True) if share >= MIN_VISIBLE],
        [face for face, share in zip(faces, shares, strict=True) if share < MIN_VISIBLE],
    )


def cut_note(count: int) -> str:
    """Return that so many faces are left out, as the frame cuts them."""
    what, them = ("1 face is", "it") if count == 1 else (f"{count} faces are", "them")
    return f"{what} left out, as the frame shows less than {100 * MIN_VISIBLE:.0f} % of {them}"


def enough_visible(faces: Sequence[Face], size: tuple[int, int]) -> np.ndarray:
    """Return in which of the consecutive frames (n,) of a video enough of one face is visible, without flicker."""
    shown = np.zeros(len(faces), bool)
    least = MIN_VISIBLE
    for index, face in enumerate(faces):
        shown[index] = visible_share(face, size) >= least
        least = MIN_VISIBLE if shown[index] else MIN_VISIBLE + AGAIN
    return shown


def without_hidden(tracks: Sequence[Track], certain_score: float) -> list[Track]:
    """Return tracks of a video that are not shown in frames in which another one's head hides much of them.

    The face in front has the better score. The one behind is not certain, or interpolated.
    """
    result = []
    for one in tracks:
        shown = np.ones(len(one.boxes), bool) if one.shown is None else one.shown.copy()
        for index in np.flatnonzero(one.scores < certain_score):
            frame = one.start + int(index)
            face = one.face(frame)
            others = [other.face(frame) for other in tracks if other is not one and other.start <= frame < other.stop]
            shown[index] &= not any(other.score > face.score and _hides(other, face) for other in others)
        result.append(replace(one, shown=shown))
    return result


def _hides(front: Face, face: Face) -> bool:
    """Return whether a head may hide much of a face behind it, by their boxes."""
    margin = HEAD * (front.box[2] - front.box[0]) * np.array([1, 0])
    low, high = np.maximum(front.box[:2] - margin, face.box[:2]), np.minimum(front.box[2:] + margin, face.box[2:])
    return bool(np.prod((high - low).clip(min=0)) >= HIDDEN * np.prod(face.box[2:] - face.box[:2]))
