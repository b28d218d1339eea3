"""Down and up convolution blocks of AEI-Net and HEAR-Net, as in the public re-implementations."""

from torch import Tensor, nn
from torch.nn import functional as F

from fsframework.ops.conv import Conv2d


def down_block(inputs: int, outputs: int) -> nn.Sequential:
    """Return a block that halves the side: convolution 4x4 of stride 2, batch norm, leaky ReLU."""
    conv = Conv2d(inputs, outputs, 4, stride=2, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.LeakyReLU(0.1))


def up_block(inputs: int, outputs: int) -> nn.Sequential:
    """Return a block that doubles the side: transposed convolution 4x4 of stride 2, batch norm, leaky ReLU."""
    conv = nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.LeakyReLU(0.1))


def over_sub_pixels(weight: Tensor, side: int) -> Tensor:
    """Return a convolution's weights (O, C, H, W) for inputs after `F.pixel_unshuffle`: (O, C side^2, H, W).

    Each pixel has an equal share of the weight, so that the result is that on the averages of the squares.
    """
    return weight.repeat_interleave(side**2, dim=1) / side**2


def pixels_to_channels(images: Tensor, side: int) -> Tensor:
    """Return images (B, C, H, W) with squares of pixels as channels (B, C side^2, H / side, W / side)."""
    return images if side == 1 else F.pixel_unshuffle(images, side)  # with 1 it would copy them


def channels_to_pixels(maps: Tensor, side: int) -> Tensor:
    """Return what `pixels_to_channels` had as input."""
    return maps if side == 1 else F.pixel_shuffle(maps, side)
