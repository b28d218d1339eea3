"""Random warps: what the autoencoders of DeepFakes, FaceSwap-GAN and DeepFaceLab learn to undo."""

from dataclasses import replace

import cv2
import numpy as np
from pydantic import Field

from fsframework.core.bases import DatasetWrapper
from fsframework.core.types import Sample

GRID = 5  # points a side of the grid that is shaken


class RandomWarp(DatasetWrapper):
    """Another data set whose training targets are turned, moved, resized, and then warped; the truth is not warped.

    An encoder that sees warped faces and decoders that must paint straight ones: this is what keeps the decoders of
    DeepFakes from copying. The first program shook the points of a 5x5 grid by 5 of 160 pixels (standard deviation).
    `Sample.truth` is the face as it was before the warp; landmarks are the truth's.
    """

    name = "random-warp"

    class Options(DatasetWrapper.Options):
        warp: float = Field(0.03, ge=0, le=0.1, description="Standard deviation of the grid's points, in crop sides.")
        turn: float = Field(10.0, ge=0, le=45, description="Largest rotation, in degrees.")
        zoom: float = Field(0.05, ge=0, le=0.5, description="Largest change of size, as a share.")
        shift: float = Field(0.05, ge=0, le=0.2, description="Largest move along each axis, in crop sides.")

    options: Options

    def target(self, index: int, rng: np.random.Generator) -> Sample:
        """The face altered, with the truth beside it. All randomness comes from `rng`."""
        sample = self.inner.target(index, rng)
        moved = self._moved(sample, rng)
        return replace(moved, image=shaken(moved.image, self.options.warp, rng), ground_truth=moved.image)

    def _moved(self, sample: Sample, rng: np.random.Generator) -> Sample:
        options, centre = self.options, (self.size - 1) / 2
        turn, zoom = rng.uniform(-1, 1) * options.turn, 1 + rng.uniform(-1, 1) * options.zoom
        matrix = cv2.getRotationMatrix2D((centre, centre), turn, zoom)
        matrix = matrix + np.column_stack([np.zeros((2, 2)), rng.uniform(-1, 1, 2) * options.shift * self.size])
        image = cv2.warpAffine(
            sample.image, matrix, (self.size, self.size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        landmarks = sample.landmarks @ matrix[:, :2].T + matrix[:, 2]
        return replace(sample, image=image, landmarks=landmarks)


def shaken(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """An image (S, S, 3) pulled about by the shaken points of a grid, bilinear between them.

    `strength` is the standard deviation of each point's move along each axis, in units of S.
    """
    size = len(image)
    moves = (rng.normal(0, strength * size, (GRID, GRID, 2))).astype(np.float32)
    smooth = cv2.resize(moves, (size, size), interpolation=cv2.INTER_LINEAR)
    y, x = np.mgrid[:size, :size].astype(np.float32)
    return cv2.remap(image, x + smooth[..., 0], y + smooth[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
