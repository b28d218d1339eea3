"""Sharpness: is the swap as fine as the target?"""

from typing import Any, ClassVar

import cv2
import numpy as np

from fsframework.core.components import Benchmark, Dataset, MetricInfo
from fsframework.core.types import SwapBatch, SwapResult
from fsframework.media.tensor import to_images

INSIDE = (0.25, 0.85)  # of the crop's side: the part of an aligned crop that is face
FLAT = 1e-3  # grey levels; a target flatter than that has no edges to compare with


class Sharpness(Benchmark):
    """How strong the swap's fine edges are in its face, as a share of the target's: 1 is as sharp, below 1 softer.

    The mean absolute Laplacian of the grey picture, in the middle of the crop. Above 1 there may be more detail or
    noise: look at the pictures. Light and skin differ between people, so copying the source gives not just 1.
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
    """Mean absolute Laplacian, in grey levels, of the middle of a crop (S, S, 3) uint8."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    size = len(grey)
    part = slice(*(round(edge * size) for edge in INSIDE))
    return float(np.abs(cv2.Laplacian(grey.astype(np.float64), cv2.CV_64F))[part, part].mean())
