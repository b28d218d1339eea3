"""Winograd's algorithm F(4x4, 3x3) for 3x3 convolutions in float32 on CPUs (Lavin and Gray, arXiv:1509.09308).

It computes 4x4 outputs with 36 products instead of 144. torch's CPU kernels do not use it, and their gradient of the
weights is slow besides. The transforms are in winograd.c, the products are torch's batched matrix products. Against
float64 the largest error is 6e-5 of the output's standard deviation; a direct convolution in float32 has 1e-5.

Images are (B, C, H, W) in channels-last order here, channels a multiple of LANES; the padding is one pixel of zeros.
"""

import ctypes
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from fsframework import native

LANES = 8  # winograd.c works on so many channels at once
PLACES = 36  # products for each pair of channels in a tile
TOGETHER = 250  # tiles transformed at once: few enough for the cache, enough for the matrix products, and no power of
# two, with which the 36 places of a number would fall on the same few lines of the cache


@cache
def kernels() -> ctypes.CDLL | None:
    """The compiled transforms, or None where there are none."""
    return native.library(
        Path(__file__).with_name("winograd.c"),
        input_tiles=(2, 6),
        gradient_tiles=(2, 6),
        output_tiles=(3, 6),
        weight_tiles=(2, 3),
        weight_gradient=(2, 2),
    )


def tile_count(images: Tensor) -> int:
    """How many tiles of 4x4 pixels cover the images."""
    return len(images) * -(-images.shape[2] // 4) * -(-images.shape[3] // 4)


def convolve(images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The convolution (B, O, H, W) with a weight (O, C, 3, 3) and a bias (O,)."""
    return _convolve(images, _weight_tiles(weight, turned=False).transpose(1, 2), bias)


def gradient_of_images(gradient: Tensor, weight: Tensor) -> Tensor:
    """(B, C, H, W), from the gradient of the output (B, O, H, W)."""
    return _convolve(gradient, _weight_tiles(weight, turned=True), None)


def gradient_of_weight(images: Tensor, gradient: Tensor) -> Tensor:
    """(O, C, 3, 3), from the images (B, C, H, W) and the gradient of the output (B, O, H, W)."""
    inputs, outputs = images.shape[1], gradient.shape[1]
    before, after = _Tiles(images), _Tiles(gradient)
    total = torch.empty(PLACES, outputs, inputs)
    for first, some in _steps(images):
        before.fill("input_tiles", images, first, some)
        after.fill("gradient_tiles", gradient, first, some)
        left, right = after.matrices(some).transpose(1, 2), before.matrices(some)
        torch.baddbmm(total, left, right, beta=float(first > 0), out=total)
    weight = torch.empty(outputs, inputs, 3, 3, memory_format=torch.channels_last)
    _loaded().weight_gradient(total.data_ptr(), weight.data_ptr(), outputs, inputs)
    return weight


class _Tiles:
    """Room for the transformed tiles of some images: 36 matrices (tiles, channels)."""

    def __init__(self, images: Tensor) -> None:
        self.channels = images.shape[1]
        self.data = torch.empty(PLACES * min(TOGETHER, tile_count(images)) * self.channels)

    def matrices(self, count: int) -> Tensor:
        """The first tiles, (36, count, C), contiguous: torch multiplies others one by one."""
        return self.data[: PLACES * count * self.channels].view(PLACES, count, self.channels)

    def fill(self, function: str, images: Tensor, first: int, count: int) -> None:
        """Transform tiles of the images."""
        channels, height, width = images.shape[1:]
        transform, apart = getattr(_loaded(), function), count * channels
        transform(images.data_ptr(), self.data.data_ptr(), apart, height, width, channels, first, count)

    def write(self, bias: Tensor | None, images: Tensor, first: int, count: int) -> None:
        """Turn products back into pixels of the images."""
        channels, height, width = images.shape[1:]
        shift, apart = None if bias is None else bias.data_ptr(), count * channels
        _loaded().output_tiles(
            self.data.data_ptr(), shift, images.data_ptr(), apart, height, width, channels, first, count
        )


def _steps(images: Tensor) -> Iterator[tuple[int, int]]:
    """The first tile of each step, and how many it has."""
    tiles = tile_count(images)
    for first in range(0, tiles, TOGETHER):
        yield first, min(TOGETHER, tiles - first)


def _convolve(images: Tensor, weights: Tensor, bias: Tensor | None) -> Tensor:
    """Images (B, C, H, W) with transformed weights (36, C, O): (B, O, H, W)."""
    count, _, height, width = images.shape
    result = torch.empty(count, weights.shape[2], height, width, memory_format=torch.channels_last)
    before, after = _Tiles(images), _Tiles(result)
    for first, some in _steps(images):
        before.fill("input_tiles", images, first, some)
        torch.bmm(before.matrices(some), weights, out=after.matrices(some))
        after.write(bias, result, first, some)
    return result


def _weight_tiles(weight: Tensor, turned: bool) -> Tensor:
    """(36, O, C) of (O, C, 3, 3)."""
    outputs, inputs = weight.shape[:2]
    weight = weight.contiguous(memory_format=torch.channels_last)
    tiles = torch.empty(PLACES, outputs, inputs)
    _loaded().weight_tiles(weight.data_ptr(), tiles.data_ptr(), outputs, inputs, int(turned))
    return tiles


def _loaded() -> ctypes.CDLL:
    found = kernels()
    assert found is not None, "ask kernels() first"
    return found
