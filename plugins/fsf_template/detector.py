"""A detector with the cascade that scikit-image contains."""

import numpy as np
import skimage.data
from pydantic import Field
from skimage.feature import Cascade

from fsframework import ComponentOptions, Detector, Face

# Eye, eye, nose, mouth corner, mouth corner, in a box of side 1, because a cascade finds boxes without landmarks. They
# are the median of 200 images of LFW, from which mtcnn's landmarks deviated by 12 % of the eye distance.
LANDMARKS = np.array([[0.31, 0.39], [0.69, 0.38], [0.50, 0.61], [0.34, 0.79], [0.67, 0.78]])
LARGEST = 512  # maximum side of the searched frame, in pixels; larger frames are subsampled


class TemplateDetector(Detector):
    """Frontal faces by scikit-image's cascade, with mean landmark positions."""

    name = "template-detector"

    class Options(ComponentOptions):
        smallest: int = Field(40, ge=24, description="Side of the smallest face, in pixels of the frame.")

    options: Options

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.cascade: Cascade | None = None

    def load(self) -> None:
        """Load the cascade."""
        self.cascade = Cascade(skimage.data.lbp_frontal_face_cascade_filename())

    def forward(self, frames: list[np.ndarray]) -> list[list[Face]]:
        """Return the faces of each frame (H, W, 3) uint8, largest first, with score 1."""
        return [self._faces(frame) for frame in frames]

    def _faces(self, frame: np.ndarray) -> list[Face]:
        assert self.cascade is not None, "load() comes first"
        step = -(-max(frame.shape[:2]) // LARGEST)
        small = np.ascontiguousarray(frame[::step, ::step])
        least, most = max(24, self.options.smallest // step), min(small.shape[:2])
        if least > most:
            return []
        found = self.cascade.detect_multi_scale(
            img=small, scale_factor=1.2, step_ratio=1, min_size=(least, least), max_size=(most, most)
        )
        boxes = [step * np.array([box["c"], box["r"], box["width"], box["height"]], dtype=np.float64) for box in found]
        return [
            Face(box=np.concatenate([box[:2], box[:2] + box[2:]]), landmarks=box[:2] + LANDMARKS * box[2:], score=1.0)
            for box in sorted(boxes, key=lambda box: -box[2])
        ]
