"""Normalise instances on GPUs in channels-last order, without the copies of torch's kernels."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from fsframework.ops.triton.launch import LAST, on_device_of, shared

NUMBERS = 4096  # per program at once
WARPS = 4


@triton.jit
def _sum_moments(h, sums, pixels, steps, C: tl.constexpr, BC: tl.constexpr, P: tl.constexpr):
    """Sum h and its square over a program's pixels, less the value of the image's first pixel.

    The shift avoids cancellation in the variance.
    """
    image = tl.program_id(1).to(tl.int64)
    channels = tl.program_id(2) * BC + tl.arange(0, BC)
    in_range = channels < C
    start = h + image * pixels * C + channels
    first = tl.load(start, mask=in_range, other=0.0).to(tl.float32)
    one = tl.zeros((P, BC), tl.float32)
    two = tl.zeros((P, BC), tl.float32)
    for step in range(steps):
        positions = (tl.program_id(0) * steps + step) * P + tl.arange(0, P)
        valid = (positions < pixels)[:, None] & in_range[None, :]
        values = tl.load(start[None, :] + positions[:, None] * C, mask=valid, other=0.0).to(tl.float32)
        values = tl.where(valid, values - first[None, :], 0.0)
        one += values
        two += values * values
    out = sums + (image * tl.num_programs(0) + tl.program_id(0)) * 2 * C + channels
    tl.store(out, tl.sum(one, axis=0), mask=in_range)
    tl.store(out + C, tl.sum(two, axis=0), mask=in_range)


@triton.jit
def _finish_moments(h, sums, mean, scale, pixels, programs, epsilon, C: tl.constexpr, BC: tl.constexpr):
    """Reduce the programs' sums to the mean and the inverse standard deviation (image, channel)."""
    image = tl.program_id(1).to(tl.int64)
    channels = tl.program_id(0) * BC + tl.arange(0, BC)
    in_range = channels < C
    one = tl.zeros((BC,), tl.float32)
    two = tl.zeros((BC,), tl.float32)
    for program in range(programs):
        at = sums + (image * programs + program) * 2 * C + channels
        one += tl.load(at, mask=in_range, other=0.0)
        two += tl.load(at + C, mask=in_range, other=0.0)
    one, two = one / pixels, two / pixels
    first = tl.load(h + image * pixels * C + channels, mask=in_range, other=0.0).to(tl.float32)
    variance = tl.maximum(two - one * one, 0.0)
    tl.store(mean + image * C + channels, first + one, mask=in_range)
    tl.store(scale + image * C + channels, 1.0 / tl.sqrt(variance + epsilon), mask=in_range)


