"""Convolutions whose float32 form is fast on CPUs too; everywhere else they are torch's own.

torch's CPU convolution is near the limit of a direct one forward, but its gradient of the weights is up to 12 times
slower, and on the few pixels of coarse maps it moves the weights too often. Here 3x3 convolutions go by Winograd's
algorithm (`fsframework.winograd`), and those on few pixels as one matrix product of all patches, to which the weights,
in channels-last order, are a matrix already. What each gains stands in benchmarks/README.md.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.grad import conv2d_input

from fsframework import winograd

# Where each way is the fastest, in pixels of all images together, as measured on two cores.
WINOGRAD = 384  # of 3x3 convolutions; with fewer, its transformed weights, four times as many, do not pay
PATCHES = 1024  # up to which patches do: of what a halving convolution gives, or what a doubling one takes
NARROW = 32 * 32  # inputs times outputs; below it Winograd's way is used for the gradient of the weights alone


def scaled(channels: int, width: float) -> int:
    """A number of channels at a width, at least 8 and a multiple of 8."""
    return max(8, round(channels * width / 8) * 8)


class Conv2d(nn.Conv2d):
    """`nn.Conv2d` with a square kernel and zero padding.

    `normed` says that an instance norm follows, whatever linear operations are between: the bias, the same number in
    all pixels of a channel, is nothing to it, and GPUs spare the visit to memory that it would cost.
    """

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
        stride, padding = self.stride[0], cast(tuple[int, int], self.padding)[0]
        if _on_cpu(input, self.weight):
            if _suits_winograd(input, self.weight, stride, padding):
                return cast(Tensor, _Winograd.apply(input, self.weight, self.bias))
            if _pixels(input, stride) <= PATCHES:
                return cast(Tensor, _Patches.apply(input, self.weight, self.bias, stride, padding))
        return super().forward(input)


class ConvTranspose2d(nn.ConvTranspose2d):
    """`nn.ConvTranspose2d` with a square kernel."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0, bias: bool = True
    ) -> None:
        super().__init__(inputs, outputs, kernel, stride=stride, padding=padding, bias=bias)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H', W')."""
        if output_size is None and _on_cpu(input, self.weight) and _pixels(input, 1) <= PATCHES:
            padding = cast(tuple[int, int], self.padding)[0]
            return cast(Tensor, _Spread.apply(input, self.weight, self.bias, self.stride[0], padding))
        return super().forward(input, output_size)


def _on_cpu(images: Tensor, weight: Tensor) -> bool:
    """Whether torch's own way is the slow one: float32 on a CPU."""
    if images.device.type != "cpu" or images.dtype != torch.float32 or weight.dtype != torch.float32:
        return False
    return not (torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling())


