"""Winograd's algorithm F(4x4, 3x3) for 3x3 convolutions on CPUs (Lavin and Gray, arXiv:1509.09308), in float32.

It computes 4x4 outputs with 36 products instead of 144. torch's CPU kernels do not use it, and their gradient of the
weights is slow besides. Both the transforms and the products between them are in winograd.c: torch's batched products
are MKL's, which leaves AVX-512 alone on processors by others than Intel. Against float64 the largest error is 6e-5 of
the output's standard deviation; a direct convolution in float32 has 1e-5.

Images are (B, C, H, W) in channels-last order here, float32 or bfloat16, and so is what is made of them; their channels
are as many as `KERNELS` suit. The padding is one pixel of zeros.
"""

from typing import Any

import torch
from torch import Tensor

from fsframework.ops.csrc import build
from fsframework.ops.csrc.build import SOURCES

NUM_POINTS = 36  # products for each pair of channels in a tile
TILES_PER_THREAD = 24  # tiles that a thread takes from their pixels to the result's, in its core's own cache
MAX_FUSED_WEIGHTS = (
    256 * 256
)  # inputs times outputs up to which it does: all weights are read again for each such block
TILES_PER_BLOCK = 128  # tiles of other layers that are taken at once, at most
CHANNELS_PER_PANEL = 128  # inputs of theirs whose weights a thread transforms at once, in that cache
SIDE = 128  # inputs and outputs whose gradient a thread adds up, in that cache
IN_SUM = 36  # tiles that it adds at once
PANEL = 32  # columns that winograd.c packs together, at most
PADDING = (
    16  # numbers between the matrices of two places, without which those would fall on the same lines of the cache
)
KERNELS = build.Kernels(
    SOURCES / "winograd.c",
    weight_tiles=(2, 4),
    convolve=(5, 9),
    convolve_wide=(5, 12),
    gradients=(5, 10),
)


def tile_count(images: Tensor) -> int:
    """How many tiles of 4x4 pixels cover the images."""
    return len(images) * -(-images.shape[2] // 4) * -(-images.shape[3] // 4)


def convolve(images: Tensor, weight: Tensor, bias: Tensor | None, cached: dict[Any, Tensor] | None = None) -> Tensor:
    """The convolution (B, O, H, W) with a weight (O, C, 3, 3) and a bias (O,).

    `cached` has the transformed weight, and gets it; None: it is made each time.
    """
    if cached is not None and "winograd" not in cached:
        cached["winograd"] = _transformed(weight, transposed=False)
    return _convolve(images, weight, bias, False, None if cached is None else cached["winograd"])


def gradient_of_images(gradient: Tensor, weight: Tensor) -> Tensor:
    """(B, C, H, W), from the gradient of the output (B, O, H, W)."""
    return _convolve(gradient, weight, None, True, None)


def gradient_of_weight(images: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """That of the weight (O, C, 3, 3) and the bias (O,), from images (B, C, H, W) and the output's (B, O, H, W)."""
    inputs, (outputs, height, width) = images.shape[1], gradient.shape[1:]
    threads, side = torch.get_num_threads(), min(SIDE, -(-max(inputs, outputs) // PANEL) * PANEL)
    blocks = -(-inputs // side) * -(-outputs // side)
    parts = min(-(-threads // blocks), tile_count(images))  # of the tiles, so that every thread has work
    weight, bias = torch.empty(parts, outputs, 3, 3, inputs), torch.empty(parts, outputs)
    room = torch.empty(threads, NUM_POINTS, side * (2 * IN_SUM + side) + 3 * PADDING)
    addresses = (each.data_ptr() for each in (images, gradient, room, weight, bias))
    numbers = (tile_count(images), height, width, inputs, outputs, side, IN_SUM, parts, threads)
    KERNELS.of(inputs, outputs).gradients(*addresses, *numbers, build.is_half(images))
    weight, bias = (each[0] if parts == 1 else each.sum(0) for each in (weight, bias))
    return weight.permute(0, 3, 1, 2), bias


def _convolve(
    images: Tensor, weight: Tensor, bias: Tensor | None, transposed: bool, transformed: Tensor | None
) -> Tensor:
    """Images (B, C, H, W) with a weight, perhaps turned, or what it was transformed to: (B, O, H, W)."""
    outputs = weight.shape[int(transposed)]
    shape = (len(images), outputs, *images.shape[2:])
    result = torch.empty(shape, dtype=images.dtype, memory_format=torch.channels_last)
    way = _light if images.shape[1] * outputs <= MAX_FUSED_WEIGHTS else _wide
    way(images, weight, bias, transposed, transformed, result)
    return result


def _light(
    images: Tensor, weight: Tensor, bias: Tensor | None, transposed: bool, transformed: Tensor | None, result: Tensor
) -> None:
    weights = _transformed(weight, transposed) if transformed is None else transformed
    (_, inputs, height, width), outputs, threads = images.shape, result.shape[1], torch.get_num_threads()
    room = torch.empty(threads, NUM_POINTS, TILES_PER_THREAD * (inputs + PANEL) + 2 * PADDING)
    numbers = tile_count(images), height, width, inputs, outputs, weights.shape[1], TILES_PER_THREAD, threads
    addresses = (None if each is None else each.data_ptr() for each in (images, weights, bias, result, room))
    KERNELS.of(inputs, outputs).convolve(*addresses, *numbers, build.is_half(images))


def _wide(
    images: Tensor, weight: Tensor, bias: Tensor | None, transposed: bool, transformed: Tensor | None, result: Tensor
) -> None:
    weights, stride = (_in_order(weight), 0) if transformed is None else (transformed, transformed.shape[1])
    (_, inputs, height, width), outputs, threads = images.shape, result.shape[1], torch.get_num_threads()
    tiles = tile_count(images)
    together = -(-tiles // -(-tiles // TILES_PER_BLOCK))  # about as many each time
    parts = min(-(-threads // -(-outputs // PANEL)), together)  # of them, so that every thread has work
    own = (CHANNELS_PER_PANEL + together) * PANEL + 2 * PADDING  # of a thread
    room = torch.empty(NUM_POINTS * (together * inputs + PADDING + threads * own))
    numbers = (
        tiles,
        height,
        width,
        inputs,
        outputs,
        stride,
        int(transposed),
        together,
        CHANNELS_PER_PANEL,
        parts,
        threads,
    )
    addresses = (None if each is None else each.data_ptr() for each in (images, weights, bias, result, room))
    KERNELS.of(inputs, outputs).convolve_wide(*addresses, *numbers, build.is_half(images))


def _in_order(weight: Tensor) -> Tensor:
    """Channels last, as winograd.c takes weights."""
    return weight.contiguous(memory_format=torch.channels_last)


def _transformed(weight: Tensor, transposed: bool) -> Tensor:
    """The transform of a weight (O, C, 3, 3) at each place, panel by panel, (36, numbers and what keeps them apart)."""
    outputs, inputs = weight.shape[:2]
    rows, columns = (outputs, inputs) if transposed else (inputs, outputs)
    tiles = torch.empty(NUM_POINTS, rows * -(-columns // PANEL) * PANEL + PADDING)
    weight = _in_order(weight)
    numbers = tiles.shape[1], outputs, inputs, int(transposed)
    KERNELS.of(outputs, inputs).weight_tiles(weight.data_ptr(), tiles.data_ptr(), *numbers)
    return tiles
