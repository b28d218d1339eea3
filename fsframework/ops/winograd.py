"""Convolve 3x3 on CPUs by Winograd's algorithm F(4x4, 3x3) in float32 (Lavin and Gray, arXiv:1509.09308).

Winograd's algorithm computes 4x4 outputs with 36 products instead of 144. torch's CPU kernels do not use it, and their
weight gradient is slow. winograd.c holds the transforms and the matrix products between them, because MKL's batched
products do not use AVX-512 on processors of other vendors than Intel. Against float64 the largest error is 6e-5 of the
output's standard deviation; a direct convolution in float32 has 1e-5.

Images and results are (B, C, H, W) in channels-last order, float32 or bfloat16. `KERNELS` must support their numbers of
channels. The padding is one pixel of zeros.
"""

from typing import Any

import torch
from torch import Tensor

from fsframework.ops.csrc import build
from fsframework.ops.csrc.build import SOURCES

NUM_POINTS = 36  # products per pair of channels in a tile
TILES_PER_THREAD = 24  # a thread transforms, multiplies and transforms back this many tiles in its core's cache
MAX_FUSED_WEIGHTS = 256 * 256  # inputs times outputs of layers that do so; each such block rereads all weights
TILES_PER_BLOCK = 128  # most tiles per block of larger layers
CHANNELS_PER_PANEL = 128  # input channels of larger layers whose weights a thread transforms at once, in its cache
SIDE = 128  # input and output channels whose weight gradient a thread sums, in its cache
IN_SUM = 36  # tiles per partial sum of the weight gradient
PANEL = 32  # most columns that winograd.c packs together
PADDING = 16  # numbers between the matrices of two points, which otherwise would share cache lines
KERNELS = build.Kernels(
    SOURCES / "winograd.c",
    weight_tiles=(2, 4),
    convolve=(5, 9),
    convolve_wide=(5, 12),
    gradients=(5, 10),
)


