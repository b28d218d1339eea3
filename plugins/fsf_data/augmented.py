"""Dataset wrapper with random changes of place, light, colour and sharpness of the training targets."""

from dataclasses import replace

import cv2
import numpy as np
from pydantic import Field

from fsframework.core.bases import DatasetWrapper
from fsframework.core.types import Sample
from fsframework.faces.align import transform, warp


class Augmented(DatasetWrapper):
    """Dataset wrapper that rotates, scales and shifts targets, and changes their light, colours and sharpness.

    Landmarks, `valid_mask` and ground truth undergo the same change of place; the ground truth that of colours, too.
    Pixels from outside of the crop repeat its edge, as in alignment. Samples that are no targets stay unchanged.
    """

    name = "augmented"

    class Options(DatasetWrapper.Options):
        rotation: float = Field(12.0, ge=0, le=180, description="Largest angle to either side, in degrees.")
        scale: float = Field(0.15, ge=0, le=1, description="Largest change of the size: by a factor of 1 + scale.")
        shift: float = Field(0.05, ge=0, le=1, description="Largest shift in x and in y, in units of the side.")
        light: float = Field(0.4, ge=0, le=1, description="Largest change of brightness, contrast and gamma.")
        colour: float = Field(0.15, ge=0, le=1, description="Largest change of each colour channel.")
        blur: float = Field(0.012, ge=0, le=1, description="Largest standard deviation of blur, in units of the side.")
        noise: float = Field(0.03, ge=0, le=1, description="Largest standard deviation of noise, in units of white.")

    options: Options

    def target(self, index: int, rng: np.random.Generator) -> Sample:
        """Return the inner target with random changes. All randomness is from `rng`."""
        sample = self.inner.target(index, rng)
        matrix, size = self._place(rng), len(sample.image)
        table = self._table(rng)
        image = self._grainy(cv2.LUT(warp(sample.image, matrix, size), table), rng)
        truth, mask = sample.ground_truth, sample.valid_mask
        if truth is not None:
            truth = cv2.LUT(warp(truth, matrix, size), table)
        if mask is not None:
            mask = warp(mask.astype(np.uint8) * 255, matrix, size) > 127
        landmarks = transform(sample.landmarks, matrix).astype(sample.landmarks.dtype)
        return replace(sample, image=image, landmarks=landmarks, valid_mask=mask, ground_truth=truth)

    def ground_truth_swap(self, source: int, target: int) -> None:
        """Return None: the inner dataset's ground-truth swap is not changed as the target is."""

    def _place(self, rng: np.random.Generator) -> np.ndarray:
        """Return a random similarity transform (2, 3) about the crop's centre."""
        options = self.options
        angle = np.deg2rad(rng.uniform(-options.rotation, options.rotation))
        factor = (1 + options.scale) ** rng.uniform(-1, 1)
        cosine, sine = factor * np.cos(angle), factor * np.sin(angle)
        linear = np.array([[cosine, -sine], [sine, cosine]])
        centre = np.full(2, (self.size - 1) / 2)
        shift = rng.uniform(-options.shift, options.shift, 2) * self.size
        return np.column_stack([linear, centre + shift - linear @ centre])

    def _table(self, rng: np.random.Generator) -> np.ndarray:
        """Return a random lookup table of colours, (1, 256, 3) uint8."""
        light, colour = self.options.light, self.options.colour
        gamma, contrast = (1 + light) ** rng.uniform(-1, 1, 2)
        gains = (1 + colour) ** rng.uniform(-1, 1, 3)
        level = np.linspace(0, 1, 256)[:, None] ** gamma
        level = (level - 0.5) * contrast + 0.5 + rng.uniform(-0.4, 0.4) * light
        table: np.ndarray = np.clip(np.rint(level * gains * 255), 0, 255).astype(np.uint8)
        return table[None]

    def _grainy(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return an image (S, S, 3) uint8 with random blur, then random noise; half of the images without either."""
        blur = rng.uniform(0, self.options.blur) * len(image) * (rng.random() < 0.5)
        noise = rng.uniform(0, self.options.noise) * 255 * (rng.random() < 0.5)
        if blur > 0.2:  # a narrower kernel is a single pixel
            image = np.asarray(cv2.GaussianBlur(image, (0, 0), blur))
        if noise > 0:
            image = np.clip(np.rint(image + rng.normal(0, noise, image.shape)), 0, 255).astype(np.uint8)
        return image
