"""Upsample channels-last maps bilinearly on GPUs, and gather the gradient in a fixed order."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from fsframework.ops.triton.launch import LAST, empty_last, on_device_of

NUMBERS = 2048  # output numbers that a program holds at once
WARPS = 4


@triton.jit
def between(maps, rows, columns, tall, wide, stride, valid):
    """Interpolate maps at some pixels (P,) of twice their side; return values (P, BC) in float32.

    `maps` points at the first pixel's channels (1, BC), `stride` is the distance of two pixels.
    """
    row, column = rows // 2, columns // 2
    next_row = tl.minimum(tl.maximum(row + 2 * (rows % 2) - 1, 0), tall - 1)
    next_column = tl.minimum(tl.maximum(column + 2 * (columns % 2) - 1, 0), wide - 1)
    total = tl.zeros(valid.shape, tl.float32)
    for corner in tl.static_range(4):
        y = row if corner < 2 else next_row
        x = column if corner % 2 == 0 else next_column
        weight = (0.75 if corner < 2 else 0.25) * (0.75 if corner % 2 == 0 else 0.25)
        total += weight * tl.load(maps + (y * wide + x)[:, None] * stride, mask=valid, other=0.0).to(tl.float32)
    return total


@triton.jit
def _upsample(maps, output, tall, wide, C: tl.constexpr, BC: tl.constexpr, P: tl.constexpr):
    """Upsample maps of (tall, wide) pixels to twice the side."""
    image = tl.program_id(1).to(tl.int64)
    pixels = tl.program_id(0) * P + tl.arange(0, P)
    channels = tl.program_id(2) * BC + tl.arange(0, BC)
    valid = (pixels < 4 * tall * wide)[:, None] & (channels < C)[None, :]
    rows, columns = pixels // (2 * wide), pixels % (2 * wide)
    values = between(maps + image * tall * wide * C + channels[None, :], rows, columns, tall, wide, C, valid)
    at = output + image * 4 * tall * wide * C + pixels[:, None] * C + channels[None, :]
    tl.store(at, values.to(output.dtype.element_ty), mask=valid)


@triton.jit
def _upsample_backward(gradient, output, tall, wide, C: tl.constexpr, BC: tl.constexpr, P: tl.constexpr):
    """Gather the gradient of maps of (tall, wide) pixels: 16 pixels of the output's gradient each."""
    image = tl.program_id(1).to(tl.int64)
    pixels = tl.program_id(0) * P + tl.arange(0, P)
    channels = tl.program_id(2) * BC + tl.arange(0, BC)
    valid = (pixels < tall * wide)[:, None] & (channels < C)[None, :]
    row, column = pixels // wide, pixels % wide
    start = gradient + image * 4 * tall * wide * C + channels[None, :]
    total = tl.zeros((P, BC), tl.float32)
    for dy in tl.static_range(4):
        y = tl.minimum(tl.maximum(2 * row + dy - 1, 0), 2 * tall - 1)
        for dx in tl.static_range(4):
            x = tl.minimum(tl.maximum(2 * column + dx - 1, 0), 2 * wide - 1)
            weight = (0.75 if dy == 1 or dy == 2 else 0.25) * (0.75 if dx == 1 or dx == 2 else 0.25)
            values = tl.load(start + (y * (2 * wide) + x)[:, None] * C, mask=valid, other=0.0)
            total += weight * values.to(tl.float32)
    at = output + image * tall * wide * C + pixels[:, None] * C + channels[None, :]
    tl.store(at, total.to(output.dtype.element_ty), mask=valid)


def _run(kernel, images: Tensor, output: Tensor, tall: int, wide: int) -> None:
    """Launch a kernel over all pixels, images and channels of the output."""
    channels = output.shape[1]
    block = min(triton.next_power_of_2(channels), 128)
    pixels = NUMBERS // block
    grid = (triton.cdiv(output.shape[2] * output.shape[3], pixels), len(output), triton.cdiv(channels, block))
    with on_device_of(images):
        kernel[grid](images, output, tall, wide, C=channels, BC=block, P=pixels, num_warps=WARPS)


@torch.library.custom_op("fsframework::upsample2x", mutates_args=())
def upsample2x(maps: Tensor) -> Tensor:
    """Upsample maps (B, C, H, W) bilinearly; return maps (B, C, 2H, 2W)."""
    maps = maps.contiguous(memory_format=LAST)
    _, _, tall, wide = maps.shape
    output = empty_last(maps, *maps.shape[:2], 2 * tall, 2 * wide)
    _run(_upsample, maps, output, tall, wide)
    return output


@upsample2x.register_fake
def _(maps: Tensor) -> Tensor:
    return empty_last(maps, *maps.shape[:2], 2 * maps.shape[2], 2 * maps.shape[3])


@torch.library.custom_op("fsframework::upsample2x_backward", mutates_args=())
def gathered(gradient: Tensor) -> Tensor:
    """Return the gradient (B, C, H, W) of the input of `upsample2x` from that of its output (B, C, 2H, 2W)."""
    gradient = gradient.contiguous(memory_format=LAST)
    _, _, tall, wide = gradient.shape
    output = empty_last(gradient, *gradient.shape[:2], tall // 2, wide // 2)
    _run(_upsample_backward, gradient, output, tall // 2, wide // 2)
    return output


@gathered.register_fake
def _(gradient: Tensor) -> Tensor:
    return empty_last(gradient, *gradient.shape[:2], gradient.shape[2] // 2, gradient.shape[3] // 2)


upsample2x.register_autograd(lambda ctx, gradient: gathered(gradient), setup_context=lambda ctx, inputs, output: None)
