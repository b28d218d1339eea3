"""Random warp augmentation for the autoencoders of DeepFakes, FaceSwap-GAN and DeepFaceLab."""

from dataclasses import replace

import cv2
import numpy as np
from pydantic import Field

from fsframework.core.bases import DatasetWrapper
from fsframework.core.types import Sample

GRID = 5  # control points per side of the warp's grid


class RandomWarp(DatasetWrapper):
    """Dataset wrapper that rotates, shifts, scales and then warps training targets; the ground truth is not warped.

    Reconstruction of unwarped faces from warped inputs prevents the decoders of DeepFakes from copying. The first
    program moved the points of a 5x5 grid by 5 of 160 pixels (standard deviation). `Sample.ground_truth` is the face
    before the warp, and the landmarks are those of the ground truth.
    """

    name = "random-warp"

    class Options(DatasetWrapper.Options):
        warp: float = Field(0.03, ge=0, le=0.1, description="Standard deviation of the grid's points, in crop sides.")
        turn: float = Field(10.0, ge=0, le=45, description="Largest rotation, in degrees.")
        zoom: float = Field(0.05, ge=0, le=0.5, description="Largest change of size, as a share.")
        shift: float = Field(0.05, ge=0, le=0.2, description="Largest move along each axis, in crop sides.")

    options: Options

    def target(self, index: int, rng: np.random.Generator) -> Sample:
        """Return the warped face at `index`, with the unwarped face as ground truth. All randomness is from `rng`."""
        sample = self.inner.target(index, rng)
        transformed = self._transformed(sample, rng)
        return replace(
            transformed, image=warped(transformed.image, self.options.warp, rng), ground_truth=transformed.image
        )

    def _transformed(self, sample: Sample, rng: np.random.Generator) -> Sample:
        options, centre = self.options, (self.size - 1) / 2
        turn, zoom = rng.uniform(-1, 1) * options.turn, 1 + rng.uniform(-1, 1) * options.zoom
        matrix = cv2.getRotationMatrix2D((centre, centre), turn, zoom)
        matrix = matrix + np.column_stack([np.zeros((2, 2)), rng.uniform(-1, 1, 2) * options.shift * self.size])
        image = cv2.warpAffine(
            sample.image, matrix, (self.size, self.size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        landmarks = sample.landmarks @ matrix[:, :2].T + matrix[:, 2]
        return replace(sample, image=image, landmarks=landmarks)


def warped(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Return an image (S, S, 3) uint8, warped by random displacements of grid points with bilinear interpolation.

    `strength` is the standard deviation of each point's displacement along each axis, in units of S.
    """
    size = len(image)
    displacements = (rng.normal(0, strength * size, (GRID, GRID, 2))).astype(np.float32)
    smooth = cv2.resize(displacements, (size, size), interpolation=cv2.INTER_LINEAR)
    y, x = np.mgrid[:size, :size].astype(np.float32)
    return cv2.remap(image, x + smooth[..., 0], y + smooth[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
