"""A refiner that corrects the coarse swap from the target."""

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from fsframework import ComponentOptions, Refiner, SwapBatch, Swapper, SwapResult


class TemplateRefiner(Refiner):
    """Adds a correction to the coarse swap, by three convolutions of it and the target; zero at initialisation."""

    name = "template-refiner"
    traceable = True

    class Options(ComponentOptions):
        width: int = Field(32, ge=1, description="Channels between the convolutions.")

    options: Options

    def __init__(self, options: Options, size: int) -> None:
        super().__init__(options, size)
        self.first = nn.Conv2d(6, options.width, 3, padding=1)
        self.middle = nn.Conv2d(options.width, options.width, 3, padding=1)
        self.last = nn.Conv2d(options.width, 3, 3, padding=1)
        for value in self.last.parameters():
            nn.init.zeros_(value)

    def forward(self, coarse: SwapResult, batch: SwapBatch, swapper: Swapper) -> Tensor:
        """Return the refined image (B, 3, S, S) in [-1, 1]."""
        h = torch.cat([coarse.image, batch.target.image], dim=1)
        h = F.leaky_relu(self.first(h), 0.1)
        h = F.leaky_relu(self.middle(h), 0.1)
        correction: Tensor = self.last(h).float()
        return (coarse.image + correction).clamp(-1, 1)
