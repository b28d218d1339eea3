"""Attribute encoder with a timm backbone, such as the ResNet that GHOST offers besides the U-Net."""

from itertools import pairwise

import torch
from pydantic import Field
from torch import Tensor, nn

from fsf_faceshifter.aei_net import level_count
from fsf_faceshifter.blocks import down_block, up_block
from fsframework.core.bases import timm_network
from fsframework.core.components import AttributeEncoder, ComponentOptions
from fsframework.core.errors import UserError
from fsframework.core.types import FaceBatch
from fsframework.ops.conv import scaled

STRIDE = 32  # of the coarsest feature map of the backbone


class TimmAttributes(AttributeEncoder):
    """Attribute encoder: a timm backbone and a decoder with skip connections; maps have the sides of `aei-attributes`.

    GHOST (Groshev et al., IEEE Access 2022) uses a ResNet as backbone. Weights are initialised at random. For crops
    larger than 64 px, convolutions of stride 2 follow the backbone until the coarsest map is 2x2.
    """

    name = "timm-attributes"
    traceable = True

    class Options(ComponentOptions):
        backbone: str = Field("resnet18", description="Name of the timm model; it has feature maps at strides 2 to 32.")
        width: float = Field(
            0.5, gt=0, le=2, description="Factor of the decoder's numbers of channels; 1 is the paper's."
        )

    options: Options

    def __init__(self, options: Options, size: int) -> None:
        super().__init__(options, size)
        levels = level_count(size)
        if size < 2 * STRIDE:
            raise ValueError(f"size {size} is too small; use {2 * STRIDE} or more")
        self.backbone = timm_network(options.backbone, features_only=True)
        info = self.backbone.feature_info
        if list(info.reduction()) != [2, 4, 8, 16, STRIDE]:
            raise UserError(f"backbone: {options.backbone} has no maps at strides 2, 4, 8, 16, 32; choose another")
        channels = list(info.channels())
        deepest = scaled(1024, options.width)
        extra = levels - 1 - len(channels)
        widths = [channels[-1], *[deepest] * extra]
        self.down = nn.ModuleList(down_block(before, after) for before, after in pairwise(widths))
        skips = [*channels, *widths[1:]]
        inputs, ups = skips.pop(), []
        self.channels = [inputs]
        for level, skip in enumerate(reversed(skips)):
            outputs = scaled(1024 // 2 ** max(0, level - extra), options.width)
            ups.append(up_block(inputs, outputs))
            inputs = outputs + skip
            self.channels.append(inputs)
        self.up = nn.ModuleList(ups)
        self.channels.append(inputs)

    def forward(self, faces: FaceBatch) -> list[Tensor]:
        """Return the attribute maps z_att^k (B, channels[k], 2^(k+1), 2^(k+1)), coarse to fine; the last twice."""
        skips = list(self.backbone(faces.image))
        for down in self.down:
            skips.append(down(skips[-1]))
        z_att = [skips.pop()]
        for up in self.up:
            z_att.append(torch.cat([up(z_att[-1]), skips.pop()], dim=1))
        return [*z_att, z_att[-1]]
