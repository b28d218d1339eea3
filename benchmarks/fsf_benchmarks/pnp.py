"""Head pose from five landmarks and a generic head: perspective-n-point, OpenCV's SQPnP and Levenberg-Marquardt.

SQPnP: Terzakis and Lourakis, "A consistently fast and globally optimal solution to the perspective-n-point problem",
ECCV 2020.
"""

from typing import Annotated

import cv2
import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from fsframework.core.components import ComponentOptions, Detector, Estimator
from fsframework.core.part import Part, use
from fsframework.core.types import Face, FaceBatch
from fsframework.faces.align import TEMPLATE, template
from fsframework.media.tensor import to_images

SIDE = 256  # pixels that a crop has at least when faces are looked for
FOCAL = 4.0  # of the imagined camera, in units of the crop's side: a head about a metre away
NEAR = 0.15  # mean distance of landmarks from the template, in units of the side, at which a face is another one
EYES = 63.0  # mm between an adult's pupils
DEPTHS = np.array([0.0, 0.0, -30.0, 0.0, 0.0])  # mm behind the pupils: our estimate is that the nose juts out 30 mm


def head() -> np.ndarray:
    """The generic head's landmarks (5, 2 + 1) in mm: right and down as seen, and away from the viewer.

    Width and height are those of the aligned crops' template, with adult eyes, so that an average frontal face has
    pose 0. The depths are a rough estimate of ours.
    """
    flat = (TEMPLATE - TEMPLATE[:2].mean(axis=0)) * EYES / (TEMPLATE[1, 0] - TEMPLATE[0, 0])
    flat[:, 0] = (flat[:, 0] - flat[[1, 0, 2, 4, 3], 0]) / 2  # as wide on the left as on the right
    return np.column_stack([flat, DEPTHS])


def solve(landmarks: np.ndarray, size: float) -> np.ndarray:
    """Yaw, pitch and roll (3,) in degrees of landmarks (5, 2) in a crop with sides of `size` pixels; NaN if none fits.

    Positive is: towards the viewer's right, up, and clockwise as seen. The rotation is roll after yaw after pitch.
    """
    centre = (size - 1) / 2
    camera = np.array([[FOCAL * size, 0, centre], [0, FOCAL * size, centre], [0, 0, 1]])
    points = np.ascontiguousarray(landmarks, dtype=np.float64)
    found, turn, shift = cv2.solvePnP(head(), points, camera, None, flags=cv2.SOLVEPNP_SQPNP)
    if not found:
        return np.full(3, np.nan)
    turn, _ = cv2.solvePnPRefineLM(head(), points, camera, None, turn, shift)
    matrix = cv2.Rodrigues(turn)[0]
    yaw = -np.arcsin(np.clip(-matrix[2, 0], -1, 1))
    pitch = -np.arctan2(matrix[2, 1], matrix[2, 2])
    roll = np.arctan2(matrix[1, 0], matrix[0, 0])
    return np.degrees([yaw, pitch, roll])


class PnP(Estimator):
    """Yaw, pitch and roll in degrees from five detected landmarks and a generic head; needs no weights of its own.

    Crops are enlarged before faces are looked for. Everybody is taken to have the same head, so another nose or mouth
    reads as another pitch. Measured with mtcnn on 100 ORL faces at 64 px: an image and its mirror, turned back, are
    4.1 degrees apart (L2 of yaw, pitch, roll; at 128 px 4.2), moved by a pixel 2.4, with noise of 8 grey levels 2.5;
    two pictures of a person 13.5, of different people 20. An error of 1 px in each landmark costs 5.6, 5.7 and 2.1.
    """

    name = "pnp"
    quantity = "pose_deg"

    class Options(ComponentOptions):
        detector: Annotated[Part, use("detectors")] = Field(
            default={"use": "mtcnn", "min_face": 60},  # half of what a head in an enlarged crop measures
            validate_default=True,
            description="Finds the five landmarks.",
        )

    options: Options

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.detector: Detector = options.detector.build()

    def load(self) -> None:
        """Read the detector's weights."""
        self.detector.load()

    def landmarks(self, images: np.ndarray) -> np.ndarray:
        """Landmarks (B, 5, 2) in pixels of the crops (B, S, S, 3) uint8; NaN where no face lies near the template."""
        size = images.shape[1]
        factor = -(-SIDE // size)
        frames = [enlarged(image, factor) for image in images]
        goal = template(size)
        found = [nearest([_reduced(face, factor) for face in faces], goal, size) for faces in self.detector(frames)]
        return np.stack(found)

    def forward(self, faces: FaceBatch) -> Tensor:
        """Poses (B, 3) in degrees, float64 on the images' device; NaN where no face was found."""
        size = faces.image.shape[-1]
        points = self.landmarks(to_images(faces.image))
        poses = [solve(five, size) if np.isfinite(five).all() else np.full(3, np.nan) for five in points]
        return torch.from_numpy(np.stack(poses)).to(faces.image.device)


def enlarged(image: np.ndarray, factor: int) -> np.ndarray:
    """An image (S, S, 3) as many times larger."""
    if factor == 1:
        return image
    return cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)


def _reduced(face: Face, factor: int) -> np.ndarray:
    """A face's landmarks (5, 2) in pixels of the image before it was enlarged."""
    return (face.landmarks + 0.5) / factor - 0.5


def nearest(found: list[np.ndarray], goal: np.ndarray, size: int) -> np.ndarray:
    """Of landmarks (5, 2) each, those nearest the goal; NaN if none is near."""
    distances = [np.linalg.norm(points - goal, axis=1).mean() / size for points in found]
    if not distances or min(distances) > NEAR:
        return np.full((5, 2), np.nan)
    return found[int(np.argmin(distances))]
