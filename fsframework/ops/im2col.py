"""Unfold images into matrices of patches and fold them back: in C (csrc/im2col.c), else in torch.

Images are (B, C, H, W), float32 or bfloat16, on a CPU. A kernel of side K has H' x W' patches per image, each of
K * K * C numbers, channels last; `size` is (H', W').
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from fsframework.ops.csrc import build
from fsframework.ops.csrc.build import SOURCES

KERNELS = build.Kernels(SOURCES / "im2col.c", im2col=(2, 10), col2im=(2, 10))


def pixels_of(images: Tensor) -> Tensor:
    """Return the pixels of images (B, C, H, W) as rows (B * H * W, C)."""
    return images.permute(0, 2, 3, 1).flatten(0, 2)


def im2col(images: Tensor, kernel: int, stride: int, padding: int) -> tuple[Tensor, tuple[int, int]]:
    """Return all patches (B * H' * W', K * K * C) of images (B, C, H, W), and their size (H', W')."""
    count, channels, height, width = images.shape
    size = ((height + 2 * padding - kernel) // stride + 1, (width + 2 * padding - kernel) // stride + 1)
    if kernel == stride == 1 and padding == 0:
        return pixels_of(images), size
    if not KERNELS.suit():
        return _im2col(images, kernel, stride, padding), size
    images = images.contiguous(memory_format=torch.channels_last)
    patches = images.new_empty(count * size[0] * size[1], kernel * kernel * channels)
    numbers = (count, height, width, channels, *size, kernel, stride, padding, build.is_half(images))
    KERNELS.of().im2col(images.data_ptr(), patches.data_ptr(), *numbers)
    return patches, size


def col2im(patches: Tensor, shape: torch.Size, size: tuple[int, int], kernel: int, stride: int, padding: int) -> Tensor:
    """Sum overlapping patches (B * H' * W', K * K * C) into images of a shape (B, C, H, W); return the images.

    Sums are float32.
    """
    count, channels, height, width = shape
    if kernel == stride == 1 and padding == 0:
        return patches.view(count, height, width, channels).permute(0, 3, 1, 2).clone()  # a copy, as below
    if not KERNELS.suit(channels):
        return _col2im(patches, shape, size, kernel, stride, padding)
    patches = patches.contiguous()
    images = torch.empty(shape, dtype=patches.dtype, memory_format=torch.channels_last)
    numbers = (count, height, width, channels, *size, kernel, stride, padding, build.is_half(images))
    KERNELS.of(channels).col2im(patches.data_ptr(), images.data_ptr(), *numbers)
    return images


def _im2col(images: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    padded = F.pad(images.permute(0, 2, 3, 1), (0, 0, padding, padding, padding, padding))
    patches = padded.unfold(1, kernel, stride).unfold(2, kernel, stride)  # (B, H', W', C, K, K)
    return patches.permute(0, 1, 2, 4, 5, 3).flatten(3).flatten(0, 2)


def _col2im(
    patches: Tensor, shape: torch.Size, size: tuple[int, int], kernel: int, stride: int, padding: int
) -> Tensor:
    count, channels, height, width = shape
    tall, wide = size
    parts = patches.view(count, tall, wide, kernel, kernel, channels)
    result = torch.zeros(count, height + 2 * padding, width + 2 * padding, channels)
    for row in range(kernel):
        for column in range(kernel):
            down = slice(row, row + (tall - 1) * stride + 1, stride)
            across = slice(column, column + (wide - 1) * stride + 1, stride)
            result[:, down, across] += parts[:, :, :, row, column]
    inside = result[:, padding : padding + height, padding : padding + width].permute(0, 3, 1, 2)
    return torch.empty(shape, dtype=patches.dtype, memory_format=torch.channels_last).copy_(inside)