def _pixels(images: Tensor, stride: int) -> int:
    return len(images) * (images.shape[2] // stride) * (images.shape[3] // stride)


def _suits_winograd(images: Tensor, weight: Tensor, stride: int, padding: int) -> bool:
    if tuple(weight.shape[2:]) != (3, 3) or stride != 1 or padding != 1:
        return False
    whole = weight.shape[0] % winograd.LANES == 0 and weight.shape[1] % winograd.LANES == 0
    return whole and _pixels(images, 1) >= WINOGRAD and winograd.kernels() is not None


class _Winograd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        images = images.contiguous(memory_format=torch.channels_last)
        ctx.save_for_backward(images, weight)
        if weight.shape[0] * weight.shape[1] < NARROW:
            return F.conv2d(images, weight, bias, padding=1)
        return winograd.convolve(images, weight, bias)

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
        if ctx.needs_input_grad[1]:
            to_weight = winograd.gradient_of_weight(images, gradient)
        if ctx.needs_input_grad[2]:
            to_bias = gradient.sum(dim=(0, 2, 3))
        return to_images, to_weight, to_bias


class _Patches(torch.autograd.Function):
    """A convolution as a product of patches (pixels, kernel * kernel * C) and weights."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
        patches, (height, width) = _gather(images, weight.shape[2], stride, padding)
        ctx.save_for_backward(patches, weight)
        ctx.shape, ctx.stride, ctx.padding = images.shape, stride, padding
        return _product(patches, _matrix(weight).T, bias, (len(images), weight.shape[0], height, width))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        patches, weight = ctx.saved_tensors
        rows = _rows(gradient)
        to_images = to_weight = to_bias = None
        if ctx.needs_input_grad[0]:
            size = gradient.shape[2], gradient.shape[3]
            to_images = _scatter(rows @ _matrix(weight), ctx.shape, size, weight.shape[2], ctx.stride, ctx.padding)
        if ctx.needs_input_grad[1]:
            to_weight = _of_matrix(rows.T @ patches, weight.shape)
        if ctx.needs_input_grad[2]:
            to_bias = rows.sum(dim=0)
        return to_images, to_weight, to_bias, None, None


class _Spread(torch.autograd.Function):
    """A transposed convolution as a product of pixels and weights, whose patches are added up."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
        count, _, height, width = images.shape
        kernel = weight.shape[2]
        rows = _rows(images)
        ctx.save_for_backward(rows, weight)
        ctx.stride, ctx.padding = stride, padding
        tall, wide = ((side - 1) * stride + kernel - 2 * padding for side in (height, width))
        shape = torch.Size([count, weight.shape[1], tall, wide])
        result = _scatter(rows @ _matrix(weight), shape, (height, width), kernel, stride, padding)
        return result if bias is None else result.add_(bias[:, None, None])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight = ctx.saved_tensors
        patches, (height, width) = _gather(gradient, weight.shape[2], ctx.stride, ctx.padding)
        to_images = to_weight = to_bias = None
        if ctx.needs_input_grad[0]:
            shape = (len(gradient), weight.shape[0], height, width)
            to_images = _product(patches, _matrix(weight).T, None, shape)
        if ctx.needs_input_grad[1]:
            to_weight = _of_matrix(rows.T @ patches, weight.shape)
        if ctx.needs_input_grad[2]:
            to_bias = gradient.sum(dim=(0, 2, 3))
        return to_images, to_weight, to_bias, None, None


def _matrix(weight: Tensor) -> Tensor:
    """(O, kernel * kernel * C) of (O, C, kernel, kernel); a view, in channels-last order."""
    return weight.permute(0, 2, 3, 1).flatten(1)


def _of_matrix(matrix: Tensor, shape: torch.Size) -> Tensor:
    """The weight of a `_matrix`, in channels-last order."""
    outputs, inputs, kernel, _ = shape
    return matrix.view(outputs, kernel, kernel, inputs).permute(0, 3, 1, 2)


def _rows(images: Tensor) -> Tensor:
    """(B * H * W, C) of (B, C, H, W)."""
    return images.permute(0, 2, 3, 1).flatten(0, 2)


def _product(rows: Tensor, matrix: Tensor, bias: Tensor | None, shape: tuple[int, ...]) -> Tensor:
    """Images of a shape (B, C, H, W), whose `_rows` are a product plus a bias (C,). No view, so that what follows may
    work in place."""
    result = torch.empty(shape, memory_format=torch.channels_last)
    out = result.permute(0, 2, 3, 1).view(-1, shape[1])
    if bias is None:
        torch.mm(rows, matrix, out=out)
    else:
        torch.addmm(bias, rows, matrix, out=out)
    return result


def _gather(images: Tensor, kernel: int, stride: int, padding: int) -> tuple[Tensor, tuple[int, int]]:
    """All patches (B * H' * W', kernel * kernel * C) of images (B, C, H, W), and H', W'."""
    padded = F.pad(images.permute(0, 2, 3, 1), (0, 0, padding, padding, padding, padding))
    patches = padded.unfold(1, kernel, stride).unfold(2, kernel, stride)  # (B, H', W', C, kernel, kernel)
    size = patches.shape[1], patches.shape[2]
    return patches.permute(0, 1, 2, 4, 5, 3).flatten(3).flatten(0, 2), size


def _scatter(
    patches: Tensor, shape: torch.Size, size: tuple[int, int], kernel: int, stride: int, padding: int
) -> Tensor:
    """Images of a shape (B, C, H, W), each pixel the sum of what the patches (B * H' * W', ...) of `size` say."""
    count, channels, height, width = shape
    tall, wide = size
    parts = patches.view(count, tall, wide, kernel, kernel, channels)
    result = patches.new_zeros(count, height + 2 * padding, width + 2 * padding, channels)
    for row in range(kernel):
        for column in range(kernel):
            rows = slice(row, row + (tall - 1) * stride + 1, stride)
            columns = slice(column, column + (wide - 1) * stride + 1, stride)
            result[:, rows, columns] += parts[:, :, :, row, column]
    inside = result[:, padding : padding + height, padding : padding + width].permute(0, 3, 1, 2)
    return torch.empty(shape, memory_format=torch.channels_last).copy_(inside)
