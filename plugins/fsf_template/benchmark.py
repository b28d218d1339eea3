"""A benchmark of colours."""

from typing import ClassVar

import torch
from torch import Tensor

from fsframework import Benchmark, Dataset, MetricInfo, SwapBatch, SwapResult


class TemplateBenchmark(Benchmark):
    """Distance of the mean colours of swap and target, in grey levels; lower is better."""

    name = "template-benchmark"
    metrics: ClassVar = {
        "colour": MetricInfo("", "lower", "Distance of the mean colours of swap and target (0 to 442 grey levels)."),
    }

    @torch.no_grad()
    def measure_batch(self, batch: SwapBatch, swap: SwapResult, faces: Dataset) -> dict[str, Tensor]:
        """Return `colour`, (B,), a value for each pair."""
        difference = (swap.image - batch.target.image).double().mean(dim=(2, 3)) * 127.5  # (B, 3) grey levels
        return {"colour": difference.norm(dim=1)}
