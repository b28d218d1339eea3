"""Triton kernels for AAD layers (FaceShifter, arXiv:1912.13457, equations 4 to 6) on GPUs.

The forward kernel fuses instance normalisation, modulation, mask, blend and ReLU in one pass over memory. The backward
pass takes two. The first layer of a block and the shortcut's layer share their input h and one kernel launch.
Arithmetic is in float32, whatever the dtype in memory. Sums have a fixed order, so training is deterministic.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from fsframework.ops.instance_norm import EPSILON
from fsframework.ops.triton.instance_norm import moments, unnormalise
from fsframework.ops.triton.launch import LAST, empty_last, on_device_of, shared
from fsframework.ops.triton.upsample import between, gathered

TILE_ELEMENTS = 2048  # elements of h per tile; each of a program's accumulators takes as many registers again
WARPS = 8  # per program


def aad_layers(
    h: Tensor,
    atts: list[Tensor],
    att_biases: list[Tensor],
    identities: list[Tensor],
    weight: Tensor,
    bias: Tensor,
) -> tuple[list[Tensor], Tensor]:
    """Return the outputs (B, C, H, W) of one or two AAD layers with ReLU that share `h`, and masks M (B, layers, H, W).

    Outputs have the dtype of the attributes.

    Parameters
    ----------
    h:
        Feature map (B, C, H, W) before instance normalisation.
    atts:
        gamma_att and beta_att of each layer without bias, (B, 2C, H, W), or (B, 2C, H/2, W/2) for bilinear upsampling.
    att_biases:
        Biases of gamma_att and beta_att, (2C,) each.
    identities:
        gamma_id and beta_id of each layer, (B, 2C, 1, 1).
    weight, bias:
        Of the 1x1 convolution that computes the masks' logits, (layers, C, 1, 1) and (layers,).
    """
    att, identity = ([each.contiguous(memory_format=LAST) for each in maps] for maps in (atts, identities))
    pair = len(atts) > 1
    y0, y1, m, _, _ = _forward(
        h.contiguous(memory_format=LAST),
        att[0],
        att[1] if pair else None,
        torch.stack(att_biases).float(),
        identity[0].contiguous(),
        identity[1].contiguous() if pair else None,
        weight.float().contiguous(),
        bias.float(),
    )
    return [y0, y1] if pair else [y0], m


@triton.jit
def _attribute(
    att, bias, image, pixels, channels, seen, height, width, C: tl.constexpr, HALF: tl.constexpr
):  # fmt: skip
    """Return gamma_att and beta_att at a tile's pixels, (P, BC) each; HALF: upsampled from half the side."""
    rows, columns = pixels // width, pixels % width
    if HALF:
        tall, wide = height // 2, width // 2
        start = att + image * tall * wide * (2 * C) + channels[None, :]
        gamma = between(start, rows, columns, tall, wide, 2 * C, seen)
        beta = between(start + C, rows, columns, tall, wide, 2 * C, seen)
    else:
        at = att + image * height * width * (2 * C) + pixels[:, None] * (2 * C) + channels[None, :]
        gamma = tl.load(at, mask=seen, other=0.0).to(tl.float32)
        beta = tl.load(at + C, mask=seen, other=0.0).to(tl.float32)
    gamma += tl.load(bias + channels, mask=channels < C, other=0.0)[None, :]
    beta += tl.load(bias + C + channels, mask=channels < C, other=0.0)[None, :]
    return gamma, beta


