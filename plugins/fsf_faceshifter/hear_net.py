"""HEAR-Net, the second stage of FaceShifter: restores what lies in front of the target's face.

Li et al., arXiv:1912.13457, section 3.2. The heuristic error is what AEI-Net cannot paint when it swaps the target
onto itself: dY_t = X_t - AEI(X_t, X_t) (equation 9).
"""

from typing import cast

import torch
from pydantic import Field
from torch import Tensor, nn

from fsf_faceshifter.blocks import down_block, up_block
from fsframework.core.components import ComponentOptions, Refiner
from fsframework.core.swapper import Swapper
from fsframework.core.types import SwapBatch, SwapResult
from fsframework.ops.conv import scaled
from fsframework.ops.upsample import upsample2x


class HearNet(Refiner):
    """U-Net on the coarse swap and the heuristic error (section 3.2): five levels down, five up.

    The paper gives the inputs and the number of levels; the channels are those of the public re-implementations. The
    output is the image, as in the paper, or with `residual` what is added to the coarse swap: a short training then
    refines the coarse swap instead of learning first to paint faces.
    """

    name = "hear-net"
    traceable = True

    class Options(ComponentOptions):
        width: float = Field(1.0, gt=0, le=2, description="Factor of the numbers of channels.")
        residual: bool = Field(
            False,
            description="Whether the U-Net's output is added to the coarse swap, where training then starts, instead "
            "of being the image itself, as in the paper.",
        )
        error_gate: bool = Field(
            False,
            description="Whether the U-Net also says, pixel by pixel, how much of the heuristic error is added as it "
            "is: what lies in front of a face is then as sharp as in the target, where the U-Net alone paints at half "
            "the crop's side.",
        )

    options: Options

    def __init__(self, options: Options, size: int) -> None:
        super().__init__(options, size)
        a, b, c, d = (scaled(channels, options.width) for channels in (64, 128, 256, 512))
        self.down = nn.ModuleList(down_block(i, o) for i, o in [(6, a), (a, b), (b, c), (c, d), (d, d)])
        self.up = nn.ModuleList(up_block(i, o) for i, o in [(d, d), (2 * d, c), (2 * c, b), (2 * b, a)])
        self.paint = nn.Conv2d(2 * a, 4 if options.error_gate else 3, 3, padding=1)
        if options.residual:
            nn.init.zeros_(self.paint.weight)
            nn.init.zeros_(cast(Tensor, self.paint.bias))

    def forward(self, coarse: SwapResult, batch: SwapBatch, swapper: Swapper) -> Tensor:
        """The swap (B, 3, S, S) in [-1, 1]."""
        target = batch.target
        itself = swapper.coarse(SwapBatch.of(target, target), z_att=coarse.z_att).image
        error = target.image - itself
        h = torch.cat([coarse.image, error], dim=1)  # (B, 6, S, S)
        skips = []
        for down in self.down:
            h = down(h)
            skips.append(h)
        skips.pop()
        for up in self.up:
            h = torch.cat([up(h), skips.pop()], dim=1)  # twice the side
        h = upsample2x(h)
        painted = self.paint(h).float()
        if self.options.error_gate:
            painted = painted[:, :3] + painted[:, 3:] * error
        return (coarse.image + painted).clamp(-1, 1) if self.options.residual else torch.tanh(painted)
