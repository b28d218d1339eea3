"""Convolve quickly on CPUs, in float32 and under bfloat16 autocast; use torch's convolution elsewhere.

torch's forward convolution on CPUs is near the limit of a direct one. Its weight gradient is up to 12 times slower.
Here 3x3 convolutions use Winograd's algorithm (`fsframework.ops.winograd`), in float32 even for bfloat16 maps.
benchmarks/README.md lists its speedup.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.grad import conv2d_input

from fsframework.ops import winograd
from fsframework.ops.precision import has_bf16, without_autocast

# Where Winograd's algorithm is the fastest, in pixels of the whole batch, measured on two cores.
WINOGRAD = 384  # fewest pixels for Winograd's algorithm: its transformed weights are four times as many numbers
WINOGRAD_BF16 = 1024  # the same for bfloat16 maps, for which direct convolutions are faster
WINOGRAD_WIDE = 160  # for layers above winograd.MAX_FUSED_WEIGHTS: direct ones reread their weights every few pixels
WINOGRAD_WIDE_BF16 = 384
NARROW = 32 * 32  # inputs times outputs; smaller layers use Winograd's algorithm only for the weight gradient
NARROW_BF16 = 64 * 64  # the same for bfloat16 maps; smaller layers do not use it at all


def scaled(channels: int, width: float) -> int:
    """Return a number of channels scaled by a width factor: a multiple of 8, at least 8."""
    return max(8, round(channels * width / 8) * 8)


class Conv2d(nn.Conv2d):
    """`nn.Conv2d` with a square kernel and zero padding.

    `normed` means that an instance norm follows, with only linear operations in between. The norm cancels the bias,
    which is constant per channel. GPUs then skip the bias and save a pass over memory.
    """

    cached: dict[Any, Tensor] | None = None  # forms of the weight, cached by `cache_weights`

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
        normed: bool = False,
    ) -> None:
        super().__init__(inputs, outputs, kernel, stride=stride, padding=padding, bias=bias)
        self.normed = normed

    def forward(self, input: Tensor) -> Tensor:
        """Convolve maps (B, inputs, H, W); return maps (B, outputs, H', W')."""
        if self.normed and input.is_cuda:
            return F.conv2d(input, self.weight, None, self.stride, self.padding)
        padding = cast(tuple[int, int], self.padding)[0]
        return convolve(input, self.weight, self.bias, self.stride[0], padding, self.cached)


def cache_weights(network: nn.Module, keep: bool = True) -> None:
    """Cache the transformed weights of a network's convolutions during inference.

    Winograd's algorithm transforms weights to four times as many numbers. Call with `keep` False before the weights
    change or the network moves to another device.
    """
    for module in network.modules():
        if isinstance(module, Conv2d):
            module.cached = {} if keep else None


def convolve(
    images: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int = 1,
    padding: int = 0,
    cached: dict[Any, Tensor] | None = None,
) -> Tensor:
    """Convolve images (B, C, H, W) like `F.conv2d`, by the fastest method; return maps (B, O, H', W').

    `cached` stores transformed weights between calls. None disables the cache.
    """
    arithmetic = _arithmetic(images, weight)
    if _suits_winograd(images, weight, stride, padding, arithmetic):
        with without_autocast(images.device):
            return cast(Tensor, _Winograd.apply(images.to(arithmetic), weight, bias, cached))
    return F.conv2d(images, weight, bias, stride, padding)


def _arithmetic(images: Tensor, weight: Tensor) -> torch.dtype | None:
    """Return the dtype to compute in, float32 or bfloat16; None where torch's own convolution is used.

    torch's own is used on GPUs, for other dtypes and while torch compiles.
    """
    if images.device.type != "cpu" or weight.dtype != torch.float32 or torch.compiler.is_compiling():
        return None
    if torch.is_autocast_enabled("cpu"):
        is_bf16 = torch.get_autocast_dtype("cpu") == torch.bfloat16 and images.dtype in (torch.float32, torch.bfloat16)
        return torch.bfloat16 if is_bf16 and has_bf16(images.device) else None
    return torch.float32 if images.dtype == torch.float32 else None


def _suits_winograd(images: Tensor, weight: Tensor, stride: int, padding: int, arithmetic: torch.dtype | None) -> bool:
    """Return whether Winograd's algorithm is the fastest method for a convolution."""
    if tuple(weight.shape[2:]) != (3, 3) or stride != 1 or padding != 1 or arithmetic is None:
        return False
    if min(images.shape[2:]) < 4:  # a tile's side
        return False
    outputs, inputs = weight.shape[:2]
    wide = outputs * inputs > winograd.MAX_FUSED_WEIGHTS
    threshold = WINOGRAD_WIDE if wide else WINOGRAD
    if arithmetic == torch.bfloat16:
        if _bf16_is_fastest() or outputs * inputs < NARROW_BF16:
            return False
        threshold = WINOGRAD_WIDE_BF16 if wide else WINOGRAD_BF16
    pixels = len(images) * images.shape[2] * images.shape[3]
    return pixels >= threshold and winograd.KERNELS.suit(outputs, inputs)


def _bf16_is_fastest() -> bool:
    """Return whether direct bfloat16 products are faster than Winograd's float32 products, a quarter as many.

    AVX-512 multiplies twice as many bfloat16 as float32 numbers at once, AMX up to eight times as many.
    """
    return torch.cpu._is_amx_tile_supported()


class _Winograd(torch.autograd.Function):
    """3x3 convolution by Winograd's algorithm."""

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None, cached: dict[Any, Tensor] | None
    ) -> Tensor:
        images = images.contiguous(memory_format=torch.channels_last)
        ctx.save_for_backward(images, weight)
        if weight.shape[0] * weight.shape[1] < NARROW:
            return F.conv2d(images, weight, bias, padding=1)
        return winograd.convolve(images, weight, bias, cached)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        images, weight = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        to_images = to_weight = to_bias = None
        if ctx.needs_input_grad[0]:
            if weight.shape[0] * weight.shape[1] < NARROW:
                to_images = conv2d_input(images.shape, weight, gradient, padding=1)
            else:
                to_images = winograd.gradient_of_images(gradient, weight)
        if any(ctx.needs_input_grad[1:3]):
            to_weight, to_bias = winograd.gradient_of_weight(images, gradient)
        return to_images, to_weight, to_bias if ctx.needs_input_grad[2] else None, None
