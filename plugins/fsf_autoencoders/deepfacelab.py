"""DeepFaceLab's autoencoders, DF and LIAE. Perov et al., arXiv:2005.05535, section 3.2.

The paper shows the two structures. The layers are those of the public program's SAEHD model: four convolutions of
stride 2, a bottleneck of two linear layers (the "inter"), and a decoder of three upsampling blocks. A residual block
follows each of them, and the mask has a separate branch.
"""

from itertools import pairwise
from typing import cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from fsf_autoencoders.blocks import down, up
from fsframework.core.bases import ClosedSetGenerator
from fsframework.core.components import AttributeEncoder, ComponentOptions
from fsframework.core.types import FaceBatch
from fsframework.ops.conv import Conv2d, scaled

FACTOR = 16  # downsampling factor of the encoder
BOTTLENECK, MASK = 256, 22  # dimensions of the bottleneck, and base channels of the mask branch, at width 1


class Residual(nn.Module):
    """Residual block of two convolutions 3x3 with leaky ReLUs."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.one, self.two = (Conv2d(channels, channels, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x + self.two(F.leaky_relu(self.one(x), 0.2)), 0.2)


class Inter(nn.Module):
    """Bottleneck ("inter"): linear layers to few dimensions and back, then an upsampling block."""

    def __init__(self, channels: int, side: int, numbers: int, outputs: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels * side * side, numbers)
        self.spread = nn.Linear(numbers, outputs * side * side)
        self.shape = (outputs, side, side)
        self.up = up(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return the code (B, outputs, 2 side, 2 side) of a map (B, channels, side, side)."""
        return cast(Tensor, self.up(self.spread(self.squeeze(x.flatten(1))).unflatten(1, self.shape)))


class Decoder(nn.Module):
    """Decoder with separate branches for the face and its mask."""

    def __init__(self, inputs: int, width: float) -> None:
        super().__init__()
        widths = [inputs, *(scaled(64 * factor, width) for factor in (8, 4, 2))]
        blocks = ((up(before, after), Residual(after)) for before, after in pairwise(widths))
        self.face = nn.Sequential(*(layer for block in blocks for layer in block), nn.Conv2d(widths[-1], 3, 1))
        widths = [inputs, *(scaled(MASK * factor, width) for factor in (8, 4, 2))]
        ups = (up(before, after) for before, after in pairwise(widths))
        self.mask = nn.Sequential(*ups, nn.Conv2d(widths[-1], 1, 1))

    def forward(self, code: Tensor) -> Tensor:
        """Return face and mask (B, 4, S, S): RGB in [-1, 1], mask in [0, 1]."""
        return torch.cat([torch.tanh(self.face(code).float()), torch.sigmoid(self.mask(code).float())], dim=1)


class DflEncoder(AttributeEncoder):
    """Encoder of DeepFaceLab: four convolutions 5x5 of stride 2 to 64, 128, 256 and 512 channels."""

    name = "dfl-encoder"
    traceable = True

    class Options(ComponentOptions):
        width: float = Field(1.0, gt=0, le=2, description="Factor of the numbers of channels.")

    options: Options

    def __init__(self, options: Options, size: int) -> None:
        super().__init__(options, size)
        widths = [scaled(64 * 2**level, options.width) for level in range(4)]
        self.down = nn.Sequential(*(down(before, after) for before, after in pairwise([3, *widths])))
        self.channels = [widths[-1]]

    def forward(self, faces: FaceBatch) -> list[Tensor]:
        """Return one attribute map (B, 512 width, S / 16, S / 16)."""
        return [self.down(faces.image)]


class _Dfl(ClosedSetGenerator):
    """Base class of DF and LIAE."""

    class Options(ClosedSetGenerator.Options):
        width: float = Field(1.0, gt=0, le=2, description="Factor of the numbers of channels and of the bottleneck.")

    options: Options

    def __init__(self, options: Options, size: int, id_dim: int, att_channels: list[int]) -> None:
        super().__init__(options, size, id_dim, att_channels)
        if len(att_channels) != 1:
            raise ValueError(f"takes one attribute map, the encoder gives {len(att_channels)}; use dfl-encoder")

    def inter(self, inputs: int) -> Inter:
        """Return a bottleneck for maps of `inputs` channels."""
        numbers = scaled(BOTTLENECK, self.options.width)
        return Inter(inputs, self.size // FACTOR, numbers, numbers)


class DflDf(_Dfl):
    """DeepFaceLab's DF: a shared bottleneck, one decoder per person (section 3.2, figure 3)."""

    name = "dfl-df"

    def __init__(self, options: _Dfl.Options, size: int, id_dim: int, att_channels: list[int]) -> None:
        super().__init__(options, size, id_dim, att_channels)
        self.shared = self.inter(att_channels[0])
        inputs = self.shared.shape[0]
        self.decoders = nn.ModuleList(Decoder(inputs, options.width) for _ in range(options.people))

    def forward(self, z_id: Tensor, z_att: list[Tensor]) -> Tensor:
        """Return face and mask of the person nearest to each source, (B, 4, S, S)."""
        code = self.shared(z_att[0])
        return self.by_person(z_id, lambda person, rows: self.decoders[person](code[rows]))


class DflLiae(_Dfl):
    """DeepFaceLab's LIAE: a shared decoder, person-specific bottlenecks (section 3.2, figure 3).

    The decoder's input is the concatenation of a person's code and the common code. The paper has two people, one of
    whom uses the common code twice. Here this is the first person; every other person has a separate bottleneck.
    """

    name = "dfl-liae"

    def __init__(self, options: _Dfl.Options, size: int, id_dim: int, att_channels: list[int]) -> None:
        super().__init__(options, size, id_dim, att_channels)
        self.common = self.inter(att_channels[0])
        self.own = nn.ModuleList(self.inter(att_channels[0]) for _ in range(options.people - 1))
        self.decoder = Decoder(2 * self.common.shape[0], options.width)

    def forward(self, z_id: Tensor, z_att: list[Tensor]) -> Tensor:
        """Return face and mask of the person nearest to each source, (B, 4, S, S)."""
        (shared,) = z_att
        common = self.common(shared)
        own = self.by_person(z_id, lambda person, rows: self.own[person - 1](shared[rows]) if person else common[rows])
        return cast(Tensor, self.decoder(torch.cat([own, common], dim=1)))
