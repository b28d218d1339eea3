"""Background preservation outside the face."""

from typing import Any, ClassVar

import torch

from fsf_benchmarks.masked import MaskedBenchmark, mean_where
from fsframework.core.components import Dataset, MetricInfo
from fsframework.core.types import SwapBatch, SwapResult


class Background(MaskedBenchmark):
    """Measure the change of the target outside its face, in grey levels; lower is better.

    An estimator segments the target's face. Hair and neck count as background. A method that transfers the source's
    face shape must change some of it.
    """

    name = "background"
    fails = "No face was found in the target, or the mask covers the whole crop."
    metrics: ClassVar = {
        "background": MetricInfo(
            "", "lower", "Mean absolute difference of swap and target outside the face (0 to 255)."
        ),
    }

    @torch.no_grad()
    def measure_batch(self, batch: SwapBatch, swap: SwapResult, faces: Dataset) -> dict[str, Any]:
        outside = 1 - self.mask(batch.target).double()  # (B, 1, S, S)
        levels = (swap.image - batch.target.image).abs().mean(dim=1, keepdim=True).double() * 127.5
        return {"background": mean_where(levels, outside)}
