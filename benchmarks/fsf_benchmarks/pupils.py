"""Pupil localisation by image gradients.

Timm and Barth, "Accurate Eye Centre Localisation by Means of Gradients", VISAPP 2011. The pupil's centre is a dark
point from which most strong gradients of the eye point radially outwards.
"""

import cv2
import numpy as np
import torch
from torch import Tensor

from fsframework.core.bases import LandmarkEstimator
from fsframework.core.types import FaceBatch
from fsframework.media.tensor import to_images

EYES = (slice(36, 42), slice(42, 48))  # contours of the 68 landmarks, starting at the corner on the viewer's left
FAR = 3  # index of the other corner in a contour
WIDE, TALL = 36, 18  # size of the upright eye patch in pixels
SPAN = 1.2  # width of the patch in eye widths


class Pupils(LandmarkEstimator):
    """Estimator of gaze as the mean position of both pupils between the eye corners, without weights.

    Positions (B, 2) are in eye widths, right and down; 0 is halfway. Inputs are 68 landmarks and the image. As in the
    paper, scores are weighted by darkness, here on an upright patch of 36 x 18 pixels.
    """

    name = "pupils"
    quantity = "gaze"

    def forward(self, faces: FaceBatch) -> Tensor:
        """Return pupil positions (B, 2), float64 on the images' device; NaN for images without landmarks."""
        pictures = zip(to_images(faces.image), self.points(faces), strict=True)
        rows = [gaze(image, points) for image, points in pictures]
        return torch.from_numpy(np.stack(rows)).to(faces.image.device)


def gaze(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return the mean pupil position (2,) of a face (S, S, 3) uint8 with landmarks (68, 2); NaN if not finite."""
    if not np.isfinite(points).all():
        return np.full(2, np.nan)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    corners = [(points[eye][0], points[eye][FAR]) for eye in EYES]
    return np.mean([place(upright(grey, *each)) for each in corners], axis=0)


def upright(grey: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return an upright patch (TALL, WIDE) uint8 around an eye with corners `left` and `right` (2,)."""
    scale = WIDE / SPAN / max(float(np.linalg.norm(right - left)), 1e-3)
    along = (right - left) * scale * (SPAN / WIDE)  # the unit vector from corner to corner
    turn = scale * np.array([[along[0], along[1]], [-along[1], along[0]]])
    shift = np.array([(WIDE - 1) / 2, (TALL - 1) / 2]) - turn @ ((left + right) / 2)
    matrix = np.column_stack([turn, shift])
    return cv2.warpAffine(grey, matrix, (WIDE, TALL), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


def place(patch: np.ndarray) -> np.ndarray:
    """Return the pupil's position (2,) in a patch (TALL, WIDE), relative to its centre, in eye widths.

    A point's score is its darkness times the mean of max(0, d . g)^2 over the strong edges. d is the unit vector from
    the point to the edge, and g the edge's unit gradient, from dark to light.
    """
    soft = cv2.GaussianBlur(patch.astype(np.float64), (0, 0), 1.0)
    down, right = np.gradient(soft)
    size = np.hypot(right, down)
    strong = size > size.mean() + 0.3 * size.std()
    rows, columns = np.mgrid[:TALL, :WIDE]
    if not strong.any():  # a uniform patch: the centre is the best guess
        return np.zeros(2)
    edges = np.stack([columns[strong], rows[strong]], axis=1)  # (E, 2)
    gradients = np.stack([right[strong], down[strong]], axis=1) / size[strong][:, None]
    points = np.stack([columns.ravel(), rows.ravel()], axis=1)  # (P, 2)
    directions = edges[None] - points[:, None]  # (P, E, 2)
    directions = directions / np.maximum(np.linalg.norm(directions, axis=2, keepdims=True), 1e-9)
    score = (np.maximum((directions * gradients).sum(axis=2), 0) ** 2).mean(axis=1) * (255 - soft.ravel())
    best = points[score >= 0.97 * score.max()].mean(axis=0)  # subpixel position from near-maximal points
    return (best - [(WIDE - 1) / 2, (TALL - 1) / 2]) / (WIDE / SPAN)
