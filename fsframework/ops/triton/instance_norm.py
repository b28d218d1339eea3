"""Instance normalisation on GPUs, of maps in channels-last order, which torch's kernels copy to and fro."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from fsframework.ops.triton.launch import LAST, on_device_of, shared

NUMBERS = 4096  # that a program holds at once
WARPS = 4


@triton.jit
def _add_up(h, sums, pixels, steps, C: tl.constexpr, BC: tl.constexpr, P: tl.constexpr):
    """Sums over a program's pixels of h less the image's first pixel, and of its square: such sums lose no digits."""
    image = tl.program_id(1).to(tl.int64)
    channels = tl.program_id(2) * BC + tl.arange(0, BC)
    whole = channels < C
    start = h + image * pixels * C + channels
    first = tl.load(start, mask=whole, other=0.0).to(tl.float32)
    one = tl.zeros((P, BC), tl.float32)
    two = tl.zeros((P, BC), tl.float32)
    for step in range(steps):
        places = (tl.program_id(0) * steps + step) * P + tl.arange(0, P)
        seen = (places < pixels)[:, None] & whole[None, :]
        values = tl.load(start[None, :] + places[:, None] * C, mask=seen, other=0.0).to(tl.float32)
        values = tl.where(seen, values - first[None, :], 0.0)
        one += values
        two += values * values
    out = sums + (image * tl.num_programs(0) + tl.program_id(0)) * 2 * C + channels
    tl.store(out, tl.sum(one, axis=0), mask=whole)
    tl.store(out + C, tl.sum(two, axis=0), mask=whole)


@triton.jit
def _finish(h, sums, mean, scale, pixels, programs, epsilon, C: tl.constexpr, BC: tl.constexpr):
    image = tl.program_id(1).to(tl.int64)
    channels = tl.program_id(0) * BC + tl.arange(0, BC)
    whole = channels < C
    one = tl.zeros((BC,), tl.float32)
    two = tl.zeros((BC,), tl.float32)
    for program in range(programs):
        at = sums + (image * programs + program) * 2 * C + channels
        one += tl.load(at, mask=whole, other=0.0)
        two += tl.load(at + C, mask=whole, other=0.0)
    one, two = one / pixels, two / pixels
    first = tl.load(h + image * pixels * C + channels, mask=whole, other=0.0).to(tl.float32)
    variance = tl.maximum(two - one * one, 0.0)
    tl.store(mean + image * C + channels, first + one, mask=whole)
    tl.store(scale + image * C + channels, 1.0 / tl.sqrt(variance + epsilon), mask=whole)


def moments(h: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """The mean of each channel of each image over its pixels, and one over its deviation, (B, C) each, float32.

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
        _add_up[grid](h, sums, split.pixels, split.steps, **split.constants())
        _finish[(split.columns, split.count)](
            h, sums, mean, scale, split.pixels, split.programs, epsilon, C=split.channels, BC=split.wide, num_warps=1
        )
    return mean, scale


@triton.jit
def _normal(h, mean, scale, image, places, channels, pixels, C: tl.constexpr):
    """Some pixels (P,) of an image, normalised (P, BC); which of them there are, where they lie, and 1 / deviation."""
    whole = channels < C
    seen = (places < pixels)[:, None] & whole[None, :]
    at = image * pixels * C + places[:, None] * C + channels[None, :]
    middle = tl.load(mean + image * C + channels, mask=whole, other=0.0)
    factor = tl.load(scale + image * C + channels, mask=whole, other=0.0)
    n = (tl.load(h + at, mask=seen, other=0.0).to(tl.float32) - middle[None, :]) * factor[None, :]
    return n, seen, at, factor


@triton.jit
def _apply(h, mean, scale, made, pixels, C: tl.constexpr, BC: tl.constexpr, P: tl.constexpr):
    image = tl.program_id(1).to(tl.int64)
    places = tl.program_id(0) * P + tl.arange(0, P)
    channels = tl.program_id(2) * BC + tl.arange(0, BC)
    n, seen, at, _ = _normal(h, mean, scale, image, places, channels, pixels, C)
    tl.store(made + at, n.to(made.dtype.element_ty), mask=seen)


@triton.jit
def _unapply(
    h, mean, scale, dn, sums, dh, pixels, rows_of_sums, C: tl.constexpr, BC: tl.constexpr, P: tl.constexpr
):  # fmt: skip
    image = tl.program_id(1).to(tl.int64)
    places = tl.program_id(0) * P + tl.arange(0, P)
    channels = tl.program_id(2) * BC + tl.arange(0, BC)
    n, seen, at, factor = _normal(h, mean, scale, image, places, channels, pixels, C)
    of_image = sums + image * rows_of_sums * C + channels
    one = tl.load(of_image, mask=channels < C, other=0.0) / pixels
    two = tl.load(of_image + C, mask=channels < C, other=0.0) / pixels
    to_n = tl.load(dn + at, mask=seen, other=0.0).to(tl.float32)
    to_h = factor[None, :] * (to_n - one[None, :] - n * two[None, :])
    tl.store(dh + at, to_h.to(dh.dtype.element_ty), mask=seen)


