"""The losses of FaceShifter. Li et al., arXiv:1912.13457, sections 3.1 and 3.2, equations 7 to 13.

The paper writes squared norms, which grow with the crop; here every loss is a mean over elements, so that weights do
not depend on the size. This is what the public re-implementations compute too.
"""

import torch
from pydantic import Field
from torch import Tensor

from fsframework.core.components import Loss
from fsframework.core.swapper import Swapper
from fsframework.core.types import FaceBatch, SwapBatch, SwapResult


class Attribute(Loss):
    """Half the squared distance of the attribute maps of swap and target, summed over levels (equation 7)."""

    name = "attribute"

    class Options(Loss.Options):
        detach: bool = Field(
            False,
            description="Whether the target's maps are constants. If not, as in the paper's equation, the loss can "
            "also fall by shrinking the maps.",
        )

    options: Options

    def forward(self, batch: SwapBatch, output: SwapResult, swapper: Swapper) -> Tensor:
        """A scalar."""
        z_att = swapper.attributes(FaceBatch.of(output.image))
        total = output.image.new_zeros(())
        for painted, target in zip(z_att, output.z_att, strict=True):
            target = target.detach() if self.options.detach else target
            difference = (painted - target).to(torch.promote_types(painted.dtype, torch.float32))
            # Not mean(), whose gradient would not lie in memory as the maps do, which makes all that follows slow.
            total = total + difference.square().sum() / difference.numel()
        return 0.5 * total


class Change(Loss):
    """Mean absolute difference between the swap before and after the refiner (equation 12)."""

    name = "change"

    def forward(self, batch: SwapBatch, output: SwapResult, swapper: Swapper) -> Tensor:
        """A scalar."""
        return (output.image - output.coarse).abs().mean()
