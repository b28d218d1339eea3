"""Same-identity swaps, whose ground truth is a photograph."""

from typing import Any, ClassVar

import numpy as np
import torch

from fsf_benchmarks.masked import MaskedBenchmark, mean_where
from fsf_benchmarks.reconstruction import similarity
from fsframework.core.components import Dataset, MetricInfo
from fsframework.core.types import SwapBatch, SwapResult
from fsframework.media.tensor import to_images


class SamePerson(MaskedBenchmark):
    """Measure the error of swaps between two images of one person, with the target as ground truth.

    The error includes attributes of the source (lighting, age, glasses) and losses of reconstruction. Targets whose
    person has no second image are failures. Copying the target has error 0 and SSIM 1; copying the source has the
    difference between two photographs of one person.
    """

    name = "same-person"
    pairing = "same_identity"
    fails = "The target's person has no other picture, or no face was found in the target."
    metrics: ClassVar = {
        "error": MetricInfo("", "lower", "Mean absolute difference of swap and target in the face (0 to 255)."),
        "ssim": MetricInfo("", "higher", "Structural similarity of swap and target, whole crops; at most 1."),
    }

    @torch.no_grad()
    def measure_batch(self, batch: SwapBatch, swap: SwapResult, faces: Dataset) -> dict[str, Any]:
        alone = (batch.source.index == batch.target.index).cpu().numpy()  # nobody else to swap with
        mask = self.mask(batch.target).double()
        levels = (swap.image - batch.target.image).abs().mean(dim=1, keepdim=True).double() * 127.5
        error = mean_where(levels, mask).cpu().numpy()
        pictures = zip(to_images(swap.image), to_images(batch.target.image), strict=True)
        ssim = np.array([similarity(image, target) for image, target in pictures])
        return {"error": np.where(alone, np.nan, error), "ssim": np.where(alone, np.nan, ssim)}
