"""Estimate 68 landmarks from the detector's five, for face masks without dlib."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fsframework.core.components import ComponentOptions, Estimator
from fsframework.core.types import FaceBatch
from fsframework.faces.align import TEMPLATE

FILE = Path(__file__).with_name("five_point.npz")


class FivePointLandmarks(Estimator):
    """Estimator of 68 landmarks in crop pixels by linear regression from the detector's five; the image is not used.

    `fsf_detectors.learn_five_point` learned it from dlib's landmarks on LFW's training people. Outline and brows follow
    the head's pose: the hull has an intersection over union of 0.91 with that of dlib's landmarks (95 %: 0.86 or more).
    Expressions are not estimated beyond the corners of the mouth. Landmarks are NaN where the five are unknown.
    """

    name = "five-point-landmarks"
    quantity = "landmarks68"
    mean: Tensor  # (68, 2) in units of the crop's side
    slopes: Tensor  # (10, 136)

    def __init__(self, options: ComponentOptions) -> None:
        super().__init__(options)
        self.register_buffer("mean", torch.zeros(68, 2))
        self.register_buffer("slopes", torch.zeros(10, 136))

    def load(self) -> None:
        """Load the regression from the package."""
        with np.load(FILE, allow_pickle=False) as file:
            self.mean.copy_(torch.from_numpy(file["mean"]))
            self.slopes.copy_(torch.from_numpy(file["slopes"]))

    def forward(self, faces: FaceBatch) -> Tensor:
        """Return landmarks (B, 68, 2) in crop pixels."""
        size = faces.image.shape[-1]
        template = torch.from_numpy(TEMPLATE).to(self.mean)
        deviations = (faces.landmarks.to(self.mean) + 0.5) / size - template  # (B, 5, 2)
        return (self.mean + (deviations.flatten(1) @ self.slopes).unflatten(1, (68, 2))) * size - 0.5
