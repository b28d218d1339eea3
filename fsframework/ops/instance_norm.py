"""Normalise instances (Ulyanov et al., arXiv:1607.08022, equation 4) in two passes over memory.

On CPUs csrc/instance_norm.c computes it where the number of channels allows: torch's bfloat16 gradient takes ten times
as long. On GPUs triton/instance_norm.py computes it. Elsewhere it is torch's group norm with one channel per group,
which is equivalent and the faster of torch's kernels.
"""

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from fsframework.ops.csrc import build
from fsframework.ops.csrc.build import SOURCES
from fsframework.ops.precision import without_autocast
from fsframework.ops.triton import launch

EPSILON = 1e-5  # added to variances, as in torch
BLOCK = 256  # pixels per partial sum in instance_norm.c
KERNELS = build.Kernels(SOURCES / "instance_norm.c", instance_norm_forward=(5, 4), instance_norm_backward=(5, 4))


def instance_norm(h: Tensor) -> Tensor:
    """Normalise each channel of each image (B, C, H, W) to mean 0 and variance 1; return (B, C, H, W)."""
    if _fits(h):
        return cast(Tensor, _InstanceNorm.apply(h))
    if launch.usable(h):
        from fsframework.ops.triton import instance_norm as instance_norm_triton

        return instance_norm_triton.instance_norm(h, EPSILON)
    with without_autocast(h.device):  # it would return float32; sums are float32 either way
        return F.group_norm(h, h.shape[1], eps=EPSILON)


def _fits(h: Tensor) -> bool:
    """Return whether the C kernel supports the maps."""
    if h.device.type != "cpu" or h.dtype not in (torch.float32, torch.bfloat16) or torch.compiler.is_compiling():
        return False
    return h.shape[2] * h.shape[3] > 1 and KERNELS.suit(h.shape[1])


class _InstanceNorm(torch.autograd.Function):
    """Instance norm by the C kernel."""

    @staticmethod
    def forward(ctx: Any, h: Tensor) -> Tensor:
        h = h.contiguous(memory_format=torch.channels_last)
        count, channels, height, width = h.shape
        result, scale = torch.empty_like(h), torch.empty(count, channels)
        tensors = (h, result, scale, _partial_sums(h), torch.tensor(EPSILON))
        addresses = (value.data_ptr() for value in tensors)
        KERNELS.of(channels).instance_norm_forward(*addresses, count, height * width, channels, build.is_half(h))
        ctx.save_for_backward(result, scale)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        result, scale = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        count, channels, height, width = result.shape
        to_h = torch.empty_like(result)
        tensors = (gradient, result, scale, _partial_sums(result), to_h)
        addresses = (value.data_ptr() for value in tensors)
        KERNELS.of(channels).instance_norm_backward(*addresses, count, height * width, channels, build.is_half(result))
        return to_h


def _partial_sums(h: Tensor) -> Tensor:
    """Return an empty tensor (B, blocks, 2, C) for two sums per block of pixels and channel."""
    return torch.empty(len(h), -(-h.shape[2] * h.shape[3] // BLOCK), 2, h.shape[1])
