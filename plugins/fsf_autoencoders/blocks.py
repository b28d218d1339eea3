"""Building blocks of encoders and decoders."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fsframework.ops.conv import Conv2d

SLOPE = 0.1  # negative slope of leaky ReLUs


def down(inputs: int, outputs: int) -> nn.Sequential:
    """Return a block that halves the side: convolution 5x5 of stride 2, leaky ReLU."""
    return nn.Sequential(Conv2d(inputs, outputs, 5, stride=2, padding=2), nn.LeakyReLU(SLOPE))


def up(inputs: int, outputs: int) -> nn.Sequential:
    """Return a block that doubles the side: convolution 3x3 to four times the channels, leaky ReLU, pixel shuffle."""
    return nn.Sequential(Conv2d(inputs, 4 * outputs, 3, padding=1), nn.LeakyReLU(SLOPE), nn.PixelShuffle(2))


class SelfAttention(nn.Module):
    """Self-attention over all pixels: x + gamma * attention(x), gamma from 0 (SAGAN, arXiv:1805.08318, section 3)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query, self.key = (nn.Conv2d(channels, channels // 8, 1) for _ in range(2))
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Return the map (B, C, H, W), with the shape of the input."""
        query, key, value = (layer(x).flatten(2).transpose(1, 2) for layer in (self.query, self.key, self.value))
        attended = F.scaled_dot_product_attention(query, key, value, scale=1.0)  # (B, HW, C); SAGAN does not scale
        return x + self.gamma * attended.transpose(1, 2).reshape(x.shape)
