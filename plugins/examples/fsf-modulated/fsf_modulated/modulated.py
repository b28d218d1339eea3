"""AEI-Net's generator with another layer in place of AAD: the identity modulates the convolutions' weights."""

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from fsframework import ComponentOptions, Generator


class ModulatedLayer(nn.Module):
    """A 3x3 convolution whose weights the embedding scales, separately for each input channel and row of the batch.

    Scaled weights are normalised to unit length for each output channel, so feature maps need no normalisation
    (StyleGAN2: Karras et al., arXiv:1912.04958, equations 1 and 3). In FaceShifter's AAD (arXiv:1912.13457, equation 6)
    the embedding scales normalised maps instead, where a mask selects it.

    Parameters
    ----------
    inputs, outputs:
        Numbers of input and output channels.
    id_dim:
        Length of the embedding.
    """

    def __init__(self, inputs: int, outputs: int, id_dim: int) -> None:
        super().__init__()
        self.scale = nn.Linear(id_dim, inputs)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3) / (9 * inputs) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, h: Tensor, z_id: Tensor) -> Tensor:
        """Return (B, outputs, H, W) of maps (B, inputs, H, W) and embeddings (B, id_dim)."""
        scales = 1 + self.scale(z_id).float()  # (B, inputs)
        # Scaling the maps' channels is equivalent and allows one convolution; only the lengths need scaled weights.
        lengths = (self.weight.square().sum(dim=(2, 3)) @ scales.square().T + 1e-8).sqrt().T  # (B, outputs)
        made = F.conv2d(h * scales[..., None, None].to(h.dtype), self.weight, padding=1)
        made = made / lengths[..., None, None].to(made.dtype)
        result: Tensor = made + self.bias[:, None, None].to(made.dtype)
        return result


class ModulatedGenerator(Generator):
    """Generates the image from a learned 2x2 map; each level adds an attribute map and applies two modulated layers.

    It supports any attribute encoder whose maps double in side, or stay, from level to level.
    """

    name = "modulated-generator"
    traceable = True

    class Options(ComponentOptions):
        width: int = Field(64, ge=1, description="Channels of the finest level.")
        max_channels: int = Field(
            256, ge=1, description="Most channels of a level; coarser levels have twice as many each."
        )

    options: Options

    def __init__(self, options: Options, size: int, id_dim: int, att_channels: list[int]) -> None:
        super().__init__(options, size, id_dim, att_channels)
        levels = len(att_channels)
        widths = [min(options.width * 2**k, options.max_channels) for k in reversed(range(levels))]
        before = [widths[0], *widths[:-1]]
        self.start = nn.Parameter(torch.randn(1, widths[0], 2, 2))
        self.attributes = nn.ModuleList(nn.Conv2d(c, w, 1) for c, w in zip(att_channels, before, strict=True))
        self.first = nn.ModuleList(ModulatedLayer(i, o, id_dim) for i, o in zip(before, widths, strict=True))
        self.second = nn.ModuleList(ModulatedLayer(w, w, id_dim) for w in widths)
        self.paint = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, z_id: Tensor, z_att: Sequence[Tensor]) -> Tensor:
        """Return the image (B, 3, S, S) in [-1, 1]."""
        h = self.start.expand(len(z_id), -1, -1, -1)
        for attributes, first, second, z in zip(self.attributes, self.first, self.second, z_att, strict=True):
            h = F.interpolate(h, size=z.shape[2:], mode="bilinear") + attributes(z)
            h = F.leaky_relu(first(h, z_id), 0.2)
            h = F.leaky_relu(second(h, z_id), 0.2)
        h = F.interpolate(h, size=(self.size, self.size), mode="bilinear")
        painted: Tensor = self.paint(h).float().tanh()
        return painted