def moments(h: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """Return the mean and the inverse standard deviation of each image and channel, (B, C) each, float32.

    Parameters
    ----------
    h:
        (B, C, H, W) in channels-last order.
    epsilon:
        Added to variances.
    """
    split = _Split(h)
    mean, scale = (h.new_empty(split.count, split.channels, dtype=torch.float32) for _ in range(2))
    sums = split.sums(h)
    grid = (split.programs, split.count, split.columns)
    with on_device_of(h):
        _sum_moments[grid](h, sums, split.pixels, split.steps, **split.constants())
        _finish_moments[(split.columns, split.count)](
            h, sums, mean, scale, split.pixels, split.programs, epsilon, C=split.channels, BC=split.wide, num_warps=1
        )
    return mean, scale


@triton.jit
def _normalise_tile(h, mean, scale, image, positions, channels, pixels, C: tl.constexpr):
    """Normalise some pixels (P,) of an image.

    Return the values (P, BC), their mask, their offsets and the inverse standard deviations (BC,).
    """
    in_range = channels < C
    valid = (positions < pixels)[:, None] & in_range[None, :]
    at = image * pixels * C + positions[:, None] * C + channels[None, :]
    average = tl.load(mean + image * C + channels, mask=in_range, other=0.0)
    factor = tl.load(scale + image * C + channels, mask=in_range, other=0.0)
    n = (tl.load(h + at, mask=valid, other=0.0).to(tl.float32) - average[None, :]) * factor[None, :]
    return n, valid, at, factor


@triton.jit
def _normalise(h, mean, scale, output, pixels, C: tl.constexpr, BC: tl.constexpr, P: tl.constexpr):
    """Write the normalised maps to `output`."""
    image = tl.program_id(1).to(tl.int64)
    positions = tl.program_id(0) * P + tl.arange(0, P)
    channels = tl.program_id(2) * BC + tl.arange(0, BC)
    n, valid, at, _ = _normalise_tile(h, mean, scale, image, positions, channels, pixels, C)
    tl.store(output + at, n.to(output.dtype.element_ty), mask=valid)


@triton.jit
def _normalise_backward(
    h, mean, scale, dn, sums, dh, pixels, rows_of_sums, C: tl.constexpr, BC: tl.constexpr, P: tl.constexpr
):  # fmt: skip
    """Write the gradient of h to `dh`."""
    image = tl.program_id(1).to(tl.int64)
    positions = tl.program_id(0) * P + tl.arange(0, P)
    channels = tl.program_id(2) * BC + tl.arange(0, BC)
    n, valid, at, factor = _normalise_tile(h, mean, scale, image, positions, channels, pixels, C)
    of_image = sums + image * rows_of_sums * C + channels
    one = tl.load(of_image, mask=channels < C, other=0.0) / pixels
    two = tl.load(of_image + C, mask=channels < C, other=0.0) / pixels
    to_n = tl.load(dn + at, mask=valid, other=0.0).to(tl.float32)
    to_h = factor[None, :] * (to_n - one[None, :] - n * two[None, :])
    tl.store(dh + at, to_h.to(dh.dtype.element_ty), mask=valid)


@triton.jit
def _sum_gradients(h, mean, scale, dn, sums, pixels, steps, C: tl.constexpr, BC: tl.constexpr, P: tl.constexpr):
    """Sum dn and dn n over a program's pixels."""
    image = tl.program_id(1).to(tl.int64)
    channels = tl.program_id(2) * BC + tl.arange(0, BC)
    in_range = channels < C
    average = tl.load(mean + image * C + channels, mask=in_range, other=0.0)
    factor = tl.load(scale + image * C + channels, mask=in_range, other=0.0)
    one = tl.zeros((P, BC), tl.float32)
    two = tl.zeros((P, BC), tl.float32)
    for step in range(steps):
        positions = (tl.program_id(0) * steps + step) * P + tl.arange(0, P)
        valid = (positions < pixels)[:, None] & in_range[None, :]
        at = image * pixels * C + positions[:, None] * C + channels[None, :]
        n = (tl.load(h + at, mask=valid, other=0.0).to(tl.float32) - average[None, :]) * factor[None, :]
        to_n = tl.load(dn + at, mask=valid, other=0.0).to(tl.float32)
        one += to_n
        two += to_n * n
    out = sums + (image * tl.num_programs(0) + tl.program_id(0)) * 2 * C + channels
    tl.store(out, tl.sum(one, axis=0), mask=in_range)
    tl.store(out + C, tl.sum(two, axis=0), mask=in_range)


class _Split:
    """Grid and tile sizes of an operation on h."""

    def __init__(self, h: Tensor) -> None:
        self.count, self.channels, height, width = h.shape
        self.pixels = height * width
        self.wide = min(triton.next_power_of_2(self.channels), 128)  # channels per program
        self.rows = NUMBERS // self.wide  # pixels per program
        self.columns = triton.cdiv(self.channels, self.wide)
        self.tiles = triton.cdiv(self.pixels, self.rows)
        self.steps, self.programs = shared(self.tiles, self.count * self.columns)  # of a reduction

    def sums(self, h: Tensor) -> Tensor:
        return h.new_empty(self.count, self.programs, 2, self.channels, dtype=torch.float32)

    def constants(self) -> dict[str, int]:
        return {"C": self.channels, "BC": self.wide, "P": self.rows, "num_warps": WARPS}


def unnormalise(h: Tensor, mean: Tensor, scale: Tensor, dn: Tensor, sums: Tensor) -> Tensor:
    """Return the gradient (B, C, H, W) of h from that of the normalised h, n: scale (dn - mean(dn) - n mean(dn n)).

    Parameters
    ----------
    sums:
        (B, 2 or more, C), of which the first two are the sums of dn and of dn n over an image's pixels.
    """
    dh, split = torch.empty_like(h), _Split(h)
    grid = (split.tiles, split.count, split.columns)
    with on_device_of(h):
        _normalise_backward[grid](h, mean, scale, dn, sums, dh, split.pixels, sums.shape[1], **split.constants())
    return dh


@torch.library.custom_op("fsframework::instance_norm", mutates_args=())
def _instance_norm(h: Tensor, epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
    mean, scale = moments(h, epsilon)
    output, split = torch.empty_like(h), _Split(h)
    grid = (split.tiles, split.count, split.columns)
    with on_device_of(h):
        _normalise[grid](h, mean, scale, output, split.pixels, **split.constants())
    return output, mean, scale


@_instance_norm.register_fake
def _(h: Tensor, epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
    mean = h.new_empty(h.shape[:2], dtype=torch.float32)
    return torch.empty_like(h), mean, torch.empty_like(mean)


@torch.library.custom_op("fsframework::instance_norm_backward", mutates_args=())
def _backward(dn: Tensor, h: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    split = _Split(h)
    sums = split.sums(h)
    grid = (split.programs, split.count, split.columns)
    with on_device_of(h):
        _sum_gradients[grid](h, mean, scale, dn, sums, split.pixels, split.steps, **split.constants())
    return unnormalise(h, mean, scale, dn, sums.sum(dim=1))


@_backward.register_fake
def _(dn: Tensor, h: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    return torch.empty_like(h)


def _save_context(ctx: Any, inputs: tuple[Tensor, float], output: tuple[Tensor, ...]) -> None:
    _, mean, scale = output
    ctx.mark_non_differentiable(mean, scale)
    ctx.save_for_backward(inputs[0], mean, scale)


def _gradient(ctx: Any, dn: Tensor, *_: Tensor) -> tuple[Tensor, None]:
    h, mean, scale = ctx.saved_tensors
    return _backward(dn.contiguous(memory_format=LAST), h, mean, scale), None


_instance_norm.register_autograd(_gradient, setup_context=_save_context)


def instance_norm(h: Tensor, epsilon: float) -> Tensor:
    """Normalise each channel of each image (B, C, H, W) to mean 0, variance 1; return it in h's dtype."""
    output: Tensor = _instance_norm(h.contiguous(memory_format=LAST), epsilon)[0]
    return output
