"""Convolutions that are fast on CPUs too, in float32 and under bfloat16 autocast; elsewhere they are torch's own.

torch's CPU convolution is near the limit of a direct one forward, but its gradient of the weights is up to 12 times
slower, and on the few pixels of coarse maps it moves the weights too often. Here 3x3 convolutions go by Winograd's
algorithm (`fsframework.ops.winograd`), which computes in float32 even where maps are bfloat16, and those on few pixels
as one matrix product of all patches (`fsframework.ops.im2col`), to which the weights, in channels-last order, are a
matrix already. What each gains stands in benchmarks/README.md.
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

# Where each way is the fastest, in pixels of all images together, as measured on two cores.
WINOGRAD = 384  # of 3x3 convolutions; with fewer, its transformed weights, four times as many, do not pay
WINOGRAD_BF16 = 1024  # the same of maps in bfloat16, whose other ways are faster
WINOGRAD_WIDE = 160  # of layers of more than winograd.LIGHT weights, which all ways read again for every few pixels
WINOGRAD_WIDE_BF16 = 384
PATCHES = 1024  # up to which patches do: of what a halving convolution gives, or what a doubling one takes
PATCHES_BF16 = 256  # the same in bfloat16, whose direct convolutions are better where weights are few
NARROW = 32 * 32  # inputs times outputs; below it Winograd's way is used for the gradient of the weights alone
NARROW_BF16 = 64 * 64  # and of maps in bfloat16 for nothing


def scaled(channels: int, width: float) -> int:
    """A number of channels at a width, at least 8 and a multiple of 8."""
    return max(8, round(channels * width / 8) * 8)


class Conv2d(nn.Conv2d):
    """`nn.Conv2d` with a square kernel and zero padding.

    `normed` says that an instance norm follows, whatever linear operations are between: the bias, the same number in
    all pixels of a channel, is nothing to it, and GPUs spare the visit to memory that it would cost.
    """

    cached: dict[Any, Tensor] | None = None  # what is made of the weight, if `cache_weights` says that it stays

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
        """(B, inputs, H, W) to (B, outputs, H', W')."""
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
        """(B, inputs, H, W) to (B, outputs, H', W')."""
        arithmetic = _arithmetic(input, self.weight)
        if output_size is None and _suits_patches(input, self.weight, 1, arithmetic):
            padding = cast(tuple[int, int], self.padding)[0]
            how = _How(self.stride[0], padding, self.cached)
            return _by_product(_Spread, input, self.weight, self.bias, how, arithmetic)
        return super().forward(input, output_size)


def cache_weights(network: nn.Module, keep: bool = True) -> None:
    """Say that a network's weights stay as they are, so that its convolutions make what they need of them once.

    Winograd's way needs them transformed, four times as many numbers, and products in bfloat16 need them so. Whoever
    changes weights after all, or moves the network, says False before.
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
    """`F.conv2d` of images (B, C, H, W) by the fastest way: (B, O, H', W').

    `cached` has what was made of the weight before, and gets it; None: nothing is kept.
    """
    arithmetic = _arithmetic(images, weight)
    if _suits_winograd(images, weight, stride, padding, arithmetic):
        with without_autocast(images.device):
            return cast(Tensor, _Winograd.apply(images.to(arithmetic), weight, bias, cached))
    if _suits_patches(images, weight, stride, arithmetic):
        return _by_product(_Patches, images, weight, bias, _How(stride, padding, cached), arithmetic)
    return F.conv2d(images, weight, bias, stride, padding)


def _arithmetic(images: Tensor, weight: Tensor) -> torch.dtype | None:
    """float32 or bfloat16, if that is what the convolution computes in and torch's own ways are slow; else None."""
    if images.device.type != "cpu" or weight.dtype != torch.float32 or torch.compiler.is_compiling():
        return None
    if torch.is_autocast_enabled("cpu"):
        wanted = torch.get_autocast_dtype("cpu") == torch.bfloat16 and images.dtype in (torch.float32, torch.bfloat16)
        return torch.bfloat16 if wanted and has_bf16(images.device) else None
    return torch.float32 if images.dtype == torch.float32 else None


