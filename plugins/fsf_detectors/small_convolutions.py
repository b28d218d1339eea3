"""Fused convolutions of few channels, tile by tile: in C on CPUs (small_convolutions.c), else in torch.

torch computes layer after layer over the whole image, through main memory, and its convolutions are tuned for more
channels. Here each thread computes all layers for one tile of the image, in its core's cache.
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
GROUP = 16  # output channels per group; equals GROUP in small_convolutions.c
SIDE = 32  # side of a tile, in pixels of the output


class Layer(NamedTuple):
    """Parameters of a layer for small_convolutions.c; `outputs` is padded to a multiple of GROUP."""

    kernel: int
    inputs: int
    outputs: int
    pool: int


class Packed(NamedTuple):
    """Packed weights. Output pixels have a stride of `step` image pixels and a receptive field of side `reach`."""

    layers: list[Layer]
    numbers: np.ndarray  # the layers as int64 array for C
    weights: Tensor
    outputs: int  # channels without padding
    step: int
    reach: int


class SmallConvolutions(nn.Sequential):
    """Convolutions without padding, each optionally followed by PReLU and max pooling of stride 2 (`ceil_mode`).

    Before `pack`, all computation is torch's.
    """

    packed: Packed | None = None

    def pack(self) -> None:
        """Copy the current weights to the layout of the CPU kernel."""
        layers, weights = [], []
        for convolution, slope, pool in _layers(self):
            outputs, inputs, kernel, _ = convolution.weight.shape
            padding = -outputs % GROUP
            layers.append(Layer(kernel, inputs, outputs + padding, pool))
            bias = cast(Tensor, convolution.bias)
            rows = [convolution.weight.permute(0, 2, 3, 1).flatten(1), bias[:, None], slope[:, None]]
            padded = F.pad(torch.cat(rows, dim=1), (0, 0, 0, padding))
            weights.append(padded.unflatten(0, (-1, GROUP)).transpose(1, 2).flatten())
        numbers, packed = np.array(layers, dtype=np.int64), torch.cat(weights).detach().float().cpu()
        self.packed = Packed(layers, numbers, packed, outputs, *_receptive_field(layers))

    def forward(self, images: Tensor) -> Tensor:
        """Return the output maps (B, O, H', W') of images (B, C, H, W)."""
        on_cpu = images.device.type == "cpu" and images.dtype == torch.float32
        if self.packed is None or not on_cpu or images.requires_grad or not KERNELS.suit():
            output: Tensor = super().forward(images)
            return output
        layers, numbers, weights, outputs, step, reach = self.packed
        images = images.contiguous(memory_format=torch.channels_last)
        count, _, height, width = images.shape
        tall, wide, _ = _sizes(layers, height, width)
        size = _sizes(layers, *(min(side, reach + step * (SIDE - 1)) for side in (height, width)))[2]
        threads = torch.get_num_threads()
        out, workspace = torch.empty(count, tall, wide, layers[-1].outputs), torch.empty(threads, 2, size)
        addresses = images.data_ptr(), numbers.ctypes.data, weights.data_ptr(), workspace.data_ptr(), out.data_ptr()
        sides = height, width, tall, wide, len(layers), SIDE, step, reach, size, threads
        KERNELS.of().small_convolutions(*addresses, count, *sides)
        return out[..., :outputs].permute(0, 3, 1, 2)


def _layers(network: nn.Sequential) -> Iterator[tuple[nn.Conv2d, Tensor, int]]:
    """Yield each convolution, the slopes (O,) of its PReLU, and the window side of its pooling, or 0."""
    modules = list(network)
    for index, module in enumerate(modules):
        if isinstance(module, nn.Conv2d):
            activations = list(
                itertools.takewhile(lambda layer: not isinstance(layer, nn.Conv2d), modules[index + 1 :])
            )
            slopes = [layer.weight for layer in activations if isinstance(layer, nn.PReLU)]
            pools = [cast(int, layer.kernel_size) for layer in activations if isinstance(layer, nn.MaxPool2d)]
            slope = slopes[0] if slopes else torch.ones(1, device=module.weight.device)
            yield module, slope.expand(module.out_channels), pools[0] if pools else 0


def _sizes(layers: list[Layer], height: int, width: int) -> tuple[int, int, int]:
    """Return the output's height and width for an image of that size, and the size of the largest map in floats."""
    largest = height * width * layers[0].inputs
    for layer in layers:
        height, width, row = height - layer.kernel + 1, width - layer.kernel + 1, width
        largest = max(largest, height * row * layer.outputs)
        if layer.pool:
            height, width = ((side - layer.pool + 1) // 2 + 1 for side in (height, width))
    return height, width, largest


def _receptive_field(layers: list[Layer]) -> tuple[int, int]:
    """Return `step` and `reach` of `Packed`."""
    step, reach = 1, 1
    for layer in reversed(layers):
        if layer.pool:
            step, reach = 2 * step, 2 * (reach - 1) + layer.pool
        reach += layer.kernel - 1
    return step, reach
