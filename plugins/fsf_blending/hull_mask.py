"""The region of a face as the hull of its landmarks."""

import cv2
import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from fsframework.core.bases import LandmarkEstimator
from fsframework.core.types import FaceBatch

BROWS = slice(17, 27)  # of the 68 landmarks
CHIN, BRIDGE = 8, 27


class HullMask(LandmarkEstimator):
    """The convex hull of 68 landmarks with some forehead above the brows, (B, 1, S, S) in [0, 1].

    The landmarks end at the brows. The hull reaches above them by `forehead` times the distance from the nose's
    bridge to the chin, along that line.
    """

    name = "hull-mask"
    quantity = "mask"

    class Options(LandmarkEstimator.Options):
        forehead: float = Field(0.3, ge=0, le=1, description="Height of forehead above the brows.")
        shrink: float = Field(
            0.0, ge=0, le=0.2, description="Width of the border that is cut off, in units of the crop's side."
        )
        soft: float = Field(
            0.03, ge=0, le=0.2, description="Standard deviation of the edge's blur, in units of the crop's side."
        )

    options: Options

    def forward(self, faces: FaceBatch) -> Tensor:
        """Masks (B, 1, S, S); NaN where there are no landmarks."""
        masks = np.stack([self.mask(each, faces.image.shape[-1]) for each in self.points(faces)])
        return torch.from_numpy(masks)[:, None].to(faces.image)

    def mask(self, points: np.ndarray, size: int) -> np.ndarray:
        """The mask (size, size) float32 of landmarks (68, 2) in crop pixels."""
        if not np.isfinite(points).all():
            return np.full((size, size), np.nan, dtype=np.float32)
        up = self.options.forehead * (points[BRIDGE] - points[CHIN])
        outline = cv2.convexHull(np.concatenate([points, points[BROWS] + up]).astype(np.float32))
        mask = np.zeros((size, size), dtype=np.float32)
        fine = 4  # bits of a pixel's fraction
        cv2.fillConvexPoly(mask, np.rint(outline * 2**fine).astype(np.int32), 1.0, lineType=cv2.LINE_AA, shift=fine)
        if (border := round(self.options.shrink * size)) > 0:
            kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * border + 1, 2 * border + 1))
            mask = np.asarray(cv2.erode(mask, kernel), dtype=np.float32)
        if self.options.soft > 0:
            mask = np.asarray(cv2.GaussianBlur(mask, (0, 0), self.options.soft * size), dtype=np.float32)
        return mask
