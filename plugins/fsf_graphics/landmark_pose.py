"""Head pose from 68 landmarks by a deformable head model under a weak-perspective camera."""

import numpy as np
import torch
from torch import Tensor

from fsf_graphics.head_model import fit, shipped
from fsf_graphics.head_pose import AHEAD, angles
from fsframework.core.bases import LandmarkEstimator
from fsframework.core.types import FaceBatch


class LandmarkPose(LandmarkEstimator):
    """Estimator of yaw, pitch and roll in degrees by fitting the head model of `fsf_graphics` to 68 landmarks.

    Shape and expression are fitted together with the pose (twenty modes). A different nose therefore need not change
    the pitch, in contrast to `pnp`, which has five landmarks and one rigid head. Rendered heads use the same head
    model: errors on them (`known-pose`) measure the landmarks, not the model.
    """

    name = "pnp68"
    quantity = "pose_deg"

    def forward(self, faces: FaceBatch) -> Tensor:
        """Return poses (B, 3) in degrees, float64 on the images' device; NaN for faces without landmarks."""
        return torch.from_numpy(np.stack([pose(points) for points in self.points(faces)])).to(faces.image.device)


def pose(points: np.ndarray) -> np.ndarray:
    """Return yaw, pitch and roll (3,) in degrees of landmarks (68, 2); NaN if any is not finite."""
    if not np.isfinite(points).all():
        return np.full(3, np.nan)
    return angles(fit(shipped(), points).matrix) + np.array([0, AHEAD, 0])