def _pixels(images: Tensor, stride: int) -> int:
    return len(images) * (images.shape[2] // stride) * (images.shape[3] // stride)


def _suits_winograd(images: Tensor, weight: Tensor, stride: int, padding: int, arithmetic: torch.dtype | None) -> bool:
    if tuple(weight.shape[2:]) != (3, 3) or stride != 1 or padding != 1 or arithmetic is None:
        return False
    if min(images.shape[2:]) < 4:  # a tile's side
        return False
    outputs, inputs = weight.shape[:2]
    wide = outputs * inputs > winograd.MAX_FUSED_WEIGHTS
    fewest = WINOGRAD_WIDE if wide else WINOGRAD
    if arithmetic == torch.bfloat16:
        if _bf16_is_fastest() or outputs * inputs < NARROW_BF16:
            return False
        if not wide and _suits_patches(images, weight, stride, arithmetic):
            return False
        fewest = WINOGRAD_WIDE_BF16 if wide else WINOGRAD_BF16
    return _pixels(images, 1) >= fewest and winograd.KERNELS.suit(outputs, inputs)


def _bf16_is_fastest() -> bool:
    """Whether all products in bfloat16 are faster than Winograd's, a quarter of them, in float32.

    By AVX-512 a processor multiplies twice as many numbers of bfloat16 as of float32, by AMX up to eight times.
    """
    return torch.cpu._is_amx_tile_supported()


def _suits_patches(images: Tensor, weight: Tensor, stride: int, arithmetic: torch.dtype | None) -> bool:
    most = PATCHES
    if arithmetic == torch.bfloat16:
        # Patches spare the passes over all weights that a direct gradient makes, and cost passes over all patches.
        most = min(PATCHES, max(PATCHES_BF16, 2 * weight.shape[0]))
    return arithmetic is not None and _pixels(images, stride) <= most


class _How(NamedTuple):
    """What `_Patches` and `_Spread` are told besides images, weight and bias."""

    stride: int
    padding: int
    cached: dict[Any, Tensor] | None


def _by_product(
    way: type[torch.autograd.Function],
    images: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    how: _How,
    arithmetic: torch.dtype | None,
) -> Tensor:
    """What `_Patches` or `_Spread` make of everything, in a precision."""
    with without_autocast(images.device):
        bias = None if bias is None else bias.to(arithmetic)
        return cast(Tensor, way.apply(images.to(arithmetic), weight, bias, how))


class _Winograd(torch.autograd.Function):
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
    """A convolution as a product of patches (pixels, kernel * kernel * C) and weights."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None, how: _How) -> Tensor:
        stride, padding, cached = how
        patches, (height, width) = im2col(images, weight.shape[2], stride, padding)
        ctx.save_for_backward(images, weight)
        ctx.how = how
        made = matmul(patches, _matrix(weight, images, cached).T, bias)
        return _as_images(made, (len(images), weight.shape[0], height, width))

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
            patches, _ = im2col(images, weight.shape[2], stride, padding)  # again: they are many times larger
            to_weight = _of_matrix(matmul(rows.T, patches), weight.shape)
        if ctx.needs_input_grad[2]:
            to_bias = rows.sum(dim=0)
        return to_images, to_weight, to_bias, None


class _Spread(torch.autograd.Function):
    """A transposed convolution as a product of pixels and weights, whose patches are added up."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None, how: _How) -> Tensor:
        stride, padding, cached = how
        count, _, height, width = images.shape
        kernel = weight.shape[2]
        rows = pixels_of(images)
        ctx.save_for_backward(rows, weight)
        ctx.how = how
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
    """(O, kernel * kernel * C) of (O, C, kernel, kernel) in the precision of another tensor, in channels-last order.

    A view where that is the weight's own. Elsewhere trainings keep nothing, and the pass back makes it again: weights
    in bfloat16 would stay from one pass to the other, beside the maps, a fifth of what a step has there.
    """
    if cached is None or weight.dtype == like.dtype:
        return weight.to(like.dtype).permute(0, 2, 3, 1).flatten(1)
    if like.dtype not in cached:
        cached[like.dtype] = _matrix(weight, like)
    return cached[like.dtype]


def _of_matrix(matrix: Tensor, shape: torch.Size) -> Tensor:
    """The weight of a `_matrix`, in channels-last order."""
    outputs, inputs, kernel, _ = shape
    return matrix.view(outputs, kernel, kernel, inputs).permute(0, 3, 1, 2)


def _as_images(rows: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Images of a shape (B, C, H, W) whose `pixels_of` are given; a copy, so that what follows may work in place."""
    count, channels, height, width = shape
    return rows.view(count, height, width, channels).permute(0, 3, 1, 2).clone()
