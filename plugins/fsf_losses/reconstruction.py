"""Reconstruction loss: where the right answer is known, the swap must be it."""

from typing import Literal

from pydantic import Field
from torch import Tensor

from fsframework.core.components import Loss
from fsframework.core.swapper import Swapper
from fsframework.core.types import SwapBatch, SwapResult


class Reconstruction(Loss):
    """Half the mean squared distance to the target, where the source is the target (FaceShifter, equation 9).

    The paper does not say what is averaged. `over: same` takes the mean over same pairs (as most public code does),
    `over: batch` over all pairs (weaker by the share of same pairs). `over: known` also looks at other
    pairs, wherever the right answer is known, such as in the pixels of an occluder that was drawn over the target.
    Every pair's mean over such pixels counts alike.
    """

    name = "reconstruction"

    class Options(Loss.Options):
        region: Literal["self", "all", "valid"] = Field(
            "self", description="Average over the same pairs, over all pairs, or over all pixels whose truth is known."
        )

        distance: Literal["squared", "absolute"] = Field(
            "squared", description="Half the squared distance, as FaceShifter has it, or the absolute one."
        )
        target: Literal["final", "coarse"] = Field(
            "final", description="Which picture is compared: the swap, or what the generator painted for it."
        )

    options: Options

    def forward(self, batch: SwapBatch, output: SwapResult, swapper: Swapper) -> Tensor:
        """A scalar."""
        difference = (output.image if self.options.target == "final" else output.coarse) - batch.ground_truth
        distance = 0.5 * difference.square() if self.options.distance == "squared" else difference.abs()
        if self.options.region == "valid":
            pixels = batch.valid_mask.sum(dim=(1, 2, 3))  # (B,)
            means = (distance.mean(dim=1, keepdim=True) * batch.valid_mask).sum(dim=(1, 2, 3)) / pixels.clamp(min=1)
            return means.sum() / (pixels > 0).sum().clamp(min=1)
        means = distance.mean(dim=(1, 2, 3))  # (B,)
        count = batch.same.sum().clamp(min=1) if self.options.region == "self" else len(means)
        return (means * batch.same).sum() / count
