"""Sharpness of the swap relative to the target."""

from typing import Any, ClassVar

import cv2
import numpy as np

from fsframework.core.components import Benchmark, Dataset, MetricInfo
from fsframework.core.types import SwapBatch, SwapResult
from fsframework.media.tensor import to_images

INSIDE = (0.25, 0.85)  # range of the face in an aligned crop, in units of its side
FLAT = 1e-3  # grey levels; minimum mean Laplacian of a target


class Sharpness(Benchmark):
    """Measure the ratio of the mean absolute Laplacian of swap and target in the face; below 1 the swap is softer.

    Images are grey, cropped to the centre. A ratio above 1 means more detail or noise; inspect the images. Lighting and
    skin differ between people, so copying the source does not yield exactly 1.
    """

    name = "sharpness"
    fails = "The target has no edges."
    metrics: ClassVar = {
        "sharpness": MetricInfo("", "higher", "Mean absolute Laplacian of the swap's face over that of the target's."),
    }

    def measure_batch(self, batch: SwapBatch, swap: SwapResult, faces: Dataset) -> dict[str, Any]:
        shares = []
        for image, target in zip(to_images(swap.image), to_images(batch.target.image), strict=True):
            own, goal = edges(image), edges(target)
            shares.append(own / goal if goal > FLAT else np.nan)
        return {"sharpness": np.array(shares)}


def edges(image: np.ndarray) -> float:
    """Return the mean absolute Laplacian, in grey levels, of the centre of a crop (S, S, 3) uint8."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    size = len(grey)
    part = slice(*(round(edge * size) for edge in INSIDE))
    return float(np.abs(cv2.Laplacian(grey.astype(np.float64), cv2.CV_64F))[part, part].mean())
