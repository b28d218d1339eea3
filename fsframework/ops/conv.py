"""Convolve quickly on CPUs, in float32 and under bfloat16 autocast; use torch's convolution elsewhere.

torch's forward convolution on CPUs is near the limit of a direct one. Its weight gradient is up to 12 times slower,
and on maps of few pixels it reads the weights too often. Here 3x3 convolutions use Winograd's algorithm
(`fsframework.ops.winograd`), in float32 even for bfloat16 maps. Convolutions on few pixels are one matrix product of
all patches (`fsframework.ops.im2col`). Weights in channels-last order are its other matrix without a copy.
benchmarks/README.md lists the speedup of each method.
"""

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.grad import conv2d_input

from fsframework.ops import winograd
from fsframework.ops.im2col import col2im, im2col, pixels_of
from fsframework.ops.matmul import matmul
from fsframework.ops.precision import has_bf16, without_autocast

# Ranges in which each method is the fastest, in pixels of the whole batch, measured on two cores.
WINOGRAD = 384  # fewest pixels for Winograd's algorithm: its transformed weights are four times as many numbers
WINOGRAD_BF16 = 1024  # the same for bfloat16 maps, for which the other methods are faster
WINOGRAD_WIDE = 160  # for layers above winograd.MAX_FUSED_WEIGHTS: every method rereads their weights every few pixels
WINOGRAD_WIDE_BF16 = 384
PATCHES = 1024  # most pixels for im2col: of the output of a strided convolution, of the input of a transposed one
PATCHES_BF16 = 256  # the same for bfloat16, where direct convolutions are faster for few weights
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


class ConvTranspose2d(nn.ConvTranspose2d):
    """`nn.ConvTranspose2d` with a square kernel."""

    cached: dict[Any, Tensor] | None = None  # as in `Conv2d`

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0, bias: bool = True
    ) -> None:
        super().__init__(inputs, outputs, kernel, stride=stride, padding=padding, bias=bias)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Convolve maps (B, inputs, H, W), transposed; return maps (B, outputs, H', W')."""
        arithmetic = _arithmetic(input, self.weight)
        if output_size is None and _suits_patches(input, self.weight, 1, arithmetic):
            padding = cast(tuple[int, int], self.padding)[0]
            options = _ConvOptions(self.stride[0], padding, self.cached)
            return _apply_matmul(_Spread, input, self.weight, self.bias, options, arithmetic)
        return super().forward(input, output_size)


def cache_weights(network: nn.Module, keep: bool = True) -> None:
    """Cache the transformed weights of a network's convolutions during inference.

    Winograd's algorithm transforms weights to four times as many numbers; bfloat16 products cast them. Call with `keep`
    False before the weights change or the network moves to another device.
    """
    for module in network.modules():
        if isinstance(module, Conv2d | ConvTranspose2d):
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
    if _suits_patches(images, weight, stride, arithmetic):
        return _apply_matmul(_Patches, images, weight, bias, _ConvOptions(stride, padding, cached), arithmetic)
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


def _pixels(images: Tensor, stride: int) -> int:
    """Return the number of output pixels of all images at a stride."""
    return len(images) * (images.shape[2] // stride) * (images.shape[3] // stride)


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
        if not wide and _suits_patches(images, weight, stride, arithmetic):
            return False
        threshold = WINOGRAD_WIDE_BF16 if wide else WINOGRAD_BF16
    return _pixels(images, 1) >= threshold and winograd.KERNELS.suit(outputs, inputs)


def _bf16_is_fastest() -> bool:
    """Return whether direct bfloat16 products are faster than Winograd's float32 products, a quarter as many.

    AVX-512 multiplies twice as many bfloat16 as float32 numbers at once, AMX up to eight times as many.
    """
    return torch.cpu._is_amx_tile_supported()


def _suits_patches(images: Tensor, weight: Tensor, stride: int, arithmetic: torch.dtype | None) -> bool:
    """Return whether im2col is the fastest method for a convolution."""
    limit = PATCHES
    if arithmetic == torch.bfloat16:
        # im2col avoids the passes over all weights of a direct gradient, at the cost of passes over all patches.
        limit = min(PATCHES, max(PATCHES_BF16, 2 * weight.shape[0]))
    return arithmetic is not None and _pixels(images, stride) <= limit


class _ConvOptions(NamedTuple):
    """Arguments of `_Patches` and `_Spread` besides images, weight and bias."""

    stride: int
    padding: int
    cached: dict[Any, Tensor] | None


def _apply_matmul(
    function: type[torch.autograd.Function],
    images: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    options: _ConvOptions,
    arithmetic: torch.dtype | None,
) -> Tensor:
    """Apply `_Patches` or `_Spread` in a dtype; return maps (B, O, H', W')."""
    with without_autocast(images.device):
        bias = None if bias is None else bias.to(arithmetic)
        return cast(Tensor, function.apply(images.to(arithmetic), weight, bias, options))


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


class _Patches(torch.autograd.Function):
    """Convolution as a product of patches (pixels, kernel * kernel * C) and weights."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None, options: _ConvOptions) -> Tensor:
        stride, padding, cached = options
        patches, (height, width) = im2col(images, weight.shape[2], stride, padding)
        ctx.save_for_backward(images, weight)
        ctx.how = options
        rows = matmul(patches, _matrix(weight, images, cached).T, bias)
        return _as_images(rows, (len(images), weight.shape[0], height, width))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        images, weight = ctx.saved_tensors
        stride, padding, _ = ctx.how
        rows = pixels_of(gradient)
        to_images = to_weight = to_bias = None
        if ctx.needs_input_grad[0]:
            size = gradient.shape[2], gradient.shape[3]
            to_images = col2im(
                matmul(rows, _matrix(weight, rows)), images.shape, size, weight.shape[2], stride, padding
            )
        if ctx.needs_input_grad[1]:
            patches, _ = im2col(images, weight.shape[2], stride, padding)  # recomputed: they are many times larger
            to_weight = _of_matrix(matmul(rows.T, patches), weight.shape)
        if ctx.needs_input_grad[2]:
            to_bias = rows.sum(dim=0)
        return to_images, to_weight, to_bias, None