@triton.jit
def _add_gradients(h, mean, scale, dn, sums, pixels, steps, C: tl.constexpr, BC: tl.constexpr, P: tl.constexpr):
    """Sums over a program's pixels of dn and of dn n."""
    image = tl.program_id(1).to(tl.int64)
    channels = tl.program_id(2) * BC + tl.arange(0, BC)
    whole = channels < C
    middle = tl.load(mean + image * C + channels, mask=whole, other=0.0)
    factor = tl.load(scale + image * C + channels, mask=whole, other=0.0)
    one = tl.zeros((P, BC), tl.float32)
    two = tl.zeros((P, BC), tl.float32)
    for step in range(steps):
        places = (tl.program_id(0) * steps + step) * P + tl.arange(0, P)
        seen = (places < pixels)[:, None] & whole[None, :]
        at = image * pixels * C + places[:, None] * C + channels[None, :]
        n = (tl.load(h + at, mask=seen, other=0.0).to(tl.float32) - middle[None, :]) * factor[None, :]
        to_n = tl.load(dn + at, mask=seen, other=0.0).to(tl.float32)
        one += to_n
        two += to_n * n
    out = sums + (image * tl.num_programs(0) + tl.program_id(0)) * 2 * C + channels
    tl.store(out, tl.sum(one, axis=0), mask=whole)
    tl.store(out + C, tl.sum(two, axis=0), mask=whole)


class _Split:
    """How an operation on h is shared among programs."""

    def __init__(self, h: Tensor) -> None:
        self.count, self.channels, height, width = h.shape
        self.pixels = height * width
        self.wide = min(triton.next_power_of_2(self.channels), 128)  # channels that a program holds
        self.rows = NUMBERS // self.wide  # pixels that it holds
        self.columns = triton.cdiv(self.channels, self.wide)
        self.tiles = triton.cdiv(self.pixels, self.rows)
        self.steps, self.programs = shared(self.tiles, self.count * self.columns)  # of an operation that sums

    def sums(self, h: Tensor) -> Tensor:
        return h.new_empty(self.count, self.programs, 2, self.channels, dtype=torch.float32)

    def constants(self) -> dict[str, int]:
        return {"C": self.channels, "BC": self.wide, "P": self.rows, "num_warps": WARPS}


def unnormalise(h: Tensor, mean: Tensor, scale: Tensor, dn: Tensor, sums: Tensor) -> Tensor:
    """The gradient of h (B, C, H, W) from that of the normalised h, n: scale (dn - mean(dn) - n mean(dn n)).

    Parameters
    ----------
    sums:
        (B, 2 or more, C), of which the first two are the sums of dn and of dn n over an image's pixels.
    """
    dh, split = torch.empty_like(h), _Split(h)
    grid = (split.tiles, split.count, split.columns)
    with on_device_of(h):
        _unapply[grid](h, mean, scale, dn, sums, dh, split.pixels, sums.shape[1], **split.constants())
    return dh


@torch.library.custom_op("fsframework::instance_norm", mutates_args=())
def _normalised(h: Tensor, epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
    mean, scale = moments(h, epsilon)
    made, split = torch.empty_like(h), _Split(h)
    grid = (split.tiles, split.count, split.columns)
    with on_device_of(h):
        _apply[grid](h, mean, scale, made, split.pixels, **split.constants())
    return made, mean, scale


@_normalised.register_fake
def _(h: Tensor, epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
    mean = h.new_empty(h.shape[:2], dtype=torch.float32)
    return torch.empty_like(h), mean, torch.empty_like(mean)


@torch.library.custom_op("fsframework::instance_norm_backward", mutates_args=())
def _backward(dn: Tensor, h: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    split = _Split(h)
    sums = split.sums(h)
    grid = (split.programs, split.count, split.columns)
    with on_device_of(h):
        _add_gradients[grid](h, mean, scale, dn, sums, split.pixels, split.steps, **split.constants())
    return unnormalise(h, mean, scale, dn, sums.sum(dim=1))


@_backward.register_fake
def _(dn: Tensor, h: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    return torch.empty_like(h)


def _keep(ctx: Any, inputs: tuple[Tensor, float], output: tuple[Tensor, ...]) -> None:
    _, mean, scale = output
    ctx.mark_non_differentiable(mean, scale)
    ctx.save_for_backward(inputs[0], mean, scale)


def _gradient(ctx: Any, dn: Tensor, *_: Tensor) -> tuple[Tensor, None]:
    h, mean, scale = ctx.saved_tensors
    return _backward(dn.contiguous(memory_format=LAST), h, mean, scale), None


_normalised.register_autograd(_gradient, setup_context=_keep)


def instance_norm(h: Tensor, epsilon: float) -> Tensor:
    """Each channel of each image (B, C, H, W) with mean 0 and variance 1 over its pixels, in the type of h."""
    made: Tensor = _normalised(h.contiguous(memory_format=LAST), epsilon)[0]
    return made
