"""Head pose from five landmarks and a generic head by perspective-n-point: OpenCV's SQPnP and Levenberg-Marquardt.

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

SIDE = 256  # minimum side for detection in pixels; smaller crops are enlarged
FOCAL = 4.0  # focal length of the assumed camera, in units of the crop's side: a head about a metre away
NEAR = 0.15  # maximum mean distance of landmarks from the template, in units of the side; others are another face
EYES = 63.0  # interpupillary distance of an adult in mm
DEPTHS = np.array([0.0, 0.0, -30.0, 0.0, 0.0])  # mm behind the pupils; the nose tip is estimated 30 mm in front


def head() -> np.ndarray:
    """Return the generic head's landmarks (5, 3) in mm: x to the viewer's right, y down, z away.

    Width and height are those of the aligned crops' template, scaled to adult eyes, so that an average frontal face has
    pose 0. The depths are rough estimates.
    """
    flat = (TEMPLATE - TEMPLATE[:2].mean(axis=0)) * EYES / (TEMPLATE[1, 0] - TEMPLATE[0, 0])
    flat[:, 0] = (flat[:, 0] - flat[[1, 0, 2, 4, 3], 0]) / 2  # symmetric
    return np.column_stack([flat, DEPTHS])


def solve(landmarks: np.ndarray, size: float) -> np.ndarray:
    """Return yaw, pitch and roll (3,) in degrees of landmarks (5, 2) in a crop of `size` pixels; NaN without solution.

    Positive is towards the viewer's right, up, and clockwise in the image. The rotation is roll after yaw after pitch.
    """
    centre = (size - 1) / 2
    camera = np.array([[FOCAL * size, 0, centre], [0, FOCAL * size, centre], [0, 0, 1]])
    points = np.ascontiguousarray(landmarks, dtype=np.float64)
    solved, turn, shift = cv2.solvePnP(head(), points, camera, None, flags=cv2.SOLVEPNP_SQPNP)
    if not solved:
        return np.full(3, np.nan)
    turn, _ = cv2.solvePnPRefineLM(head(), points, camera, None, turn, shift)
    matrix = cv2.Rodrigues(turn)[0]
    yaw = -np.arcsin(np.clip(-matrix[2, 0], -1, 1))
    pitch = -np.arctan2(matrix[2, 1], matrix[2, 2])
    roll = np.arctan2(matrix[1, 0], matrix[0, 0])
    return np.degrees([yaw, pitch, roll])


class PnP(Estimator):
    """Estimator of yaw, pitch and roll in degrees from five detected landmarks and a generic head, without weights.

    Small crops are enlarged for detection. The head model is the same for everybody, so the shape of nose and mouth
    biases the pitch. Noise with mtcnn on 100 ORL faces at 64 px, as L2 distance of (yaw, pitch, roll): 4.1 degrees for
    an image and its mirror image (at 128 px 4.2), 2.4 for a shift of one pixel, 2.5 for noise of 8 grey levels. Two
    images of a person differ by 13.5, of different people by 20. An error of 1 px in each landmark changes yaw, pitch
    and roll by 5.6, 5.7 and 2.1.
    """

    name = "pnp"
    quantity = "pose_deg"

    class Options(ComponentOptions):
        detector: Annotated[Part, use("detectors")] = Field(
            default={"use": "mtcnn", "min_face": 60},  # half the size of a head in an enlarged crop
            validate_default=True,
            description="Detector of the five landmarks.",
        )

    options: Options

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.detector: Detector = options.detector.build()

    def load(self) -> None:
        """Load the detector's weights."""
        self.detector.load()

    def landmarks(self, images: np.ndarray) -> np.ndarray:
        """Return landmarks (B, 5, 2) in pixels of crops (B, S, S, 3) uint8; NaN without a face near the template."""
        size = images.shape[1]
        factor = -(-SIDE // size)
        frames = [enlarged(image, factor) for image in images]
        goal = template(size)
        landmarks = [nearest([_reduced(face, factor) for face in faces], goal, size) for faces in self.detector(frames)]
        return np.stack(landmarks)

    def forward(self, faces: FaceBatch) -> Tensor:
        """Return poses (B, 3) in degrees, float64 on the images' device; NaN for images without a detected face."""
        size = faces.image.shape[-1]
        points = self.landmarks(to_images(faces.image))
        poses = [solve(five, size) if np.isfinite(five).all() else np.full(3, np.nan) for five in points]
        return torch.from_numpy(np.stack(poses)).to(faces.image.device)


def enlarged(image: np.ndarray, factor: int) -> np.ndarray:
    """Return an image (S, S, 3), enlarged by an integer factor."""
    if factor == 1:
        return image
    return cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)


def _reduced(face: Face, factor: int) -> np.ndarray:
    """Return a face's landmarks (5, 2) in pixels of the image before enlargement."""
    return (face.landmarks + 0.5) / factor - 0.5


def nearest(candidates: list[np.ndarray], goal: np.ndarray, size: int) -> np.ndarray:
    """Return the landmarks (5, 2) of the face nearest to `goal` (5, 2); NaN if none is near."""
    distances = [np.linalg.norm(points - goal, axis=1).mean() / size for points in candidates]
    if not distances or min(distances) > NEAR:
        return np.full((5, 2), np.nan)
    return candidates[int(np.argmin(distances))]
