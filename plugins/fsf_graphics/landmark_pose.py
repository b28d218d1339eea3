"""Head pose from 68 landmarks and a head that deforms: perspective-n-point under a weak-perspective camera."""

import numpy as np
import torch
from torch import Tensor

from fsf_graphics.head_model import fit, shipped
from fsf_graphics.head_pose import AHEAD, angles
from fsframework.core.bases import LandmarkEstimator
from fsframework.core.types import FaceBatch


class LandmarkPose(LandmarkEstimator):
    """Yaw, pitch and roll in degrees from 68 landmarks, by fitting the head model of `fsf_graphics`.

    Shape and expression are fitted beside the pose (twenty modes), so another nose need not be another pitch, as it is
    for `pnp`, which has five landmarks and one head. Rendered heads share their head model with it: its figures on
    them (`known-pose`) say what the landmarks cost, and not what the model does.
    """

    name = "pnp68"
    quantity = "pose_deg"

    def forward(self, faces: FaceBatch) -> Tensor:
        """Poses (B, 3) in degrees, float64 on the images' device; NaN where there are no landmarks."""
        return torch.from_numpy(np.stack([pose(points) for points in self.points(faces)])).to(faces.image.device)


def pose(points: np.ndarray) -> np.ndarray:
    """Yaw, pitch and roll (3,) of landmarks (68, 2); NaN without them."""
    if not np.isfinite(points).all():
        return np.full(3, np.nan)
    return angles(fit(shipped(), points).matrix) + np.array([0, AHEAD, 0])
