"""Shared encoder of DeepFakes and FaceSwap-GAN."""

from itertools import pairwise

from pydantic import Field
from torch import Tensor, nn

from fsf_autoencoders.blocks import SelfAttention, down, up
from fsframework.core.components import AttributeEncoder, ComponentOptions
from fsframework.core.types import FaceBatch
from fsframework.ops.conv import scaled

COARSEST = 4  # side of the bottleneck's input map


class SharedEncoder(AttributeEncoder):
    """Encoder of DeepFakes and FaceSwap-GAN, shared by all people: a compact code of pose, expression and lighting.

    The architecture is that of the first DeepFakes program (2017; no paper), as its successors describe it. At 64 px
    there are four convolutions 5x5 of stride 2 to 128, 256, 512 and 1024 channels. A linear layer to 1024 dimensions,
    another back to 4x4x1024, and an upsampling block to 8x8x512 follow. Larger crops have more convolutions of stride 2
    with 1024 channels.
    """

    name = "shared-encoder"
    traceable = True

    class Options(ComponentOptions):
        width: float = Field(1.0, gt=0, le=2, description="Factor of the numbers of channels and of the bottleneck.")
        attention: bool = Field(
            False, description="Whether self-attention follows the second and third convolution, as in FaceSwap-GAN."
        )

    options: Options

    def __init__(self, options: Options, size: int) -> None:
        super().__init__(options, size)
        if size < 4 * COARSEST:
            raise ValueError(f"size {size} is too small; use {4 * COARSEST} or more")
        halvings = (size // COARSEST).bit_length() - 1
        widths = [scaled(min(128 * 2**level, 1024), options.width) for level in range(halvings)]
        layers: list[nn.Module] = []
        for number, (before, after) in enumerate(pairwise([3, *widths])):
            layers.append(down(before, after))
            if options.attention and number in (1, 2):
                layers.append(SelfAttention(after))
        self.down = nn.Sequential(*layers)
        self.deepest = widths[-1]
        numbers = scaled(1024, options.width)
        self.squeeze = nn.Linear(COARSEST * COARSEST * self.deepest, numbers)
        self.spread = nn.Linear(numbers, COARSEST * COARSEST * self.deepest)
        self.channels = [scaled(512, options.width)]
        self.up = up(self.deepest, self.channels[0])

    def forward(self, faces: FaceBatch) -> list[Tensor]:
        """Return one attribute map (B, 512 width, 8, 8)."""
        h = self.down(faces.image).flatten(1)
        h = self.spread(self.squeeze(h))
        return [self.up(h.unflatten(1, (self.deepest, COARSEST, COARSEST)))]
