"""The faces that AEI-Net reconstructs worst, on which HEAR-Net trains (arXiv:1912.13457, section 3.2)."""

from typing import Any

import numpy as np
import torch
from pydantic import Field

from fsframework.core.bases import DatasetWrapper
from fsframework.core.components import Dataset
from fsframework.core.swapper import Swapper
from fsframework.core.types import FaceBatch, Sample, SwapBatch
from fsframework.media.tensor import to_tensor
from fsframework.utils.progress import progress
from fsframework.utils.weights import below

BATCH = 32
INNER = "data"  # before the names of what the inner data set prepared


class HardExamples(DatasetWrapper):
    """The share of another data set with the largest heuristic error, the mean of |X_t - AEI(X_t, X_t)|.

    Until it is prepared it holds the whole data set. The paper ranks by the same difference and does not name a norm;
    we take the mean of absolute values over pixels and colours, in units of [-1, 1].
    """

    name = "hard-examples"

    class Options(DatasetWrapper.Options):
        share: float = Field(0.1, gt=0, le=1, description="Share of the faces that is kept; at least two faces.")

    options: Options

    def __init__(self, options: Options, size: int, detector: Any, split: str) -> None:
        super().__init__(options, size, detector, split)
        self.chosen: np.ndarray | None = None  # (n,) int64, places in the inner data set

    def __len__(self) -> int:
        return len(self.inner) if self.chosen is None else len(self.chosen)

    def __getitem__(self, index: int) -> Sample:
        """A face of the inner data set."""
        return self.inner[self._place(index)]

    def target(self, index: int, rng: np.random.Generator) -> Sample:
        """A target of the inner data set."""
        return self.inner.target(self._place(index), rng)

    def names(self) -> list[str]:
        """The chosen faces' names."""
        names = self.inner.names()
        return [names[self._place(index)] for index in range(len(self))]

    def people(self) -> list[str | None]:
        """The chosen faces' people."""
        people = self.inner.people()
        return [people[self._place(index)] for index in range(len(self))]

    def prepare(self, swapper: Swapper) -> dict[str, np.ndarray]:
        """Measure every face of the inner data set, and keep the hardest.

        Returns
        -------
        `index` (n,) int64, places in the inner data set, ascending; `error` (N,) float32 of all faces; and what the
        inner data set prepares, under names that begin with `data.`.
        """
        inner = self.inner.prepare(swapper)
        error = heuristic_errors(self.inner, swapper)
        count = min(max(round(self.options.share * len(error)), 2), len(error))
        index = np.sort(np.argsort(-error, kind="stable")[:count]).astype(np.int64)
        state = {"index": index, "error": error, **{f"{INNER}.{key}": value for key, value in inner.items()}}
        self.chosen = index
        return state

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Keep the faces that `prepare` chose.

        Raises
        ------
        ValueError
            It was prepared for a data set of another length.
        """
        if len(state["error"]) != len(self.inner):
            raise ValueError(f"prepared for {len(state['error'])} faces, but there are {len(self.inner)}")
        self.inner.restore(below(INNER, state))
        self.chosen = np.asarray(state["index"], np.int64)

    def _place(self, index: int) -> int:
        if self.chosen is None:
            return index
        return int(self.chosen[index])


@torch.no_grad()
def heuristic_errors(data: Dataset, swapper: Swapper) -> np.ndarray:
    """Mean |X - coarse(X, X)| of every face, in units of [-1, 1]: (N,) float32. Modules measure in eval mode."""
    device = next((value.device for value in swapper.parameters()), torch.device("cpu"))
    modes = [(module, module.training) for module in swapper.modules()]
    swapper.eval()
    errors = []
    try:
        with progress("measuring heuristic errors", len(data), "faces") as ticker:
            for start in range(0, len(data), BATCH):
                samples = [data[index] for index in range(start, min(start + BATCH, len(data)))]
                image = to_tensor(np.stack([sample.image for sample in samples])).to(device)
                landmarks = np.stack([sample.landmarks for sample in samples]).astype(np.float32)
                faces = FaceBatch.of(image, torch.from_numpy(landmarks).to(device))
                coarse = swapper.coarse(SwapBatch.of(faces, faces)).image
                errors.append((image - coarse).abs().mean(dim=(1, 2, 3)).float().cpu().numpy())
                ticker.advance(len(samples))
    finally:
        for module, training in modes:
            module.training = training
    return np.concatenate(errors) if errors else np.zeros(0, np.float32)
