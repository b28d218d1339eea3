"""Losses of masks that a generator paints beside its picture."""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from fsf_blending.blend import Blend
from fsframework.core.components import Estimator, Loss
from fsframework.core.part import Part, use
from fsframework.core.swapper import Swapper
from fsframework.core.types import FaceBatch, SwapBatch, SwapResult


def painted(output: SwapResult) -> Tensor:
    """The generator's mask (B, 1, S, S). Raises ValueError if it paints none."""
    if output.mask is None:
        raise ValueError("the generator paints no mask; choose one that does, or leave this loss out")
    return output.mask.float()


def blends_mask(batch: SwapBatch, swapper: Swapper) -> Tensor:
    """The mask (B, 1, S, S) that a `blend` finds in targets. Raises ValueError if it finds none."""
    if not isinstance(swapper.refiner, Blend) or swapper.refiner.mask is None:
        raise ValueError("network: refiner needs the refiner blend with a mask, such as {use: face-segmenter}")
    found: Tensor = swapper.refiner.mask(batch.target)
    return found.float()


class MaskLoss(Loss):
    """Mean squared difference of a mask and an estimator's on the truth.

    Of the generator's mask, as DeepFaceLab learns it; or of the mask that a `blend` finds in targets, where what is
    known to lie in front of the face (`Batch.known`, of pairs of different pictures) is no face.
    """

    name = "mask"

    class Options(Loss.Options):
        mask: Annotated[Part, use("estimators")] = Field(
            default={"use": "hull-mask"}, validate_default=True, description="Says what is face."
        )
        network: Literal["generator", "refiner"] = Field("generator", description="Whose mask is trained.")

    options: Options

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.mask: Estimator = options.mask.build_estimator("mask", "mask")
        self.mask.requires_grad_(False)

    def load(self) -> None:
        """Load the estimator."""
        self.mask.load()

    def forward(self, batch: SwapBatch, output: SwapResult, swapper: Swapper) -> Tensor:
        """A scalar. Pairs whose mask is not found have no part."""
        found = self.mask(FaceBatch.of(batch.ground_truth)).float()
        known = found.isfinite()
        if self.options.network == "refiner":
            found = found * (1 - torch.where(batch.same[:, None, None, None], 0.0, batch.valid_mask))
            own = blends_mask(batch, swapper)
        else:
            own = painted(output)
        squared = (own - found.nan_to_num(0.0)).square() * known
        return squared.sum() / known.sum().clamp(min=1)


class MaskShape(Loss):
    """Keeps a mask that nobody shows the truth from vanishing and from fraying, as FaceSwap-GAN does.

    What is missing to `least`, on average, plus the mean absolute difference of neighbours times `smooth`.
    """

    name = "mask-shape"

    class Options(Loss.Options):
        least: float = Field(0.5, ge=0, le=1, description="Value below which the mask costs.")
        smooth: float = Field(0.1, ge=0, description="Factor of the difference of neighbouring pixels.")

    options: Options

    def forward(self, batch: SwapBatch, output: SwapResult, swapper: Swapper) -> Tensor:
        """A scalar."""
        mask = painted(output)
        steps = mask.diff(dim=2).abs().mean() + mask.diff(dim=3).abs().mean()
        return F.relu(self.options.least - mask).mean() + self.options.smooth * steps
