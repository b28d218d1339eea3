"""Generator of DeepFakes and FaceSwap-GAN: one decoder per person."""

from itertools import pairwise

import torch
from pydantic import Field
from torch import Tensor, nn

from fsf_autoencoders.blocks import SelfAttention, up
from fsframework.core.bases import ClosedSetGenerator
from fsframework.ops.conv import Conv2d, scaled

START = 8  # side of the shared encoder's output map


class PersonDecoders(ClosedSetGenerator):
    """Decoders of DeepFakes and FaceSwap-GAN, one for each person of the training data; the source selects one.

    The architecture is that of the first DeepFakes program (2017; no paper), as its successors describe it. At 64 px
    there are upsampling blocks to 256, 128 and 64 channels, then a convolution 5x5 to the image. Larger crops start
    with more upsampling blocks, of up to 512 channels. A tanh replaces the sigmoid, because images are in [-1, 1].
    """

    name = "person-decoders"

    class Options(ClosedSetGenerator.Options):
        width: float = Field(1.0, gt=0, le=2, description="Factor of the numbers of channels.")
        attention: bool = Field(
            False, description="Whether self-attention follows all upsampling blocks but the last, as in FaceSwap-GAN."
        )
        mask: bool = Field(False, description="Whether the decoder also predicts a blending mask, as in FaceSwap-GAN.")

    options: Options

    def __init__(self, options: Options, size: int, id_dim: int, att_channels: list[int]) -> None:
        super().__init__(options, size, id_dim, att_channels)
        if len(att_channels) != 1:
            raise ValueError(f"takes one attribute map, the encoder gives {len(att_channels)}; use shared-encoder")
        if size < 2 * START:
            raise ValueError(f"size {size} is too small; use {2 * START} or more")
        doublings = (size // START).bit_length() - 1
        widths = [scaled(min(64 * 2**level, 512), options.width) for level in reversed(range(doublings))]
        self.decoders = nn.ModuleList(self._decoder([att_channels[0], *widths]) for _ in range(options.people))

    def _decoder(self, widths: list[int]) -> nn.Sequential:
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers.append(up(before, after))
            if self.options.attention and len(layers) < 2 * (len(widths) - 2):
                layers.append(SelfAttention(after))
        return nn.Sequential(*layers, Conv2d(widths[-1], 4 if self.options.mask else 3, 5, padding=2))

    def forward(self, z_id: Tensor, z_att: list[Tensor]) -> Tensor:
        """Return the face by the decoder of the person nearest to each source, (B, 3, S, S); with mask (B, 4, S, S)."""
        (shared,) = z_att
        image = self.by_person(z_id, lambda person, rows: self.decoders[person](shared[rows]).float())
        if self.options.mask:
            return torch.cat([torch.tanh(image[:, :3]), torch.sigmoid(image[:, 3:])], dim=1)
        return torch.tanh(image)
