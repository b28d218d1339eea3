"""Down and up convolution blocks of AEI-Net and HEAR-Net, as in the public re-implementations."""

from torch import nn

from fsframework.ops.conv import Conv2d, ConvTranspose2d


def down_block(inputs: int, outputs: int) -> nn.Sequential:
    """Return a block that halves the side: convolution 4x4 of stride 2, batch norm, leaky ReLU."""
    conv = Conv2d(inputs, outputs, 4, stride=2, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.LeakyReLU(0.1))


def up_block(inputs: int, outputs: int) -> nn.Sequential:
    """Return a block that doubles the side: transposed convolution 4x4 of stride 2, batch norm, leaky ReLU."""
    conv = ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.LeakyReLU(0.1))
