"""Instance normalisation (Ulyanov et al., arXiv:1607.08022, equation 4) in two visits to memory.

On CPUs, where the number of channels allows it, it is written in instance_norm.c: in bfloat16 torch's gradient takes
ten times as long. On GPUs it is written in instance_norm_triton.py. Elsewhere it is torch's group norm with one channel
a group, which is the same and the faster of torch's kernels.
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

EPSILON = 1e-5  # added to variances, as torch does
BLOCK = 256  # pixels that instance_norm.c adds up at once
KERNELS = build.Kernels(SOURCES / "instance_norm.c", instance_norm_forward=(5, 4), instance_norm_backward=(5, 4))


def instance_norm(h: Tensor) -> Tensor:
    """Each channel of each image (B, C, H, W) with mean 0 and variance 1 over its pixels."""
    if _fits(h):
        return cast(Tensor, _InstanceNorm.apply(h))
    if launch.usable(h):
        from fsframework.ops.triton import instance_norm as instance_norm_triton

        return instance_norm_triton.instance_norm(h, EPSILON)
    with without_autocast(h.device):  # which would write it in float32, twice the bytes; sums are float32 all the same
        return F.group_norm(h, h.shape[1], eps=EPSILON)


def _fits(h: Tensor) -> bool:
    if h.device.type != "cpu" or h.dtype not in (torch.float32, torch.bfloat16) or torch.compiler.is_compiling():
        return False
    return h.shape[2] * h.shape[3] > 1 and KERNELS.suit(h.shape[1])


class _InstanceNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h: Tensor) -> Tensor:
        h = h.contiguous(memory_format=torch.channels_last)
        count, channels, height, width = h.shape
        result, scale = torch.empty_like(h), torch.empty(count, channels)
        tensors = (h, result, scale, _parts(h), torch.tensor(EPSILON))
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
        tensors = (gradient, result, scale, _parts(result), to_h)
        addresses = (value.data_ptr() for value in tensors)
        KERNELS.of(channels).instance_norm_backward(*addresses, count, height * width, channels, build.is_half(result))
        return to_h


def _parts(h: Tensor) -> Tensor:
    """Room for two sums of each block of pixels and channel."""
    return torch.empty(len(h), -(-h.shape[2] * h.shape[3] // BLOCK), 2, h.shape[1])
