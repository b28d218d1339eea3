"""Background preservation outside the face."""

from collections.abc import Iterable
from typing import ClassVar

import numpy as np
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
    def forward(self, swaps: Iterable[tuple[SwapBatch, SwapResult]], faces: Dataset) -> dict[str, np.ndarray | float]:
        differences = []
        for batch, swap in swaps:
            outside = 1 - self.mask(batch.target).double()  # (B, 1, S, S)
            levels = (swap.image - batch.target.image).abs().mean(dim=1, keepdim=True).double() * 127.5
            differences.append(mean_where(levels, outside))
        return {"background": torch.cat(differences).cpu().numpy()}
