"""Measure which share of a face is inside its frame.

Networks see repeated pixels where the frame cuts a face, and detectors of whole faces place landmarks outside of the
frame by guess.
"""

import numpy as np

from fsframework.core.types import Face
from fsframework.faces.align import TEMPLATE, fit_similarity, invert, transform

# The oval mask of `paste.soft_mask`, as far as its weight is a half: centre and radii in units of the crop's side.
CENTRE, RADII = np.array([0.504, 0.60]), 0.875 * np.array([0.33, 0.38])
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
