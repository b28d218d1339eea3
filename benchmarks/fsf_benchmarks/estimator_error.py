"""How far what an estimator reads from the swap is from what it reads from the target, and its own noise beside it."""

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

CROP = 0.96  # of the side: the smaller crop, around the centre, of which the estimator should read the same
VIEWS = 3  # of a target: itself, its mirror image, the smaller crop


class EstimatorError(Benchmark):
    """L2 distance of an estimator's rows for swap and target. Kinds say which `quantity`, and how it is mirrored.

    A method cannot be told from a perfect one far below the estimator's own noise, which is measured on the targets:
    the distance between a picture and its mirror image, turned back, and between it and a crop of 96 % of its side.
    """

    quantity: ClassVar[str]  # of the estimator; the figure is called so
    noises: ClassVar[tuple[str, str]]  # names of the figures: by the mirror, by the smaller crop
    mirrored: ClassVar[tuple[float, ...]]  # factors that turn a mirror image's numbers back; one for all, or one each
    fails = "The estimator found no face in the swap, in the target, or in the target's mirror image or smaller crop."

    class Options(ComponentOptions):
        estimator: Annotated[Part, use("estimators")] = Field(description="Measures the quantity.")

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
        self._known: dict[int, Tensor] = {}  # of targets, by their place in `_faces`: (VIEWS, D)

    def load(self) -> None:
        """Read the estimator's weights."""
        self.estimator.load()

    def label(self, trained_against: str | None) -> str:
        inner = [value.name for _, value in self.options.estimator.options if isinstance(value, Part)]
        return f"{self.name} (own network)" if trained_against in inner else self.name

    @torch.no_grad()
    def measure_batch(self, batch: SwapBatch, swap: SwapResult, faces: Dataset) -> dict[str, Any]:
        if faces is not self._faces:
            self._faces, self._known = faces, {}
        same, mirror, crop = self._targets(batch.target).unbind(1)  # (B, D) each
        noises = torch.stack([_distance(mirror, same), _distance(crop, same)])  # (2, B)
        return {"errors": _distance(self._read(swap.image), same), "noises": noises}

    def combine(self, parts: Sequence[dict[str, Any]], faces: Dataset) -> dict[str, np.ndarray | float]:
        errors = torch.cat([part["errors"] for part in parts])
        mirror, crop = torch.cat([part["noises"] for part in parts], dim=1).nanmean(dim=1).tolist()
        return {self.quantity: errors.numpy(), self.noises[0]: mirror, self.noises[1]: crop}

    def _targets(self, targets: FaceBatch) -> Tensor:
        """What is read from targets, their mirror images and smaller crops, (B, VIEWS, D); from each target once."""
        places = targets.index.tolist()
        new = {place: row for row, place in enumerate(places) if place not in self._known}
        if new:
            images = targets.image[list(new.values())]
            edge = (1 - CROP) / 2
            views = [
                self._read(images),
                self._read(images.flip(-1)) * torch.tensor(self.mirrored, dtype=torch.float64),
                self._read(crop_box(images, (edge, edge, CROP), (images.shape[-2], images.shape[-1]))),
            ]
            self._known |= zip(new, torch.stack(views, dim=1), strict=True)
        return torch.stack([self._known[place] for place in places])

    def _read(self, images: Tensor) -> Tensor:
        return self.estimator(FaceBatch.of(images)).double().cpu()  # (B, D)


def _distance(rows: Tensor, others: Tensor) -> Tensor:
    return torch.linalg.vector_norm(rows - others, dim=1)  # (B,)