def tile_count(images: Tensor) -> int:
    """Return how many tiles of 4x4 pixels cover the images."""
    return len(images) * -(-images.shape[2] // 4) * -(-images.shape[3] // 4)


def convolve(images: Tensor, weight: Tensor, bias: Tensor | None, cached: dict[Any, Tensor] | None = None) -> Tensor:
    """Convolve images (B, C, H, W) with a weight (O, C, 3, 3) and a bias (O,); return maps (B, O, H, W).

    `cached` stores the transformed weight between calls; with None each call transforms it.
    """
    if cached is not None and "winograd" not in cached:
        cached["winograd"] = _transformed(weight, transposed=False)
    return _convolve(images, weight, bias, False, None if cached is None else cached["winograd"])


def gradient_of_images(gradient: Tensor, weight: Tensor) -> Tensor:
    """Return the images' gradient (B, C, H, W) from the output's gradient (B, O, H, W)."""
    return _convolve(gradient, weight, None, True, None)


def gradient_of_weight(images: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of the weight (O, C, 3, 3) and of the bias (O,).

    They are computed from the images (B, C, H, W) and the gradient of the output (B, O, H, W).
    """
    inputs, (outputs, height, width) = images.shape[1], gradient.shape[1:]
    threads, side = torch.get_num_threads(), min(SIDE, -(-max(inputs, outputs) // PANEL) * PANEL)
    blocks = -(-inputs // side) * -(-outputs // side)
    parts = min(-(-threads // blocks), tile_count(images))  # the tiles are split, so that every thread has work
    weight, bias = torch.empty(parts, outputs, 3, 3, inputs), torch.empty(parts, outputs)
    workspace = torch.empty(threads, NUM_POINTS, side * (2 * IN_SUM + side) + 3 * PADDING)
    addresses = (tensor.data_ptr() for tensor in (images, gradient, workspace, weight, bias))
    numbers = (tile_count(images), height, width, inputs, outputs, side, IN_SUM, parts, threads)
    KERNELS.of(inputs, outputs).gradients(*addresses, *numbers, build.is_half(images))
    weight, bias = (tensor[0] if parts == 1 else tensor.sum(0) for tensor in (weight, bias))
    return weight.permute(0, 3, 1, 2), bias


def _convolve(
    images: Tensor, weight: Tensor, bias: Tensor | None, transposed: bool, transformed: Tensor | None
) -> Tensor:
    """Convolve images (B, C, H, W) with a weight, transposed or transformed if given; return (B, O, H, W)."""
    outputs = weight.shape[int(transposed)]
    shape = (len(images), outputs, *images.shape[2:])
    result = torch.empty(shape, dtype=images.dtype, memory_format=torch.channels_last)
    method = _convolve_fused if images.shape[1] * outputs <= MAX_FUSED_WEIGHTS else _convolve_blocked
    method(images, weight, bias, transposed, transformed, result)
    return result


def _convolve_fused(
    images: Tensor, weight: Tensor, bias: Tensor | None, transposed: bool, transformed: Tensor | None, result: Tensor
) -> None:
    """Convolve into `result` with a few tiles per thread from input to output."""
    weights = _transformed(weight, transposed) if transformed is None else transformed
    (_, inputs, height, width), outputs, threads = images.shape, result.shape[1], torch.get_num_threads()
    workspace = torch.empty(threads, NUM_POINTS, TILES_PER_THREAD * (inputs + PANEL) + 2 * PADDING)
    numbers = tile_count(images), height, width, inputs, outputs, weights.shape[1], TILES_PER_THREAD, threads
    addresses = (None if tensor is None else tensor.data_ptr() for tensor in (images, weights, bias, result, workspace))
    KERNELS.of(inputs, outputs).convolve(*addresses, *numbers, build.is_half(images))


def _convolve_blocked(
    images: Tensor, weight: Tensor, bias: Tensor | None, transposed: bool, transformed: Tensor | None, result: Tensor
) -> None:
    """Convolve into `result` block by block, for layers of many weights."""
    weights, stride = (_channels_last(weight), 0) if transformed is None else (transformed, transformed.shape[1])
    (_, inputs, height, width), outputs, threads = images.shape, result.shape[1], torch.get_num_threads()
    tiles = tile_count(images)
    block = -(-tiles // -(-tiles // TILES_PER_BLOCK))  # blocks of about equal size
    parts = min(-(-threads // -(-outputs // PANEL)), block)  # of a block's tiles, so that every thread has work
    per_thread = (CHANNELS_PER_PANEL + block) * PANEL + 2 * PADDING
    workspace = torch.empty(NUM_POINTS * (block * inputs + PADDING + threads * per_thread))
    numbers = (
        tiles,
        height,
        width,
        inputs,
        outputs,
        stride,
        int(transposed),
        block,
        CHANNELS_PER_PANEL,
        parts,
        threads,
    )
    addresses = (None if tensor is None else tensor.data_ptr() for tensor in (images, weights, bias, result, workspace))
    KERNELS.of(inputs, outputs).convolve_wide(*addresses, *numbers, build.is_half(images))


def _channels_last(weight: Tensor) -> Tensor:
    """Return a weight in channels-last order, as winograd.c reads it."""
    return weight.contiguous(memory_format=torch.channels_last)


def _transformed(weight: Tensor, transposed: bool) -> Tensor:
    """Return the transform (36, numbers and padding) of a weight (O, C, 3, 3), packed panel by panel."""
    outputs, inputs = weight.shape[:2]
    rows, columns = (outputs, inputs) if transposed else (inputs, outputs)
    tiles = torch.empty(NUM_POINTS, rows * -(-columns // PANEL) * PANEL + PADDING)
    weight = _channels_last(weight)
    numbers = tiles.shape[1], outputs, inputs, int(transposed)
    KERNELS.of(outputs, inputs).weight_tiles(weight.data_ptr(), tiles.data_ptr(), *numbers)
    return tiles
