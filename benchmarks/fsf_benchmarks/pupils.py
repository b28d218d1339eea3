"""Where the pupils are, by the means of gradients (Timm and Barth, "Accurate Eye Centre Localisation by Means of
Gradients", VISAPP 2011): the point from which most strong edges of the eye point straight away, and which is dark.
"""

import cv2
import numpy as np
import torch
from torch import Tensor

from fsframework.core.bases import LandmarkEstimator
from fsframework.core.types import FaceBatch
from fsframework.media.tensor import to_images

EYES = (slice(36, 42), slice(42, 48))  # of the 68 landmarks: contours that begin at the corner on the viewer's left
FAR = 3  # place in a contour of the other corner
WIDE, TALL = 36, 18  # pixels of the upright patch in which a pupil is looked for: twice as wide as tall
SPAN = 1.2  # its width in units of the eye's


class Pupils(LandmarkEstimator):
    """Both pupils' mean place between the corners of their eyes, (B, 2) in eye widths, right and down; 0 is halfway.

    From 68 landmarks and the picture, without weights of its own. The paper weighs the edges' directions by darkness;
    so do we, on a patch of 36 x 18 pixels that is turned upright.
    """

    name = "pupils"
    quantity = "gaze"

    def forward(self, faces: FaceBatch) -> Tensor:
        """Places (B, 2), float64 on the images' device; NaN where there are no landmarks."""
        pictures = zip(to_images(faces.image), self.points(faces), strict=True)
        rows = [gaze(image, points) for image, points in pictures]
        return torch.from_numpy(np.stack(rows)).to(faces.image.device)


def gaze(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The mean place (2,) of both pupils of a face (S, S, 3) uint8 with landmarks (68, 2); NaN without them."""
    if not np.isfinite(points).all():
        return np.full(2, np.nan)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    corners = [(points[eye][0], points[eye][FAR]) for eye in EYES]
    return np.mean([place(upright(grey, *each)) for each in corners], axis=0)


def upright(grey: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The patch (TALL, WIDE) uint8 around an eye whose corners (2,) lie level in it, SPAN apart from its borders."""
    scale = WIDE / SPAN / max(float(np.linalg.norm(right - left)), 1e-3)
    along = (right - left) * scale * (SPAN / WIDE)  # the unit vector from corner to corner
    turn = scale * np.array([[along[0], along[1]], [-along[1], along[0]]])
    shift = np.array([(WIDE - 1) / 2, (TALL - 1) / 2]) - turn @ ((left + right) / 2)
    matrix = np.column_stack([turn, shift])
    return cv2.warpAffine(grey, matrix, (WIDE, TALL), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


def place(patch: np.ndarray) -> np.ndarray:
    """The pupil's place (2,) in a patch (TALL, WIDE), from its centre, in eye widths.

    Every point's score is the mean of max(0, d . g)^2 over the patch's strong edges, where d is the direction from the
    point to the edge and g the edge's, from dark to light, times the point's darkness.
    """
    soft = cv2.GaussianBlur(patch.astype(np.float64), (0, 0), 1.0)
    down, right = np.gradient(soft)
    size = np.hypot(right, down)
    strong = size > size.mean() + 0.3 * size.std()
    rows, columns = np.mgrid[:TALL, :WIDE]
    if not strong.any():  # a patch of one colour: nothing is known, and the middle is the best guess
        return np.zeros(2)
    edges = np.stack([columns[strong], rows[strong]], axis=1)  # (E, 2)
    ways = np.stack([right[strong], down[strong]], axis=1) / size[strong][:, None]
    points = np.stack([columns.ravel(), rows.ravel()], axis=1)  # (P, 2)
    apart = edges[None] - points[:, None]  # (P, E, 2)
    apart = apart / np.maximum(np.linalg.norm(apart, axis=2, keepdims=True), 1e-9)
    score = (np.maximum((apart * ways).sum(axis=2), 0) ** 2).mean(axis=1) * (255 - soft.ravel())
    best = points[score >= 0.97 * score.max()].mean(axis=0)  # between pixels, where several are as good
    return (best - [(WIDE - 1) / 2, (TALL - 1) / 2]) / (WIDE / SPAN)
