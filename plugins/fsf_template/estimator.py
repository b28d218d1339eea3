"""An estimator of the head pose."""

from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from fsframework import ComponentOptions, Detector, Estimator, FaceBatch, Part, to_images, use


class TemplateEstimator(Estimator):
    """Yaw, pitch and roll from the position of the nose relative to eyes and mouth.

    The tip of the nose protrudes by about half of the eye distance. In an upright head it lies a little above the
    middle between eyes and mouth. The estimate is rough, and shows in which direction a head turns.
    """

    name = "template-estimator"
    quantity = "pose_deg"

    class Options(ComponentOptions):
        detector: Annotated[Part, use("detectors")] = Field(
            default={"use": "mtcnn"}, validate_default=True, description="Finds the five landmarks."
        )

    options: Options

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.detector: Detector = options.detector.build()

    def load(self) -> None:
        """Load the detector."""
        self.detector.load()

    def forward(self, faces: FaceBatch) -> Tensor:
        """Return (B, 3) degrees, NaN without a face. Positive: to the viewer's right, down, clockwise."""
        found = self.detector(list(to_images(faces.image)))
        poses = [pose(best[0].landmarks) if best else np.full(3, np.nan) for best in found]
        return torch.from_numpy(np.stack(poses)).float().to(faces.image.device)


def pose(landmarks: np.ndarray) -> np.ndarray:
    """Return yaw, pitch and roll (3,) in degrees of five landmarks (5, 2)."""
    left, right, nose = landmarks[:3]
    eyes, mouth = (left + right) / 2, landmarks[3:].mean(axis=0)
    across, down = right - left, mouth - eyes
    reach = 0.5 * np.linalg.norm(across)
    sideways = (nose - (eyes + mouth) / 2) @ across / np.linalg.norm(across) / reach
    downwards = ((nose - eyes) @ down / (down @ down) - 0.55) * np.linalg.norm(down) / reach
    angles = np.arcsin(np.clip([sideways, downwards], -1, 1))
    return np.degrees([*angles, np.arctan2(across[1], across[0])])
