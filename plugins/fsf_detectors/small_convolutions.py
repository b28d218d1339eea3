"""Convolutions of few channels, tile by tile: in C on CPUs (small_convolutions.c), or else in torch.

torch takes layer after layer of a whole image from memory and to it, and its convolutions are made for more channels.
Here a thread takes a tile of the image through all layers, in its core's own cache.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fsframework.ops.csrc import build

KERNELS = build.Kernels(Path(__file__).with_suffix(".c"), small_convolutions=(5, 11))
GROUP = 16  # outputs that small_convolutions.c computes at once
SIDE = 32  # of a tile, in pixels of the result


class Layer(NamedTuple):
    """What small_convolutions.c is told of a layer; outputs are filled up to whole groups."""

    kernel: int
    inputs: int
    outputs: int
    pool: int


class Packed(NamedTuple):
    """What is made of layers once. Pixels of the result are `step` of the image's apart, and see `reach` a side."""

    layers: list[Layer]
    numbers: np.ndarray  # the layers, as C reads them
    weights: Tensor
    outputs: int  # without what fills them up
    step: int
    reach: int


class SmallConvolutions(nn.Sequential):
    """Convolutions without padding, each with or without a PReLU and then a maximum pooling of stride 2.

    The pooling takes windows that the edge cuts, too (`ceil_mode`). All is torch's own until `pack` is called.
    """

    packed: Packed | None = None

    def pack(self) -> None:
        """Lay the weights out for CPUs, as they are now."""
        layers, weights = [], []
        for convolution, slope, pool in _layers(self):
            outputs, inputs, kernel, _ = convolution.weight.shape
            more = -outputs % GROUP
            layers.append(Layer(kernel, inputs, outputs + more, pool))
            bias = cast(Tensor, convolution.bias)
            rows = [convolution.weight.permute(0, 2, 3, 1).flatten(1), bias[:, None], slope[:, None]]
            filled = F.pad(torch.cat(rows, dim=1), (0, 0, 0, more))
            weights.append(filled.unflatten(0, (-1, GROUP)).transpose(1, 2).flatten())
        numbers, laid_out = np.array(layers, dtype=np.int64), torch.cat(weights).detach().float().cpu()
        self.packed = Packed(layers, numbers, laid_out, outputs, *_seen(layers))

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) to (B, O, H', W')."""
        here = images.device.type == "cpu" and images.dtype == torch.float32
        if self.packed is None or not here or images.requires_grad or not KERNELS.suit():
            made: Tensor = super().forward(images)
            return made
        layers, numbers, weights, outputs, step, reach = self.packed
        images = images.contiguous(memory_format=torch.channels_last)
        count, _, height, width = images.shape
        tall, wide, _ = _sizes(layers, height, width)
        size = _sizes(layers, *(min(side, reach + step * (SIDE - 1)) for side in (height, width)))[2]
        threads = torch.get_num_threads()
        out, room = torch.empty(count, tall, wide, layers[-1].outputs), torch.empty(threads, 2, size)
        addresses = images.data_ptr(), numbers.ctypes.data, weights.data_ptr(), room.data_ptr(), out.data_ptr()
        sides = height, width, tall, wide, len(layers), SIDE, step, reach, size, threads
        KERNELS.of().small_convolutions(*addresses, count, *sides)
        return out[..., :outputs].permute(0, 3, 1, 2)


def _layers(network: nn.Sequential) -> Iterator[tuple[nn.Conv2d, Tensor, int]]:
    """Each convolution, the slopes (O,) of what follows it, and the side of its pooling's windows, or 0."""
    modules = list(network)
    for place, module in enumerate(modules):
        if isinstance(module, nn.Conv2d):
            after = list(itertools.takewhile(lambda each: not isinstance(each, nn.Conv2d), modules[place + 1 :]))
            slopes = [each.weight for each in after if isinstance(each, nn.PReLU)]
            pools = [cast(int, each.kernel_size) for each in after if isinstance(each, nn.MaxPool2d)]
            slope = slopes[0] if slopes else torch.ones(1, device=module.weight.device)
            yield module, slope.expand(module.out_channels), pools[0] if pools else 0


def _sizes(layers: list[Layer], height: int, width: int) -> tuple[int, int, int]:
    """Of an image: height and width of what the layers make of it, and how many numbers the largest map has."""
    most = height * width * layers[0].inputs
    for layer in layers:
        height, width, row = height - layer.kernel + 1, width - layer.kernel + 1, width
        most = max(most, height * row * layer.outputs)
        if layer.pool:
            height, width = ((side - layer.pool + 1) // 2 + 1 for side in (height, width))
    return height, width, most


def _seen(layers: list[Layer]) -> tuple[int, int]:
    """`step` and `reach` of `Packed`."""
    step, reach = 1, 1
    for layer in reversed(layers):
        if layer.pool:
            step, reach = 2 * step, 2 * (reach - 1) + layer.pool
        reach += layer.kernel - 1
    return step, reach
