"""Reference implementation of AEI-Net's generator, directly from the equations, for tests and speed comparisons.

Li et al., arXiv:1912.13457, section 3.1, equations 2 to 6. Every AAD layer has separate convolutions and linear layers
and normalises its input. The last level's attributes are upsampled before the convolutions.
"""

from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PlainAad(nn.Module):
    """AAD layer: instance normalisation, attribute branch, identity branch, mask, blend."""

    def __init__(self, channels: int, att: int, id_dim: int) -> None:
        super().__init__()
        self.gamma_att = nn.Conv2d(att, channels, 1)
        self.beta_att = nn.Conv2d(att, channels, 1)
        self.gamma_id = nn.Linear(id_dim, channels)
        self.beta_id = nn.Linear(id_dim, channels)
        self.mask = nn.Conv2d(channels, 1, 1)

    def forward(self, h: Tensor, z_att: Tensor, z_id: Tensor) -> Tensor:
        """Return the modulated map (B, channels, H, W)."""
        h = F.instance_norm(h)  # equation 2
        a = self.gamma_att(z_att) * h + self.beta_att(z_att)  # equation 3
        i = self.gamma_id(z_id)[..., None, None] * h + self.beta_id(z_id)[..., None, None]  # equation 4
        m = torch.sigmoid(self.mask(h))  # equation 5
        return (1 - m) * a + m * i  # equation 6


class PlainBlock(nn.Module):
    """AAD ResBlk: twice AAD, ReLU and convolution; once on the shortcut if the number of channels changes."""

    def __init__(self, inputs: int, outputs: int, att: int, id_dim: int) -> None:
        super().__init__()
        layers = 2 if inputs == outputs else 3
        self.aad = nn.ModuleList(PlainAad(inputs, att, id_dim) for _ in range(layers))
        self.conv = nn.ModuleList(nn.Conv2d(inputs, o, 3, padding=1) for o in [inputs, outputs, outputs][:layers])

    def forward(self, h: Tensor, z_att: Tensor, z_id: Tensor) -> Tensor:
        """Return the block's output (B, outputs, H, W) for `h` (B, inputs, H, W)."""
        a = self.conv[0](F.relu(self.aad[0](h, z_att, z_id)))
        a = self.conv[1](F.relu(self.aad[1](a, z_att, z_id)))
        if len(self.aad) == 3:
            h = self.conv[2](F.relu(self.aad[2](h, z_att, z_id)))
        return a + h


class PlainGenerator(nn.Module):
    """Reference generator with the weights of an optimised one (`aad-generator`), split by layer."""

    def __init__(self, fast: Any) -> None:
        super().__init__()
        start, blocks, affine = fast.start, fast.blocks, fast.affine
        id_dim = affine.in_features
        self.start = nn.ConvTranspose2d(id_dim, start.out_channels, 2)
        self.start.load_state_dict(start.state_dict())
        plain_blocks, row = [], 0
        for block in blocks:
            rows = slice(row, row + block.affine_channels)
            plain_blocks.append(_plain_block(block, affine.weight[rows], affine.bias[rows], id_dim))
            row = rows.stop
        self.blocks = nn.ModuleList(plain_blocks)

    def forward(self, z_id: Tensor, z_att: list[Tensor]) -> Tensor:
        """Return the swap (B, 3, S, S) in [-1, 1]."""
        h = self.start(z_id[..., None, None])
        for k, (block, z) in enumerate(zip(self.blocks, z_att, strict=True)):
            if k > 0:
                h = F.interpolate(h, scale_factor=2.0, mode="bilinear")
            if z.shape[-1] < h.shape[-1]:
                z = F.interpolate(z, scale_factor=2.0, mode="bilinear")
            h = block(h, z, z_id)
        return torch.tanh(h)


@torch.no_grad()
def _plain_block(fast: Any, id_weight: Tensor, id_bias: Tensor, id_dim: int) -> PlainBlock:
    conv_in, conv_mid, shortcut, att = fast.conv_in, fast.conv_mid, fast.shortcut, fast.att
    block = PlainBlock(conv_in.in_channels, conv_mid.out_channels, att.in_channels, id_dim)
    for plain, conv in zip(block.conv, [conv_in, conv_mid, shortcut], strict=False):
        plain.load_state_dict(conv.state_dict())
    masks = [(fast.mask_in, 0), (fast.mask_mid, 0), (fast.mask_in, 1)]
    channels = 2 * len(block.aad)
    pieces = zip(
        att.weight.chunk(channels),
        att.bias.chunk(channels),
        id_weight.chunk(channels),
        id_bias.chunk(channels),
        strict=True,
    )
    layers = list(pieces)  # gamma and beta of each layer in turn
    for number, aad in enumerate(cast(Iterable[PlainAad], block.aad)):
        gamma, beta = layers[2 * number], layers[2 * number + 1]
        for values, to_att, to_id in ((gamma, aad.gamma_att, aad.gamma_id), (beta, aad.beta_att, aad.beta_id)):
            parameters = [*to_att.parameters(), *to_id.parameters()]  # weight and bias of each
            for value, parameter in zip(values, parameters, strict=True):
                parameter.copy_(value)
        mask, row = masks[number]
        for value, parameter in zip((mask.weight, mask.bias), aad.mask.parameters(), strict=True):
            parameter.copy_(value[row : row + 1])
    return block


def plain_layers(network: nn.Module) -> nn.Module:
    """Return the network with torch's convolutions and norms in place of the optimised subclasses, changed in place."""
    for module in network.modules():
        for kind in (nn.Conv2d, nn.ConvTranspose2d, nn.GroupNorm):
            if isinstance(module, kind):
                module.__class__ = kind
    return network
