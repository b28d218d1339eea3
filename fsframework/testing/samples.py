"""Inputs for checks: a photograph, six aligned crops of it, and small networks.

The photograph is Eileen Collins's official portrait, which scikit-image contains (NASA, public domain).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fsframework.core.components import AttributeEncoder, ComponentOptions, Generator, IdentityEncoder, Network
from fsframework.core.types import FaceBatch, SwapBatch
from fsframework.data.collate import FacePixels, collate_pairs, collate_pixels
from fsframework.data.samples import SIZE, FewFaces

DIM = 128  # length of SmallIdentity's embeddings


PAIRS = ((0, 0), (2, 1), (4, 3))  # source and target in `FewFaces`: one self pair, and two pairs of two people


def batch_of(rows: Sequence[int], size: int = SIZE) -> SwapBatch:
    """Return the given rows of `PAIRS` as a batch of crops (B, 3, size, size) on the CPU."""
    faces = FewFaces(size)
    persons = faces.persons()

    def side(indices: list[int]) -> FacePixels:
        return collate_pixels([faces[index] for index in indices], indices, persons)

    sources, targets = ([PAIRS[row][number] for row in rows] for number in (0, 1))
    return collate_pairs(side(sources), side(targets), [faces[index] for index in targets]).to_float()


class SmallIdentity(IdentityEncoder):
    """A linear identity encoder of a crop's 8x8 grey levels without their mean."""

    name = "small-identity"
    dim = DIM
    trainable = True
    match_threshold = 0.5  # embeddings of different people are orthogonal in the checks

    def __init__(self) -> None:
        super().__init__(ComponentOptions())
        self.linear = nn.Linear(64, DIM)

    def forward(self, faces: FaceBatch) -> Tensor:
        """Return embeddings (B, 128) of unit length."""
        small = F.adaptive_avg_pool2d(faces.image.mean(dim=1, keepdim=True), 8).flatten(1)
        return F.normalize(self.linear(small - small.mean(dim=1, keepdim=True)), dim=1)


class SmallAttributes(AttributeEncoder):
    """A convolutional attribute encoder with maps of an eighth, a quarter and a half of the crop's side."""

    name = "small-attributes"

    def __init__(self, size: int) -> None:
        super().__init__(ComponentOptions(), size)
        self.channels = [16, 12, 8]
        self.down = nn.ModuleList(nn.Conv2d(i, o, 4, 2, 1) for i, o in ((3, 8), (8, 12), (12, 16)))

    def forward(self, faces: FaceBatch) -> list[Tensor]:
        """Return maps (B, 16, S/8, S/8), (B, 12, S/4, S/4), (B, 8, S/2, S/2)."""
        h, maps = faces.image, []
        for layer in self.down:
            h = F.leaky_relu(layer(h), 0.1)
            maps.append(h)
        return maps[::-1]


class SmallGenerator(Generator):
    """A one-layer generator from the finest map and the embedding, with a mask."""

    name = "small-generator"

    def __init__(self, size: int, id_dim: int, att_channels: list[int]) -> None:
        super().__init__(ComponentOptions(), size, id_dim, att_channels)
        self.identity = nn.Linear(id_dim, att_channels[-1])
        self.paint = nn.Conv2d(att_channels[-1], 4, 3, padding=1)

    def forward(self, z_id: Tensor, z_att: list[Tensor]) -> Tensor:
        """Return images in [-1, 1] with a mask in [0, 1] as fourth channel: (B, 4, S, S)."""
        h = self.paint(z_att[-1] + self.identity(z_id)[..., None, None])
        h = F.interpolate(h, size=(self.size, self.size), mode="bilinear")
        return torch.cat([h[:, :3].tanh(), h[:, 3:].sigmoid()], dim=1)


def ready(network: Any) -> Any:
    """Return a network after load(), in eval mode."""
    assert isinstance(network, Network)
    network.load()
    return network.eval()
