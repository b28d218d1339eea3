"""Reconstruction loss: distance of the swap to the ground truth."""

from typing import Literal

from pydantic import Field
from torch import Tensor

from fsframework.core.components import Loss
from fsframework.core.swapper import Swapper
from fsframework.core.types import SwapBatch, SwapResult


class Reconstruction(Loss):
    """Reconstruction loss: half the mean squared distance to the target on self pairs (FaceShifter, equation 9).

    Reversed pairs count as self pairs, because their ground truth is known everywhere (ReliableSwap, arXiv:2306.05356).

    The paper does not specify the average. `region: self` averages over self pairs, as most public code does.
    `region: all` divides by all pairs, which is weaker by the fraction of self pairs. `region: valid` also includes
    pixels of other pairs with known ground truth (`SwapBatch.valid_mask`), such as a synthetic occluder's; each pair's
    mean over such pixels has equal weight.
    """

    name = "reconstruction"

    class Options(Loss.Options):
        region: Literal["self", "all", "valid"] = Field(
            "self", description="Average over self pairs, over all pairs, or over all pixels with known ground truth."
        )

        distance: Literal["squared", "absolute"] = Field(
            "squared", description="Half the squared distance, as in FaceShifter, or the absolute distance."
        )
        target: Literal["final", "coarse"] = Field(
            "final", description="Which image is compared: the final swap, or the generator's coarse swap."
        )

    options: Options

    def forward(self, batch: SwapBatch, output: SwapResult, swapper: Swapper) -> Tensor:
        """Return the loss, a scalar."""
        difference = (output.image if self.options.target == "final" else output.coarse) - batch.ground_truth
        distance = 0.5 * difference.square() if self.options.distance == "squared" else difference.abs()
        if self.options.region == "valid":
            pixels = batch.valid_mask.sum(dim=(1, 2, 3))  # (B,)
            means = (distance.mean(dim=1, keepdim=True) * batch.valid_mask).sum(dim=(1, 2, 3)) / pixels.clamp(min=1)
            return means.sum() / (pixels > 0).sum().clamp(min=1)
        means = distance.mean(dim=(1, 2, 3))  # (B,)
        supervised = batch.supervised
        count = supervised.sum().clamp(min=1) if self.options.region == "self" else len(means)
        return (means * supervised).sum() / count
