"""A loss on colours."""

from typing import Literal

from pydantic import Field
from torch import Tensor

from fsframework import Loss, SwapBatch, Swapper, SwapResult


class TemplateLoss(Loss):
    """Difference of the mean colours of swap and target."""

    name = "template-loss"

    class Options(Loss.Options):
        distance: Literal["squared", "absolute"] = Field("squared", description="How the difference is counted.")

    options: Options

    def forward(self, batch: SwapBatch, output: SwapResult, swapper: Swapper) -> Tensor:
        """Return the loss without its weight, a scalar."""
        difference = (output.image - batch.target.image).float().mean(dim=(2, 3))  # (B, 3)
        return difference.square().mean() if self.options.distance == "squared" else difference.abs().mean()
