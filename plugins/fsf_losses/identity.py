"""Identity loss: distance of swap and source in the embedding space of a frozen face recogniser."""

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from fsframework.core.components import Loss
from fsframework.core.swapper import Swapper
from fsframework.core.types import FaceBatch, SwapBatch, SwapResult


def jitter(images: Tensor, shift: float, scale: float) -> Tensor:
    """Return the images (B, C, S, S), each randomly shifted, scaled and mirrored; differentiable.

    Parameters
    ----------
    images:
        (B, C, S, S).
    shift:
        Maximum shift along each axis, in units of the side.
    scale:
        Maximum relative change of size.
    """
    count = len(images)
    move = (2 * torch.rand(count, 2, device=images.device) - 1) * 2 * shift  # the grid's side is 2
    size = 1 + (2 * torch.rand(count, device=images.device) - 1) * scale
    mirror = torch.randint(0, 2, (count,), device=images.device) * 2 - 1
    zero = torch.zeros_like(size)
    rows = [torch.stack([size * mirror, zero, move[:, 0]], dim=1), torch.stack([zero, size, move[:, 1]], dim=1)]
    grid = F.affine_grid(torch.stack(rows, dim=1), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


class Identity(Loss):
    """Identity loss: one minus the cosine of the embeddings of swap and source (FaceShifter, equation 8).

    Li et al., arXiv:1912.13457. A generator can overfit to the recogniser of this loss. Random shifts, scales and
    mirroring of the swap reduce that; the paper does without.
    """

    name = "identity"
    asks_identity = True

    class Options(Loss.Options):
        shift: float = Field(0.0, ge=0, le=0.2, description="Maximum random shift of the crop, in units of its side.")
        scale: float = Field(0.0, ge=0, le=0.5, description="Maximum random relative change of the crop's size.")

    options: Options

    def forward(self, batch: SwapBatch, output: SwapResult, swapper: Swapper) -> Tensor:
        """Return the loss, a scalar in [0, 2]."""
        image = output.image
        if self.options.shift > 0 or self.options.scale > 0:
            image = jitter(image, self.options.shift, self.options.scale)
        return (1 - F.cosine_similarity(swapper.identity(FaceBatch.of(image)).float(), output.z_id.float())).mean()
