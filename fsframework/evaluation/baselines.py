"""All swaps of an evaluation, made once, and the ways that are measured with them.

The ways are the method, `copy-target` (the target's picture, as if nothing were swapped), `copy-source` (the source's
picture, as if everything were) and, where there is a refiner, `without-refiner`.
"""

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from fsframework.core.swapper import Swapper
from fsframework.core.types import SwapBatch, SwapResult
from fsframework.data.eval_pairs import EvaluationPairs
from fsframework.media.tensor import to_images, to_tensor
from fsframework.utils.progress import progress

METHOD, COPY = "method", "copy-target"

Baseline = Callable[[SwapBatch, int], Tensor]  # from a batch and its number to images (B, 3, S, S)


@dataclass(frozen=True)
class Swapped:
    """The swaps of a list of pairs, as 8-bit pictures on the CPU: they are measured as they would be written."""

    pairs: EvaluationPairs
    device: torch.device  # on which benchmarks get them
    images: list[np.ndarray]  # by batch, (B, S, S, 3) uint8
    coarse_swaps: list[np.ndarray] | None  # None where there is no refiner
    results: list[SwapResult]  # by batch; no images, no z_att
    seconds: float  # that it took, without reading faces

    def cost(self) -> dict[str, float | None]:
        """Seconds a swap of aligned crops, in batches; and the most memory that the process, or the GPU, has held."""
        held = _most_held(self.device)
        seconds = self.seconds / len(self.pairs.pairs)
        return {"seconds_a_swap": seconds, "peak_memory_gb": None if held is None else held / 1e9}

    def baselines(self) -> dict[str, Baseline]:
        """What is measured, the method first."""
        coarse_swaps = self.coarse_swaps
        ways: dict[str, Baseline] = {METHOD: lambda batch, number: to_tensor(self.images[number])}
        if coarse_swaps is not None:
            ways["without-refiner"] = lambda batch, number: to_tensor(coarse_swaps[number])
        ways[COPY] = lambda batch, number: batch.target.image
        ways["copy-source"] = lambda batch, number: batch.source.image
        return ways

    def iter_batches(self, way: Baseline, done: Callable[[], None]) -> Iterator[tuple[SwapBatch, SwapResult]]:
        """The swaps of one way, batch by batch; `done` is called after each."""
        for number, batch in enumerate(self.pairs):
            image = way(batch, number)
            yield batch.to(self.device), replace(self.results[number], image=image, coarse=image).to(self.device)
            done()


def _most_held(device: torch.device) -> int | None:
    """Bytes that the GPU, or else the process, has held at most; None where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@torch.no_grad()
def swap_all(pairs: EvaluationPairs, swapper: Swapper, device: torch.device) -> Swapped:
    """Swap every pair, once, on the device where the swapper is."""
    images, coarse_swaps, results = [], [], []
    none, seconds = torch.empty(0), 0.0
    with progress("swapping", len(pairs.pairs), "pairs") as ticker:
        for batch in pairs:
            start = time.perf_counter()
            result = swapper(batch.to(device))
            images.append(to_images(result.image))  # waits for the device
            seconds += time.perf_counter() - start
            if swapper.refiner is not None:
                coarse_swaps.append(to_images(result.coarse))
            results.append(replace(result, image=none, coarse=none, z_att=[]).to("cpu"))
            ticker.advance(len(batch.same))
    return Swapped(pairs, device, images, None if swapper.refiner is None else coarse_swaps, results, seconds)
