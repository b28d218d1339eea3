"""Face mask from the convex hull of the landmarks."""

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
    """Mask estimator: the convex hull of 68 landmarks, extended over the forehead.

    The landmarks end at the brows. The hull extends above them by `forehead` times the distance from the bridge of the
    nose to the chin, along that line.
    """

    name = "hull-mask"
    quantity = "mask"

    class Options(LandmarkEstimator.Options):
        forehead: float = Field(
            0.3, ge=0, le=1, description="Height of the forehead above the brows, in units of bridge to chin."
        )
        shrink: float = Field(0.0, ge=0, le=0.2, description="Erosion of the mask, in units of the crop's side.")
        soft: float = Field(
            0.03, ge=0, le=0.2, description="Standard deviation of the mask's blur, in units of the crop's side."
        )

    options: Options

    def forward(self, faces: FaceBatch) -> Tensor:
        """Return masks (B, 1, S, S) in [0, 1]; NaN for faces without landmarks."""
        masks = np.stack([self.mask(each, faces.image.shape[-1]) for each in self.points(faces)])
        return torch.from_numpy(masks)[:, None].to(faces.image)

    def mask(self, points: np.ndarray, size: int) -> np.ndarray:
        """Return the mask (size, size) float32 of landmarks (68, 2) in crop pixels; NaN if any is not finite."""
        if not np.isfinite(points).all():
            return np.full((size, size), np.nan, dtype=np.float32)
        up = self.options.forehead * (points[BRIDGE] - points[CHIN])
        outline = cv2.convexHull(np.concatenate([points, points[BROWS] + up]).astype(np.float32))
        mask = np.zeros((size, size), dtype=np.float32)
        fine = 4  # fractional bits of pixel coordinates
        cv2.fillConvexPoly(mask, np.rint(outline * 2**fine).astype(np.int32), 1.0, lineType=cv2.LINE_AA, shift=fine)
        if (border := round(self.options.shrink * size)) > 0:
            kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * border + 1, 2 * border + 1))
            mask = np.asarray(cv2.erode(mask, kernel), dtype=np.float32)
        if self.options.soft > 0:
            mask = np.asarray(cv2.GaussianBlur(mask, (0, 0), self.options.soft * size), dtype=np.float32)
        return mask
