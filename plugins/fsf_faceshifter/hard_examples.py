"""Select the faces with the largest heuristic error for the training of HEAR-Net (arXiv:1912.13457, section 3.2)."""

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
INNER = "data"  # prefix of the keys of the inner dataset's state


class HardExamples(DatasetWrapper):
    """Fraction of another dataset with the largest heuristic error |X_t - AEI(X_t, X_t)|.

    Before `prepare`, it holds the whole dataset. The paper ranks by this difference and does not name a norm. Here the
    norm is the mean of absolute values over pixels and channels, for images in [-1, 1].
    """

    name = "hard-examples"

    class Options(DatasetWrapper.Options):
        share: float = Field(0.1, gt=0, le=1, description="Fraction of the faces to keep; at least two faces.")

    options: Options

    def __init__(self, options: Options, size: int, detector: Any, split: str) -> None:
        super().__init__(options, size, detector, split)
        self.chosen: np.ndarray | None = None  # (n,) int64, indices in the inner dataset

    def __len__(self) -> int:
        return len(self.inner) if self.chosen is None else len(self.chosen)

    def __getitem__(self, index: int) -> Sample:
        """Return the selected face at `index`."""
        return self.inner[self._inner_index(index)]

    def target(self, index: int, rng: np.random.Generator) -> Sample:
        """Return the selected face at `index` as a training target of the inner dataset."""
        return self.inner.target(self._inner_index(index), rng)

    def reversed_target(self, index: int, rng: np.random.Generator) -> Sample:
        """Return the selected face at `index` with another person's face, from the inner dataset."""
        return self.inner.reversed_target(self._inner_index(index), rng)

    def names(self) -> list[str]:
        """Return the names of the selected faces, in order."""
        names = self.inner.names()
        return [names[self._inner_index(index)] for index in range(len(self))]

    def people(self) -> list[str | None]:
        """Return the people of the selected faces, in order."""
        people = self.inner.people()
        return [people[self._inner_index(index)] for index in range(len(self))]

    def weights(self) -> np.ndarray | None:
        """Return the inner dataset's frequencies of the selected faces as training targets."""
        weights = self.inner.weights()
        return weights if weights is None or self.chosen is None else weights[self.chosen]

    def prepare(self, swapper: Swapper) -> dict[str, np.ndarray]:
        """Compute the heuristic error of every face of the inner dataset, and select the hardest.

        Returns
        -------
        The state for `restore`: `index` (n,) int64, ascending indices in the inner dataset; `error` (N,) float32 of all
        faces; and the inner dataset's state with keys that begin with `data.`.
        """
        inner = self.inner.prepare(swapper)
        error = heuristic_errors(self.inner, swapper)
        count = min(max(round(self.options.share * len(error)), 2), len(error))
        index = np.sort(np.argsort(-error, kind="stable")[:count]).astype(np.int64)
        state = {"index": index, "error": error, **{f"{INNER}.{key}": value for key, value in inner.items()}}
        self.chosen = index
        return state

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Select the faces of a state that `prepare` returned.

        Raises
        ------
        ValueError
            The state belongs to a dataset of another length.
        """
        if len(state["error"]) != len(self.inner):
            raise ValueError(f"prepared for {len(state['error'])} faces, but there are {len(self.inner)}")
        self.inner.restore(below(INNER, state))
        self.chosen = np.asarray(state["index"], np.int64)

    def _inner_index(self, index: int) -> int:
        if self.chosen is None:
            return index
        return int(self.chosen[index])


@torch.no_grad()
def heuristic_errors(data: Dataset, swapper: Swapper) -> np.ndarray:
    """Return the mean |X - coarse(X, X)| of every face, for images in [-1, 1]: (N,) float32.

    Modules run in eval mode, and return to their mode afterwards.
    """
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
