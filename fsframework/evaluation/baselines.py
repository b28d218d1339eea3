"""Compute the swaps of an evaluation batch by batch, with the baselines that are measured beside them.

The baselines are `copy-target` (the unchanged target image) and `copy-source` (the unchanged source image). Methods
with a refiner add `without-refiner` (the coarse swap).
"""

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fsframework.core.swapper import Swapper
from fsframework.core.types import SwapBatch, SwapResult
from fsframework.data.eval_pairs import EvaluationPairs
from fsframework.evaluation.results import COPY, COPY_SOURCE, METHOD, UNREFINED, Cost
from fsframework.media.tensor import swap_images, to_tensor


@dataclass(frozen=True)
class SwappedBatch:
    """A batch and its swaps. Images are quantized to 8 bits, and grey where targets are, as in saved files."""

    batch: SwapBatch  # on the device
    image: np.ndarray  # (B, S, S, 3) uint8
    coarse: np.ndarray | None  # (B, S, S, 3) uint8; None where there is no refiner
    z_id: Tensor  # (B, D) on the device
    mask: Tensor | None  # as in SwapResult

    def baselines(self) -> Iterator[tuple[str, SwapResult]]:
        """Yield (name, result) of the method, then of each baseline."""
        yield METHOD, self._result(to_tensor(self.image))
        if self.coarse is not None:
            yield UNREFINED, self._result(to_tensor(self.coarse))
        yield COPY, self._result(self.batch.target.image)
        yield COPY_SOURCE, self._result(self.batch.source.image)

    def _result(self, image: Tensor) -> SwapResult:
        image = image.to(self.z_id.device)
        return SwapResult(image=image, coarse=image, z_id=self.z_id, mask=self.mask)


class Swaps:
    """An iterable over the swaps of a list of pairs. Each iteration swaps again, and `cost` summarises time and memory.

    Parameters
    ----------
    pairs:
        The source and target faces.
    swapper:
        In eval mode, on the device.
    device:
        The device of the batches.
    """

    def __init__(self, pairs: EvaluationPairs, swapper: Swapper, device: torch.device) -> None:
        self.pairs, self.swapper, self.device = pairs, swapper, device
        self.seconds = 0.0  # spent on swapping, without reading faces
        self.peak_memory: int | None = None  # bytes, see `cost`

    def __iter__(self) -> Iterator[SwappedBatch]:
        for batch in self.pairs:
            yield self._swap(batch)

    @torch.no_grad()
    def _swap(self, batch: SwapBatch) -> SwappedBatch:
        start = time.perf_counter()
        batch = batch.to(self.device)
        result = self.swapper(batch)
        image = swap_images(result.image, batch.target.image)  # synchronises with the device
        self.seconds += time.perf_counter() - start
        self.peak_memory = self.peak_memory or _peak_memory(self.device)
        coarse = None if self.swapper.refiner is None else swap_images(result.coarse, batch.target.image)
        return SwappedBatch(batch, image, coarse, result.z_id, result.mask)

    def cost(self) -> Cost:
        """Return the mean time per swap of aligned crops, in batches, and the peak memory in GB.

        The peak is that of the GPU, or else of the process, after the first batch and before any measurement. It is
        None where the operating system does not report it.
        """
        return Cost(self.seconds / len(self.pairs.pairs), None if self.peak_memory is None else self.peak_memory / 1e9)


def _peak_memory(device: torch.device) -> int | None:
    """Return the peak memory of the GPU, or else of the process, in bytes; None where the system does not report it."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
