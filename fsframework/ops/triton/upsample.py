"""Bilinear doubling of maps in channels-last order on GPUs, and its gradient, gathered in a fixed order."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from fsframework.ops.triton.launch import LAST, empty_last, on_device_of

NUMBERS = 2048  # of the result that a program holds at once
WARPS = 4


@triton.jit
def between(maps, rows, columns, tall, wide, stride, seen):
    """Maps at some pixels (P,) of twice their side, (P, BC) float32.

    `maps` points at the first pixel's channels (1, BC), `stride` is the distance of two pixels.
    """
    row, column = rows // 2, columns // 2
    next_row = tl.minimum(tl.maximum(row + 2 * (rows % 2) - 1, 0), tall - 1)
    next_column = tl.minimum(tl.maximum(column + 2 * (columns % 2) - 1, 0), wide - 1)
    total = tl.zeros(seen.shape, tl.float32)
    for place in tl.static_range(4):
        y = row if place < 2 else next_row
        x = column if place % 2 == 0 else next_column
        share = (0.75 if place < 2 else 0.25) * (0.75 if place % 2 == 0 else 0.25)
        total += share * tl.load(maps + (y * wide + x)[:, None] * stride, mask=seen, other=0.0).to(tl.float32)
    return total


@triton.jit
def _double(maps, made, tall, wide, C: tl.constexpr, BC: tl.constexpr, P: tl.constexpr):
    """Maps of (tall, wide) pixels to twice the side."""
    image = tl.program_id(1).to(tl.int64)
    pixels = tl.program_id(0) * P + tl.arange(0, P)
    channels = tl.program_id(2) * BC + tl.arange(0, BC)
    seen = (pixels < 4 * tall * wide)[:, None] & (channels < C)[None, :]
    rows, columns = pixels // (2 * wide), pixels % (2 * wide)
    values = between(maps + image * tall * wide * C + channels[None, :], rows, columns, tall, wide, C, seen)
    at = made + image * 4 * tall * wide * C + pixels[:, None] * C + channels[None, :]
    tl.store(at, values.to(made.dtype.element_ty), mask=seen)


@triton.jit
def _gather(gradient, made, tall, wide, C: tl.constexpr, BC: tl.constexpr, P: tl.constexpr):
    """The gradient of maps of (tall, wide) pixels from that of twice the side: sixteen pixels each."""
    image = tl.program_id(1).to(tl.int64)
    pixels = tl.program_id(0) * P + tl.arange(0, P)
    channels = tl.program_id(2) * BC + tl.arange(0, BC)
    seen = (pixels < tall * wide)[:, None] & (channels < C)[None, :]
    row, column = pixels // wide, pixels % wide
    start = gradient + image * 4 * tall * wide * C + channels[None, :]
    total = tl.zeros((P, BC), tl.float32)
    for dy in tl.static_range(4):
        y = tl.minimum(tl.maximum(2 * row + dy - 1, 0), 2 * tall - 1)
        for dx in tl.static_range(4):
            x = tl.minimum(tl.maximum(2 * column + dx - 1, 0), 2 * wide - 1)
            share = (0.75 if dy == 1 or dy == 2 else 0.25) * (0.75 if dx == 1 or dx == 2 else 0.25)
            values = tl.load(start + (y * (2 * wide) + x)[:, None] * C, mask=seen, other=0.0)
            total += share * values.to(tl.float32)
    at = made + image * tall * wide * C + pixels[:, None] * C + channels[None, :]
    tl.store(at, total.to(made.dtype.element_ty), mask=seen)


def _run(kernel, images: Tensor, made: Tensor, tall: int, wide: int) -> None:
    channels = made.shape[1]
    block = min(triton.next_power_of_2(channels), 128)
    pixels = NUMBERS // block
    grid = (triton.cdiv(made.shape[2] * made.shape[3], pixels), len(made), triton.cdiv(channels, block))
    with on_device_of(images):
        kernel[grid](images, made, tall, wide, C=channels, BC=block, P=pixels, num_warps=WARPS)


@torch.library.custom_op("fsframework::doubled", mutates_args=())
def upsample2x(maps: Tensor) -> Tensor:
    """Maps (B, C, H, W) to (B, C, 2H, 2W)."""
    maps = maps.contiguous(memory_format=LAST)
    _, _, tall, wide = maps.shape
    made = empty_last(maps, *maps.shape[:2], 2 * tall, 2 * wide)
    _run(_double, maps, made, tall, wide)
    return made


@upsample2x.register_fake
def _(maps: Tensor) -> Tensor:
    return empty_last(maps, *maps.shape[:2], 2 * maps.shape[2], 2 * maps.shape[3])


@torch.library.custom_op("fsframework::gathered", mutates_args=())
def gathered(gradient: Tensor) -> Tensor:
    """The gradient of `upsample2x`: (B, C, 2H, 2W) to (B, C, H, W)."""
    gradient = gradient.contiguous(memory_format=LAST)
    _, _, tall, wide = gradient.shape
    made = empty_last(gradient, *gradient.shape[:2], tall // 2, wide // 2)
    _run(_gather, gradient, made, tall // 2, wide // 2)
    return made


@gathered.register_fake
def _(gradient: Tensor) -> Tensor:
    return empty_last(gradient, *gradient.shape[:2], gradient.shape[2] // 2, gradient.shape[3] // 2)


upsample2x.register_autograd(lambda ctx, gradient: gathered(gradient), setup_context=lambda ctx, inputs, output: None)
