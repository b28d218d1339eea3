"""A loss on edges: light and colour may differ, outlines may not."""

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from fsframework import Loss, SwapBatch, Swapper, SwapResult

SOBEL = ((1.0, 0.0, -1.0), (2.0, 0.0, -2.0), (1.0, 0.0, -1.0))


class Edges(Loss):
    """Mean absolute difference of the Sobel edges of swap and target.

    Fine edges of skin and hair belong to the source as much as to the target; `blur` removes them.
    """

    name = "edges"

    class Options(Loss.Options):
        blur: int = Field(2, ge=1, le=8, description="Pixels each way that become one before edges are found.")

    options: Options
    kernels: Tensor

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        sobel = torch.tensor(SOBEL) / 8
        self.register_buffer("kernels", torch.stack([sobel, sobel.T])[:, None])  # (2, 1, 3, 3)

    def edges(self, images: Tensor) -> Tensor:
        """Return horizontal and vertical gradients (B, 2, h, w) of the grey levels of images (B, 3, S, S)."""
        grey = F.avg_pool2d(images.float().mean(dim=1, keepdim=True), self.options.blur)
        return F.conv2d(grey, self.kernels.to(grey.dtype))

    def forward(self, batch: SwapBatch, output: SwapResult, swapper: Swapper) -> Tensor:
        """Return the loss without its weight, a scalar."""
        return (self.edges(output.image) - self.edges(batch.target.image)).abs().mean()
