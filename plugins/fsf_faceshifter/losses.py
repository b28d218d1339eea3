"""Losses of FaceShifter. Li et al., arXiv:1912.13457, sections 3.1 and 3.2, equations 7 to 13.

The paper's squared norms grow with the crop. Here every loss is a mean over elements, as in the public
re-implementations, so that loss weights do not depend on the size.
"""

import torch
from pydantic import Field
from torch import Tensor

from fsframework.core.components import Loss
from fsframework.core.swapper import Swapper
from fsframework.core.types import FaceBatch, SwapBatch, SwapResult


class Attribute(Loss):
    """Attribute loss: half the squared distance of swap's and target's attribute maps, summed over levels (eq. 7).

    Reversed pairs are excluded: their targets' maps contain the traces of a swap, and the right pixels are known. The
    published code of ReliableSwap (arXiv:2306.05356) includes them; that of CSCS (ACM TOG 2024) has no such term there.
    """

    name = "attribute"

    class Options(Loss.Options):
        detach: bool = Field(
            False,
            description="Whether gradients stop at the target's attribute maps. Without, as in the paper, shrinking "
            "the maps also reduces the loss.",
        )

    options: Options

    def forward(self, batch: SwapBatch, output: SwapResult, swapper: Swapper) -> Tensor:
        """Return the loss, a scalar."""
        z_att = swapper.attributes(FaceBatch.of(output.image))
        total = output.image.new_zeros(())
        for swap, target in zip(z_att, output.z_att, strict=True):
            target = target.detach() if self.options.detach else target
            difference = (swap - target).to(torch.promote_types(swap.dtype, torch.float32))
            # Not mean(): its gradient has another memory format than the maps, which slows down the backward pass.
            if batch.reversed is None:
                total = total + difference.square().sum() / difference.numel()
            else:
                sums = difference.square().sum(dim=(1, 2, 3))  # (B,)
                total = total + (sums * ~batch.reversed).sum() / difference.numel()
        return 0.5 * total


class Change(Loss):
    """Change loss: mean absolute difference between the swap before and after the refiner (equation 12)."""

    name = "change"

    def forward(self, batch: SwapBatch, output: SwapResult, swapper: Swapper) -> Tensor:
        """Return the loss, a scalar."""
        return (output.image - output.coarse).abs().mean()
