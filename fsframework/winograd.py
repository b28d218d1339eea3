"""Winograd's algorithm F(4x4, 3x3) for 3x3 convolutions on CPUs (Lavin and Gray, arXiv:1509.09308), in float32.

It computes 4x4 outputs with 36 products instead of 144. torch's CPU kernels do not use it, and their gradient of the
weights is slow besides. Both the transforms and the products between them are in winograd.c: torch's batched products
are MKL's, which leaves AVX-512 alone on processors by others than Intel. Against float64 the largest error is 6e-5 of
the output's standard deviation; a direct convolution in float32 has 1e-5.

Images are (B, C, H, W) in channels-last order here, float32 or bfloat16, and so is what is made of them; their channels
are as many as `KERNELS` suit. The padding is one pixel of zeros.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fsframework import native

PLACES = 36  # products for each pair of channels in a tile
TOGETHER = 252  # tiles transformed at once, at most: few enough for the cache, enough for the matrix products
ALONE = 24  # tiles that a thread takes from their pixels to the result's, in its core's own cache
SIDE = 128  # inputs and outputs whose gradient a thread adds up, in the same cache
IN_SUM = 36  # tiles that it adds at once
LIGHT = 256 * 256  # inputs times outputs up to which it does: all weights are read again for each such block
PANEL = 32  # columns that winograd.c packs together, at most
APART = 16  # numbers between the matrices of two places, without which those would fall on the same lines of the cache
KERNELS = native.Kernels(
    Path(__file__).with_name("winograd.c"),
    input_tiles=(2, 7),
    output_tiles=(3, 7),
    weight_tiles=(2, 3),
    turned_weight_tiles=(2, 3),
    products=(3, 6),
    convolve=(5, 9),
    gradients=(5, 10),
)


def tile_count(images: Tensor) -> int:
    """How many tiles of 4x4 pixels cover the images."""
    return len(images) * -(-images.shape[2] // 4) * -(-images.shape[3] // 4)


def convolve(images: Tensor, weight: Tensor, bias: Tensor | None, kept: dict[Any, Tensor] | None = None) -> Tensor:
    """The convolution (B, O, H, W) with a weight (O, C, 3, 3) and a bias (O,).

    `kept` has the transformed weight, and gets it; None: it is made each time.
    """
    inputs, outputs = weight.shape[1], weight.shape[0]
    kept = {} if kept is None else kept
    if "winograd" not in kept:
        kept["winograd"] = _transformed("weight_tiles", weight, inputs, outputs)
    return _convolve(images, kept["winograd"], outputs, bias)


def gradient_of_images(gradient: Tensor, weight: Tensor) -> Tensor:
    """(B, C, H, W), from the gradient of the output (B, O, H, W)."""
    inputs, outputs = weight.shape[1], weight.shape[0]
    return _convolve(gradient, _transformed("turned_weight_tiles", weight, outputs, inputs), inputs, None)


def gradient_of_weight(images: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """That of the weight (O, C, 3, 3) and the bias (O,), from images (B, C, H, W) and the output's (B, O, H, W)."""
    inputs, (outputs, height, width) = images.shape[1], gradient.shape[1:]
    threads, side = torch.get_num_threads(), min(SIDE, max(inputs, outputs))
    blocks = -(-inputs // side) * -(-outputs // side)
    parts = min(-(-threads // blocks), tile_count(images))  # of the tiles, so that every thread has work
    weight, bias = torch.empty(parts, outputs, 3, 3, inputs), torch.empty(parts, outputs)
    room = torch.empty(threads, PLACES, side * (2 * IN_SUM + side) + 3 * APART)
    addresses = (each.data_ptr() for each in (images, gradient, room, weight, bias))
    numbers = (tile_count(images), height, width, inputs, outputs, side, IN_SUM, parts, threads)
    KERNELS.of(inputs, outputs).gradients(*addresses, *numbers, native.is_half(images))
    return weight.sum(0).permute(0, 3, 1, 2), bias.sum(0)


class _Tiles:
    """Room for the transformed tiles of some images: 36 matrices (tiles, channels)."""

    def __init__(self, images: Tensor, channels: int) -> None:
        self.data = _places(min(TOGETHER, tile_count(images)) * channels)

    def fill(self, images: Tensor, first: int, count: int) -> None:
        """Transform tiles of the images."""
        channels, height, width = images.shape[1:]
        numbers = (self.data.shape[1], height, width, channels, first, count, native.is_half(images))
        KERNELS.of(channels).input_tiles(images.data_ptr(), self.data.data_ptr(), *numbers)

    def write(self, bias: Tensor | None, images: Tensor, first: int, count: int) -> None:
        """Turn products back into pixels of the images."""
        channels, height, width = images.shape[1:]
        shift, apart = None if bias is None else bias.data_ptr(), self.data.shape[1]
        numbers = (apart, height, width, channels, first, count, native.is_half(images))
        KERNELS.of(channels).output_tiles(self.data.data_ptr(), shift, images.data_ptr(), *numbers)


def _places(numbers: int) -> Tensor:
    """Room for so many numbers at each of the 36 places, (36, numbers and what keeps them apart)."""
    return torch.empty(PLACES, numbers + APART)


def _steps(images: Tensor) -> Iterator[tuple[int, int]]:
    """The first tile of each step, and how many it has: about as many as the others."""
    tiles = tile_count(images)
    size = -(-tiles // -(-tiles // TOGETHER))
    for first in range(0, tiles, size):
        yield first, min(size, tiles - first)


def _convolve(images: Tensor, weights: Tensor, outputs: int, bias: Tensor | None) -> Tensor:
    """Images (B, C, H, W) with transformed weights, of which each place's are (C, O): (B, O, H, W)."""
    count, inputs, height, width = images.shape
    shape = (count, outputs, height, width)
    result = torch.empty(shape, dtype=images.dtype, memory_format=torch.channels_last)
    if inputs * outputs <= LIGHT:
        threads = torch.get_num_threads()
        room = torch.empty(threads, PLACES, ALONE * (inputs + PANEL) + 2 * APART)
        shift = None if bias is None else bias.data_ptr()
        addresses = images.data_ptr(), weights.data_ptr(), shift, result.data_ptr(), room.data_ptr()
        numbers = (tile_count(images), height, width, inputs, outputs, weights.shape[1], ALONE, threads)
        KERNELS.of(inputs, outputs).convolve(*addresses, *numbers, native.is_half(images))
        return result
    before, after = _Tiles(images, inputs), _Tiles(images, outputs)
    for first, tiles in _steps(images):
        before.fill(images, first, tiles)
        _multiply((before.data, weights, after.data), (tiles, inputs, outputs))
        after.write(bias, result, first, tiles)
    return result


def _transformed(function: str, weight: Tensor, rows: int, columns: int) -> Tensor:
    """The transform of a weight (O, C, 3, 3) at each place, a packed matrix of these sides."""
    weight = weight.contiguous(memory_format=torch.channels_last)
    tiles = _places(rows * -(-columns // PANEL) * PANEL)
    transform = getattr(KERNELS.of(rows, columns), function)
    transform(weight.data_ptr(), tiles.data_ptr(), tiles.shape[1], *weight.shape[:2])
    return tiles


def _multiply(matrices: tuple[Tensor, Tensor, Tensor], shape: tuple[int, int, int]) -> None:
    """Write the products (M, N) of each place, shape being (M, K, N)."""
    addresses, strides = [each.data_ptr() for each in matrices], [each.shape[1] for each in matrices]
    KERNELS.of(shape[2]).products(*addresses, *shape, *strides)
