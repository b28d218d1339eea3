"""Find in which interpolated frames of a track the face is still there, by small pictures.

Detectors lose a face for some frames because of motion blur, or because it has left the frame. Thumbnails of a blurred
face still correlate with those beside the gap; those of what is behind it do not.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from fsframework.core.types import Face
from fsframework.faces.track import Track, thumbnail

# Least correlation with the thumbnails beside a gap. Of blurred faces of LFW (blur of 0.6 and error of 0.3 box widths)
# the least has 0.55; of 364 pairs of a face and another picture 3 % have 0.5.
ALIKE = 0.5
STEP, STEPS = 0.1, 2  # shifts of the interpolated face that are tried, in box widths, to each side


def gaps(one: Track) -> list[tuple[int, int]]:
    """Return the runs of interpolated frames of a track: first frame and the one after the last."""
    detected = one.start + np.flatnonzero(one.scores > 0)
    return [(int(a) + 1, int(b)) for a, b in pairwise(detected) if b - a > 1]


def frames_of_gaps(tracks: Sequence[Track]) -> list[int]:
    """Return the frames in gaps of tracks and beside them, in ascending order."""
    return sorted({frame for one in tracks for first, stop in gaps(one) for frame in range(first - 1, stop + 1)})


def without_unseen(tracks: Mapping[int, Track], frames: Iterator[tuple[int, np.ndarray]]) -> dict[int, Track]:
    """Return tracks that leave out interpolated frames in which the face is not seen, by their keys.

    `frames` are numbers and pictures (H, W, 3) uint8 of all `frames_of_gaps`.
    """
    bounds = {key: gaps(one) for key, one in tracks.items()}
    rows: dict[tuple[int, int], np.ndarray] = {}  # thumbnails (n, pixels) by track and frame
    for number, frame in frames:
        for key, one in tracks.items():
            for first, stop in bounds[key]:
                if first <= number < stop:
                    rows[key, number] = _thumbnails(frame, _shifted(one.face(number)))
                elif number in (first - 1, stop):
                    rows[key, number] = _thumbnails(frame, [one.face(number)])
    return {
        key: replace(
            one,
            unseen=frozenset(
                number
                for first, stop in bounds[key]
                for number in range(first, stop)
                if _likeness(rows[key, number], rows[key, first - 1], rows[key, stop]) < ALIKE
            ),
        )
        for key, one in tracks.items()
    }


def _likeness(shown: np.ndarray, *beside: np.ndarray) -> float:
    """Return the mean of the greatest correlations of a frame's thumbnails with each one beside the gap."""
    return float(np.mean([(shown @ each[0]).max() for each in beside]))


def _shifted(face: Face) -> list[Face]:
    """Return the face at the places where it may be."""
    step = STEP * (face.box[2] - face.box[0])
    shifts = [step * np.array([x, y]) for x in range(-STEPS, STEPS + 1) for y in range(-STEPS, STEPS + 1)]
    return [Face(face.box + np.tile(shift, 2), face.landmarks + shift, face.score) for shift in shifts]


def _thumbnails(frame: np.ndarray, faces: Sequence[Face]) -> np.ndarray:
    """Return the thumbnails of faces as rows without mean, of length 1."""
    rows = np.stack([thumbnail(frame, face).reshape(-1) for face in faces]).astype(np.float64)
    rows -= rows.mean(axis=1, keepdims=True)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)
    return rows
