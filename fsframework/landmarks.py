"""Estimators that read what they say from 68 landmarks."""

from typing import Annotated

import numpy as np
from pydantic import Field

from fsframework.components import ComponentOptions, Estimator
from fsframework.plugins import Part, use
from fsframework.types import Faces


class FromLandmarks(Estimator):
    """Has another estimator find the landmarks; derived classes say what follows from them."""

    class Options(ComponentOptions):
        landmarks: Annotated[Part, use("estimators")] = Field(
            default={"use": "dlib-landmarks"}, validate_default=True, description="Finds the 68 landmarks."
        )

    options: Options

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.landmarks: Estimator = options.landmarks.build_estimator("landmarks68", "landmarks")

    def load(self) -> None:
        """Load the landmarks' estimator."""
        self.landmarks.load()

    def points(self, faces: Faces) -> np.ndarray:
        """The landmarks (B, 68, 2) float64 in crop pixels; NaN where none were found."""
        found: np.ndarray = self.landmarks(faces).double().cpu().numpy()
        return found
