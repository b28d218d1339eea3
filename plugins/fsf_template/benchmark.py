"""A benchmark of colours."""

from collections.abc import Iterable
from typing import ClassVar

import numpy as np
import torch

from fsframework import Benchmark, Dataset, MetricInfo, SwapBatch, SwapResult


class TemplateBenchmark(Benchmark):
    """How far the mean colour of the swap is from the target's, in grey levels; lower is better."""

    name = "template-benchmark"
    metrics: ClassVar = {
        "colour": MetricInfo("", "lower", "Distance of the mean colours of swap and target (0 to 442 grey levels)."),
    }

    @torch.no_grad()
    def forward(self, swaps: Iterable[tuple[SwapBatch, SwapResult]], faces: Dataset) -> dict[str, np.ndarray | float]:
        """`colour`: (n,), a value for each pair."""
        found = []
        for batch, swap in swaps:
            difference = (swap.image - batch.target.image).double().mean(dim=(2, 3)) * 127.5  # (B, 3) grey levels
            found.append(difference.norm(dim=1))
        return {"colour": torch.cat(found).cpu().numpy()}
