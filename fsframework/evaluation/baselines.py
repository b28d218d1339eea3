"""The swaps of an evaluation, made once, batch by batch, and the baselines that are measured beside them.

The baselines are `copy-target` (the target's picture, as if nothing were swapped), `copy-source` (the source's picture,
as if everything were) and, where there is a refiner, `without-refiner`.
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
from fsframework.media.tensor import to_images, to_tensor


@dataclass(frozen=True)
class SwappedBatch:
    """A batch and its swaps as 8-bit pictures: they are measured as they would be written."""

    batch: SwapBatch  # on the device
    image: np.ndarray  # (B, S, S, 3) uint8
    coarse: np.ndarray | None  # (B, S, S, 3) uint8; None where there is no refiner
    z_id: Tensor  # (B, D) on the device
    mask: Tensor | None  # as in SwapResult

    def baselines(self) -> Iterator[tuple[str, SwapResult]]:
        """Yield what is measured, by name, the method first."""
        yield METHOD, self._result(to_tensor(self.image))
        if self.coarse is not None:
            yield UNREFINED, self._result(to_tensor(self.coarse))
        yield COPY, self._result(self.batch.target.image)
        yield COPY_SOURCE, self._result(self.batch.source.image)

    def _result(self, image: Tensor) -> SwapResult:
        image = image.to(self.z_id.device)
        return SwapResult(image=image, coarse=image, z_id=self.z_id, mask=self.mask)


class Swaps:
    """The swaps of a list of pairs, which every iteration makes anew, and what they cost.

    Parameters
    ----------
    pairs:
        Who is swapped with whom.
    swapper:
        In eval mode, on the device.
    device:
        Where the batches are.
    """

    def __init__(self, pairs: EvaluationPairs, swapper: Swapper, device: torch.device) -> None:
        self.pairs, self.swapper, self.device = pairs, swapper, device
        self.seconds = 0.0  # that swapping took, without reading faces
        self.held: int | None = None  # bytes, see `cost`

    def __iter__(self) -> Iterator[SwappedBatch]:
        for batch in self.pairs:
            yield self._swap(batch)

    @torch.no_grad()
    def _swap(self, batch: SwapBatch) -> SwappedBatch:
        start = time.perf_counter()
        batch = batch.to(self.device)
        result = self.swapper(batch)
        image = to_images(result.image)  # waits for the device
        self.seconds += time.perf_counter() - start
        self.held = self.held or _most_held(self.device)
        coarse = None if self.swapper.refiner is None else to_images(result.coarse)
        return SwappedBatch(batch, image, coarse, result.z_id, result.mask)

    def cost(self) -> Cost:
        """Return seconds a swap of aligned crops, in batches; and GB.

        GB are the most that the process, or the GPU, has held when the first batch was swapped, before anything was
        measured; None where the system does not say.
        """
        return Cost(self.seconds / len(self.pairs.pairs), None if self.held is None else self.held / 1e9)


def _most_held(device: torch.device) -> int | None:
    """Bytes that the GPU, or else the process, has held at most; None where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