@triton.jit
def _modulate(
    h, mean, scale, att0, att1, att_bias, id0, id1, weight, bias, y0, y1, m, height, width,
    C: tl.constexpr, BC: tl.constexpr, P: tl.constexpr, LAYERS: tl.constexpr, HALF: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(1).to(tl.int64)
    pixels = tl.program_id(0) * P + tl.arange(0, P)
    channels = tl.arange(0, BC)
    inside, whole = pixels < height * width, channels < C
    seen = inside[:, None] & whole[None, :]
    at = image * height * width * C + pixels[:, None] * C + channels[None, :]
    middle = tl.load(mean + image * C + channels, mask=whole, other=0.0)
    factor = tl.load(scale + image * C + channels, mask=whole, other=0.0)
    n = (tl.load(h + at, mask=seen, other=0.0).to(tl.float32) - middle[None, :]) * factor[None, :]
    n = tl.where(seen, n, 0.0)
    for layer in tl.static_range(LAYERS):
        att = att0 if layer == 0 else att1
        identity = (id0 if layer == 0 else id1) + image * (2 * C) + channels
        y = y0 if layer == 0 else y1
        row = tl.load(weight + layer * C + channels, mask=whole, other=0.0)
        logit = tl.sum(n * row[None, :], axis=1) + tl.load(bias + layer)
        share = 1.0 / (1.0 + tl.exp(-logit))
        gamma, beta = _attribute(att, att_bias + layer * 2 * C, image, pixels, channels, seen, height, width, C, HALF)
        gamma_id = tl.load(identity, mask=whole, other=0.0).to(tl.float32)
        beta_id = tl.load(identity + C, mask=whole, other=0.0).to(tl.float32)
        gamma += share[:, None] * (gamma_id[None, :] - gamma)
        beta += share[:, None] * (beta_id[None, :] - beta)
        tl.store(y + at, tl.maximum(gamma * n + beta, 0.0).to(y.dtype.element_ty), mask=seen)
        tl.store(m + (image * LAYERS + layer) * height * width + pixels, share, mask=inside)


@triton.jit
def _modulate_backward(
    h, mean, scale, att0, att1, att_bias, id0, id1, weight, m, dy0, dy1, dm, dn, datt0, datt1, sums,
    dlogits, height, width, steps, C: tl.constexpr, BC: tl.constexpr, P: tl.constexpr, LAYERS: tl.constexpr,
    HALF: tl.constexpr,
):  # fmt: skip
    """Compute gradients of gamma_att, beta_att and the normalised h, and per-program sums for all other gradients."""
    image = tl.program_id(1).to(tl.int64)
    channels = tl.arange(0, BC)
    whole = channels < C
    middle = tl.load(mean + image * C + channels, mask=whole, other=0.0)
    factor = tl.load(scale + image * C + channels, mask=whole, other=0.0)
    dn_sum = tl.zeros((P, BC), tl.float32)
    dn_n_sum = tl.zeros((P, BC), tl.float32)
    id_gamma_0 = tl.zeros((P, BC), tl.float32)
    id_beta_0 = tl.zeros((P, BC), tl.float32)
    row_0 = tl.zeros((P, BC), tl.float32)
    att_gamma_0 = tl.zeros((P, BC), tl.float32)
    att_beta_0 = tl.zeros((P, BC), tl.float32)
    id_gamma_1 = tl.zeros((P, BC), tl.float32)
    id_beta_1 = tl.zeros((P, BC), tl.float32)
    row_1 = tl.zeros((P, BC), tl.float32)
    att_gamma_1 = tl.zeros((P, BC), tl.float32)
    att_beta_1 = tl.zeros((P, BC), tl.float32)
    dbias_0 = tl.zeros((P,), tl.float32)
    dbias_1 = tl.zeros((P,), tl.float32)
    for step in range(steps):
        pixels = (tl.program_id(0) * steps + step) * P + tl.arange(0, P)
        inside = pixels < height * width
        seen = inside[:, None] & whole[None, :]
        at = image * height * width * C + pixels[:, None] * C + channels[None, :]
        n = (tl.load(h + at, mask=seen, other=0.0).to(tl.float32) - middle[None, :]) * factor[None, :]
        n = tl.where(seen, n, 0.0)
        to_n = tl.zeros((P, BC), tl.float32)
        for layer in tl.static_range(LAYERS):
            att = att0 if layer == 0 else att1
            datt = datt0 if layer == 0 else datt1
            identity = (id0 if layer == 0 else id1) + image * (2 * C) + channels
            gamma, beta = _attribute(
                att, att_bias + layer * 2 * C, image, pixels, channels, seen, height, width, C, HALF
            )
            gamma_id = tl.load(identity, mask=whole, other=0.0).to(tl.float32)
            beta_id = tl.load(identity + C, mask=whole, other=0.0).to(tl.float32)
            row = tl.load(weight + layer * C + channels, mask=whole, other=0.0)
            at_mask = (image * LAYERS + layer) * height * width + pixels
            share = tl.load(m + at_mask, mask=inside, other=0.0)
            more_gamma = gamma_id[None, :] - gamma
            more_beta = beta_id[None, :] - beta
            gamma += share[:, None] * more_gamma
            beta += share[:, None] * more_beta
            to_y = tl.load((dy0 if layer == 0 else dy1) + at, mask=seen, other=0.0).to(tl.float32)
            to_y = tl.where(gamma * n + beta > 0, to_y, 0.0)
            to_gamma = to_y * n
            to_share = tl.sum(to_gamma * more_gamma + to_y * more_beta, axis=1)
            to_share += tl.load(dm + at_mask, mask=inside, other=0.0)
            to_logit = to_share * share * (1.0 - share)
            to_n += to_y * gamma + to_logit[:, None] * row[None, :]
            at_att = image * height * width * (2 * C) + pixels[:, None] * (2 * C) + channels[None, :]
            gamma_share = share[:, None] * to_gamma
            beta_share = share[:, None] * to_y
            gamma_rest = to_gamma - gamma_share
            beta_rest = to_y - beta_share
            tl.store(datt + at_att, gamma_rest.to(datt.dtype.element_ty), mask=seen)
            tl.store(datt + at_att + C, beta_rest.to(datt.dtype.element_ty), mask=seen)
            if layer == 0:
                id_gamma_0 += gamma_share
                id_beta_0 += beta_share
                row_0 += to_logit[:, None] * n
                att_gamma_0 += gamma_rest
                att_beta_0 += beta_rest
                dbias_0 += to_logit
            else:
                id_gamma_1 += gamma_share
                id_beta_1 += beta_share
                row_1 += to_logit[:, None] * n
                att_gamma_1 += gamma_rest
                att_beta_1 += beta_rest
                dbias_1 += to_logit
        tl.store(dn + at, to_n.to(dn.dtype.element_ty), mask=seen)
        dn_sum += to_n
        dn_n_sum += to_n * n
    program = image * tl.num_programs(0) + tl.program_id(0)
    out = sums + program * (2 + 5 * LAYERS) * C + channels
    tl.store(out, tl.sum(dn_sum, axis=0), mask=whole)
    tl.store(out + C, tl.sum(dn_n_sum, axis=0), mask=whole)
    tl.store(dlogits + program * LAYERS, tl.sum(dbias_0, axis=0))
    tl.store(out + 2 * C, tl.sum(id_gamma_0, axis=0), mask=whole)
    tl.store(out + 3 * C, tl.sum(id_beta_0, axis=0), mask=whole)
    tl.store(out + 4 * C, tl.sum(row_0, axis=0), mask=whole)
    tl.store(out + 5 * C, tl.sum(att_gamma_0, axis=0), mask=whole)
    tl.store(out + 6 * C, tl.sum(att_beta_0, axis=0), mask=whole)
    if LAYERS > 1:
        tl.store(dlogits + program * LAYERS + 1, tl.sum(dbias_1, axis=0))
        tl.store(out + 7 * C, tl.sum(id_gamma_1, axis=0), mask=whole)
        tl.store(out + 8 * C, tl.sum(id_beta_1, axis=0), mask=whole)
        tl.store(out + 9 * C, tl.sum(row_1, axis=0), mask=whole)
        tl.store(out + 10 * C, tl.sum(att_gamma_1, axis=0), mask=whole)
        tl.store(out + 11 * C, tl.sum(att_beta_1, axis=0), mask=whole)


def _tile_size(channels: int) -> tuple[int, int]:
    """Return a tile's size: channels, rounded up to a power of two, and pixels."""
    wide = triton.next_power_of_2(channels)
    return wide, max(1, TILE_ELEMENTS // wide)


def _empty_outputs(h: Tensor, att: Tensor, layers: int) -> tuple[Tensor, Tensor, Tensor]:
    """Allocate the outputs of one or two layers, in the attributes' dtype, and their masks (B, layers, H, W)."""
    y0 = torch.empty_like(h, dtype=att.dtype)
    y1 = torch.empty_like(y0) if layers > 1 else h.new_empty(0)
    return y0, y1, h.new_empty(len(h), layers, *h.shape[2:], dtype=torch.float32)


def _empty_affines(h: Tensor, att: Tensor, layers: int) -> tuple[Tensor, Tensor]:
    """Allocate gammas and betas (B, 2C, H, W) of one or two layers at the resolution of h, in the attributes' dtype."""
    count, channels, height, width = h.shape
    one = empty_last(h, count, 2 * channels, height, width, dtype=att.dtype)
    return one, torch.empty_like(one) if layers > 1 else h.new_empty(0, dtype=att.dtype)


@torch.library.custom_op("fsf_faceshifter::aad", mutates_args=())
def _forward(
    h: Tensor,
    att0: Tensor,
    att1: Tensor | None,
    att_bias: Tensor,
    id0: Tensor,
    id1: Tensor | None,
    weight: Tensor,
    bias: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    count, channels, height, width = h.shape
    layers = len(weight)
    mean, scale = moments(h, EPSILON)
    y0, y1, m = _empty_outputs(h, att0, layers)
    wide, pixels = _tile_size(channels)
    grid = (triton.cdiv(height * width, pixels), count)
    half = att0.shape[2] < height
    second = (att0, id0) if att1 is None else (att1, id1)
    with on_device_of(h):
        _modulate[grid](
            h, mean, scale, att0, second[0], att_bias, id0, second[1], weight, bias, y0, y1, m, height, width,
            C=channels, BC=wide, P=pixels, LAYERS=layers, HALF=half, num_warps=WARPS,
        )  # fmt: skip
    return y0, y1, m, mean, scale


@_forward.register_fake
def _(h, att0, att1, att_bias, id0, id1, weight, bias):  # type: ignore[no-untyped-def]
    mean = h.new_empty(h.shape[:2], dtype=torch.float32)
    return *_empty_outputs(h, att0, len(weight)), mean, torch.empty_like(mean)


@torch.library.custom_op("fsf_faceshifter::aad_backward", mutates_args=())
def _backward(
    dy0: Tensor,
    dy1: Tensor | None,
    dm: Tensor,
    h: Tensor,
    att0: Tensor,
    att1: Tensor | None,
    att_bias: Tensor,
    id0: Tensor,
    id1: Tensor | None,
    weight: Tensor,
    m: Tensor,
    mean: Tensor,
    scale: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return gradients of h, of gamma_att and beta_att at its resolution, sums (B, n, C), and of biases (layers,)."""
    count, channels, height, width = h.shape
    layers = len(weight)
    wide, pixels = _tile_size(channels)
    tiles = triton.cdiv(height * width, pixels)
    steps, programs = shared(tiles, count)
    dn = torch.empty_like(h)
    datt0, datt1 = _empty_affines(h, att0, layers)
    sums = h.new_empty(count, programs, 2 + 5 * layers, channels, dtype=torch.float32)
    dlogits = h.new_empty(count, programs, layers, dtype=torch.float32)
    half = att0.shape[2] < height
    second = (att0, id0, dy0) if att1 is None else (att1, id1, dy1)
    with on_device_of(h):
        _modulate_backward[(programs, count)](
            h, mean, scale, att0, second[0], att_bias, id0, second[1], weight, m, dy0, second[2], dm, dn, datt0,
            datt1, sums, dlogits, height, width, steps,
            C=channels, BC=wide, P=pixels, LAYERS=layers, HALF=half, num_warps=WARPS,
        )  # fmt: skip
    added = sums.sum(dim=1)
    dh = unnormalise(h, mean, scale, dn, added)
    return dh, datt0, datt1, added, dlogits.sum(dim=(0, 1))


@_backward.register_fake
def _(dy0, dy1, dm, h, att0, att1, att_bias, id0, id1, weight, m, mean, scale):  # type: ignore[no-untyped-def]
    layers = len(weight)
    sums = h.new_empty(len(h), 2 + 5 * layers, h.shape[1], dtype=torch.float32)
    return torch.empty_like(h), *_empty_affines(h, att0, layers), sums, h.new_empty(layers, dtype=torch.float32)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    h, att0, att1, att_bias, id0, id1, weight, _ = inputs
    _, _, m, mean, scale = output
    ctx.mark_non_differentiable(mean, scale)
    ctx.save_for_backward(h, att0, att1, att_bias, id0, id1, weight, m, mean, scale)


def _gradients(ctx: Any, dy0: Tensor, dy1: Tensor, dm: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    h, att0, att1, att_bias, id0, id1, weight, m, mean, scale = ctx.saved_tensors
    pair = att1 is not None
    dy = [each.contiguous(memory_format=LAST) for each in ([dy0, dy1] if pair else [dy0])]
    gradients = _backward(
        dy[0], dy[1] if pair else None, dm.contiguous(), h, att0, att1, att_bias, id0, id1, weight, m, mean, scale
    )
    dh, datt0, datt1, sums, dbias = gradients
    if att0.shape[2] < h.shape[2]:
        datt0, datt1 = gathered(datt0), gathered(datt1) if pair else datt1
    of_layers = sums[:, 2:].unflatten(1, (len(weight), 5))  # (B, layers, 5, C)
    didentity = [each[..., None, None] for each in of_layers[:, :, :2].flatten(2).to(id0.dtype).unbind(1)]
    over_images = of_layers[:, :, 2:].sum(dim=0)  # (layers, 3, C)
    dweight, datt_bias = over_images[:, 0, :, None, None], over_images[:, 1:].flatten(1)
    return dh, datt0, datt1 if pair else None, datt_bias, didentity[0], didentity[1] if pair else None, dweight, dbias


_forward.register_autograd(_gradients, setup_context=_save)