class _Spread(torch.autograd.Function):
    """Transposed convolution: a product of pixels and weights, whose patches are summed by col2im."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None, options: _ConvOptions) -> Tensor:
        stride, padding, cached = options
        count, _, height, width = images.shape
        kernel = weight.shape[2]
        rows = pixels_of(images)
        ctx.save_for_backward(rows, weight)
        ctx.how = options
        tall, wide = ((side - 1) * stride + kernel - 2 * padding for side in (height, width))
        shape = torch.Size([count, weight.shape[1], tall, wide])
        result = col2im(matmul(rows, _matrix(weight, rows, cached)), shape, (height, width), kernel, stride, padding)
        return result if bias is None else result.add_(bias[:, None, None])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight = ctx.saved_tensors
        stride, padding, _ = ctx.how
        patches, (height, width) = im2col(gradient, weight.shape[2], stride, padding)
        to_images = to_weight = to_bias = None
        if ctx.needs_input_grad[0]:
            shape = (len(gradient), weight.shape[0], height, width)
            to_images = _as_images(matmul(patches, _matrix(weight, patches).T), shape)
        if ctx.needs_input_grad[1]:
            to_weight = _of_matrix(matmul(rows.T, patches), weight.shape)
        if ctx.needs_input_grad[2]:
            to_bias = gradient.sum(dim=(0, 2, 3))
        return to_images, to_weight, to_bias, None


def _matrix(weight: Tensor, like: Tensor, cached: dict[Any, Tensor] | None = None) -> Tensor:
    """Return a weight (O, C, kernel, kernel) as a matrix (O, kernel * kernel * C) in `like`'s dtype, channels last.

    The matrix is a view where the weight has that dtype and order. Training caches nothing and the backward pass casts
    again: cached bfloat16 weights would take a fifth of a step's memory between the passes.
    """
    if cached is None or weight.dtype == like.dtype:
        return weight.to(like.dtype).permute(0, 2, 3, 1).flatten(1)
    if like.dtype not in cached:
        cached[like.dtype] = _matrix(weight, like)
    return cached[like.dtype]


def _of_matrix(matrix: Tensor, shape: torch.Size) -> Tensor:
    """Return the weight (O, C, kernel, kernel) of a `_matrix`, in channels-last order."""
    outputs, inputs, kernel, _ = shape
    return matrix.view(outputs, kernel, kernel, inputs).permute(0, 3, 1, 2)


def _as_images(rows: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the images of a shape (B, C, H, W) from their `pixels_of` rows.

    The result is a copy, so that later operations may work in place.
    """
    count, channels, height, width = shape
    return rows.view(count, height, width, channels).permute(0, 3, 1, 2).clone()
