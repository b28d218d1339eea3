"""HEAR-Net, the second stage of FaceShifter: restores occlusions of the target's face.

Li et al., arXiv:1912.13457, section 3.2. The heuristic error is the residual of AEI-Net's self-reconstruction of the
target: dY_t = X_t - AEI(X_t, X_t) (equation 9).
"""

from collections.abc import Mapping
from typing import Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from fsf_faceshifter.blocks import channels_to_pixels, down_block, over_sub_pixels, pixels_to_channels, up_block
from fsframework.core.components import ComponentOptions, Refiner
from fsframework.core.swapper import Swapper
from fsframework.core.types import SwapBatch, SwapResult
from fsframework.ops.conv import scaled
from fsframework.ops.upsample import upsample2x


class HearNet(Refiner):
    """U-Net on the coarse swap and the heuristic error (section 3.2): five levels down, five up.

    The paper specifies the inputs and the number of levels. The channels are those of the public re-implementations.
    The U-Net's output is the final swap, as in the paper. With `residual` it is added to the coarse swap instead, so
    that short training refines the coarse swap and need not first learn to synthesise faces.
    """

    name = "hear-net"
    traceable = True

    class Options(ComponentOptions):
        width: float = Field(1.0, gt=0, le=2, description="Factor of the numbers of channels.")
        residual: bool = Field(
            False,
            description="Whether the U-Net's output is added to the coarse swap, so that training starts from it. In "
            "the paper the output is the final image.",
        )
        error_gate: bool = Field(
            False,
            description="Whether the U-Net also predicts, for each pixel, a weight with which the heuristic error is "
            "added to its output. Occlusions are then as sharp as in the target; the U-Net alone works at half the "
            "crop's resolution.",
        )
        shuffle: Literal[1, 2] = Field(
            1,
            description="Side of the squares of pixels that are channels at the entry and the exit. With 2, the "
            "network has about the cost of half the side. A stage's `init` may be weights of that size, without it.",
        )

    options: Options

    def __init__(self, options: Options, size: int) -> None:
        super().__init__(options, size)
        a, b, c, d = (scaled(channels, options.width) for channels in (64, 128, 256, 512))
        pixels = options.shuffle**2
        self.down = nn.ModuleList(down_block(i, o) for i, o in [(6 * pixels, a), (a, b), (b, c), (c, d), (d, d)])
        self.up = nn.ModuleList(up_block(i, o) for i, o in [(d, d), (2 * d, c), (2 * c, b), (2 * b, a)])
        self.paint = nn.Conv2d(2 * a, (4 if options.error_gate else 3) * pixels, 3, padding=1)
        if options.residual:
            nn.init.zeros_(self.paint.weight)
            nn.init.zeros_(cast(Tensor, self.paint.bias))

    def forward(self, coarse: SwapResult, batch: SwapBatch, swapper: Swapper) -> Tensor:
        """Return the final swap (B, 3, S, S) in [-1, 1]."""
        target = batch.target
        self_reconstruction = swapper.coarse(SwapBatch.of(target, target), z_att=coarse.z_att).image
        error = target.image - self_reconstruction
        h = torch.cat([coarse.image, error], dim=1)  # (B, 6, S, S)
        h = pixels_to_channels(h, self.options.shuffle)
        skips = []
        for down in self.down:
            h = down(h)
            skips.append(h)
        skips.pop()
        for up in self.up:
            h = torch.cat([up(h), skips.pop()], dim=1)  # `up` doubles the side
        h = upsample2x(h)
        output = channels_to_pixels(self.paint(h).float(), self.options.shuffle)
        if self.options.error_gate:
            output = output[:, :3] + output[:, 3:] * error
        return (coarse.image + output).clamp(-1, 1) if self.options.residual else torch.tanh(output)

    def adapt_weights(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the weights of a network of half the side so that this one starts as that one on halved images."""
        adapted = dict(weights)
        entry, side = "down.0.0.weight", self.options.shuffle
        if entry in adapted and adapted[entry].shape[1] == 6:
            adapted[entry] = over_sub_pixels(adapted[entry], side)
        for name in ("paint.weight", "paint.bias"):
            if name in adapted and len(adapted[name]) in (3, 4):
                adapted[name] = adapted[name].repeat_interleave(side**2, dim=0)
        return adapted
