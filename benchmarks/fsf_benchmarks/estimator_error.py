"""Base class of benchmarks that compare an estimator's outputs for swap and target, with the estimator's noise."""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from fsframework.core.components import Benchmark, ComponentOptions, Dataset, Estimator
from fsframework.core.errors import UserError
from fsframework.core.part import Part, use
from fsframework.core.types import FaceBatch, SwapBatch, SwapResult
from fsframework.faces.align import crop_box

CROP = 0.96  # side of the smaller centre crop, for which the estimate should not change
VIEWS = 3  # views of a target: original, mirror image, smaller crop


class EstimatorError(Benchmark):
    """Measure the L2 distance of an estimator's outputs for swap and target. Subclasses define the quantity.

    Errors below the estimator's noise do not distinguish methods. The noise is measured on the targets: the distance of
    an image to its mirror image, mirrored back, and to a crop of 96 % of its side.
    """

    quantity: ClassVar[str]  # of the estimator; name of the metric
    noises: ClassVar[tuple[str, str]]  # names of the noise metrics: mirror image, smaller crop
    mirrored: ClassVar[tuple[float, ...]]  # factors that mirror the outputs back; one for all, or one each
    fails = "The estimator found no face in the swap, in the target, or in the target's mirror image or smaller crop."

    class Options(ComponentOptions):
        estimator: Annotated[Part, use("estimators")] = Field(description="Estimator of the quantity.")

    options: Options

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.estimator: Estimator = options.estimator.build()
        if self.estimator.quantity != self.quantity:
            raise UserError(
                f"{self.name}: estimator {options.estimator.name}: measures {self.estimator.quantity}; "
                f"choose one that measures {self.quantity}"
            )
        self._faces: Dataset | None = None
        self._cached: dict[int, Tensor] = {}  # outputs (VIEWS, D) by the target's index in `_faces`

    def load(self) -> None:
        """Load the estimator's weights."""
        self.estimator.load()

    def label(self, trained_against: str | None) -> str:
        inner = [value.name for _, value in self.options.estimator.options if isinstance(value, Part)]
        return f"{self.name} (own network)" if trained_against in inner else self.name

    @torch.no_grad()
    def measure_batch(self, batch: SwapBatch, swap: SwapResult, faces: Dataset) -> dict[str, Any]:
        if faces is not self._faces:
            self._faces, self._cached = faces, {}
        same, mirror, crop = self._targets(batch.target).unbind(1)  # (B, D) each
        noises = torch.stack([_distance(mirror, same), _distance(crop, same)])  # (2, B)
        return {"errors": _distance(self._estimate(swap.image), same), "noises": noises}

    def combine(self, parts: Sequence[dict[str, Any]], faces: Dataset) -> dict[str, np.ndarray | float]:
        errors = torch.cat([part["errors"] for part in parts])
        mirror, crop = torch.cat([part["noises"] for part in parts], dim=1).nanmean(dim=1).tolist()
        return {self.quantity: errors.numpy(), self.noises[0]: mirror, self.noises[1]: crop}

    def _targets(self, targets: FaceBatch) -> Tensor:
        """Return the outputs (B, VIEWS, D) for targets, their mirror images and smaller crops, cached per target."""
        indices = targets.index.tolist()
        new = {index: row for row, index in enumerate(indices) if index not in self._cached}
        if new:
            images = targets.image[list(new.values())]
            edge = (1 - CROP) / 2
            views = [
                self._estimate(images),
                self._estimate(images.flip(-1)) * torch.tensor(self.mirrored, dtype=torch.float64),
                self._estimate(crop_box(images, (edge, edge, CROP), (images.shape[-2], images.shape[-1]))),
            ]
            self._cached |= zip(new, torch.stack(views, dim=1), strict=True)
        return torch.stack([self._cached[index] for index in indices])

    def _estimate(self, images: Tensor) -> Tensor:
        return self.estimator(FaceBatch.of(images)).double().cpu()  # (B, D)


def _distance(rows: Tensor, others: Tensor) -> Tensor:
    return torch.linalg.vector_norm(rows - others, dim=1)  # (B,)
