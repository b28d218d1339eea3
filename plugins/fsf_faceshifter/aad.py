"""What an AAD layer does with its gammas, betas and mask (FaceShifter, arXiv:1912.13457, equations 4 to 6).

In torch's operations it is ten passes over memory forward and backward, which cost as much as a quarter of the
convolutions; on CPUs in float32 and bfloat16 it is one each way, written in aad.c.
"""

from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from fsframework.ops.csrc import build
from fsframework.ops.upsample import upsample2x

Integration = Literal["aad", "add", "cat", "spade", "adain"]
KERNELS = build.Kernels(Path(__file__).with_name("aad.c"), aad_forward=(5, 6), aad_backward=(9, 7))
BLOCK = 256  # pixels whose gradients of gamma_id and beta_id are added up at once


def integrate(h: Tensor, att: Tensor, identity: Tensor, mask: Tensor) -> Tensor:
    """Equations 4 to 6 and a ReLU: relu((1 - M) (gamma_att h + beta_att) + M (gamma_id h + beta_id)).

    Parameters
    ----------
    h:
        (B, C, H, W), normalised.
    att, identity:
        gamma and beta, one after the other: (B, 2C, H, W) and (B, 2C, 1, 1). att may have a smaller side, and is then
        interpolated bilinearly; half of it is, on CPUs, without ever being in memory at full size.
    mask:
        M, (B, 1, H, W).
    """
    if 2 * att.shape[-1] != h.shape[-1]:
        att = _as_large(att, h)
    if _fits(h, att, identity, mask):
        return cast(Tensor, _Integrate.apply(h, att, identity.float(), mask.float()))
    gamma, beta = torch.lerp(_as_large(att, h), identity, mask.to(att.dtype)).chunk(2, dim=1)
    return F.relu(torch.addcmul(beta, gamma, h))


def joined(kind: Integration, h: Tensor, att: Tensor, identity: Tensor, mask: Tensor) -> Tensor:
    """What a convolution sees: A = gamma_att h + beta_att and I = gamma_id h + beta_id, joined, and a ReLU.

    aad: `integrate`; add: A + I; cat: A and I beside each other, (B, 2C, H, W); spade: A; adain: gamma and beta are the
    mean of the identity's and of the attributes' mean over all places. Other parameters as in `integrate`; only aad
    looks at the mask.
    """
    if kind == "aad":
        return integrate(h, att, identity, mask)
    att = _as_large(att, h)
    if kind == "adain":
        gamma, beta = (0.5 * (identity + att.mean(dim=(2, 3), keepdim=True))).chunk(2, dim=1)
        return F.relu(torch.addcmul(beta, gamma, h))
    gamma, beta = att.chunk(2, dim=1)
    attributes = torch.addcmul(beta, gamma, h)
    if kind == "spade":
        return F.relu(attributes)
    gamma, beta = identity.chunk(2, dim=1)
    who = torch.addcmul(beta, gamma, h)
    return F.relu(attributes + who) if kind == "add" else F.relu(torch.cat([attributes, who], dim=1))


def _as_large(att: Tensor, h: Tensor) -> Tensor:
    """Gammas and betas at the side of h. Interpolation commutes with the 1x1 weights that made them."""
    if att.shape[-1] == h.shape[-1]:
        return att
    if 2 * att.shape[-1] == h.shape[-1]:
        return upsample2x(att)
    # Autocast on GPUs gives it in float32, which nothing here needs.
    return F.interpolate(att, size=h.shape[2:], mode="bilinear").to(att.dtype)


def _fits(h: Tensor, *others: Tensor) -> bool:
    if h.device.type != "cpu" or h.dtype not in (torch.float32, torch.bfloat16):
        return False
    if any(value.dtype != h.dtype for value in others):
        return False
    return not torch.compiler.is_compiling() and KERNELS.suit(h.shape[1])


def _last(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last)


class _Integrate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h: Tensor, att: Tensor, identity: Tensor, mask: Tensor) -> Tensor:
        h, att, identity, mask = _last(h), _last(att), identity.contiguous(), mask.contiguous()
        ctx.save_for_backward(h, att, identity, mask)
        result = torch.empty_like(h)
        count, channels, height, width = h.shape
        addresses = (value.data_ptr() for value in (h, att, identity, mask, result))
        twice = int(att.shape[-1] < width)
        KERNELS.of(channels).aad_forward(*addresses, count, height, width, channels, build.is_half(h), twice)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        h, att, identity, mask = ctx.saved_tensors
        count, channels, height, width = h.shape
        blocks = -(-height * width // BLOCK)
        twice = int(att.shape[-1] < width)
        to_h, to_mask = torch.empty_like(h), torch.empty_like(mask)
        shape = count, 2 * channels, height, width
        to_att = torch.empty(shape, dtype=att.dtype, memory_format=torch.channels_last)
        sums = identity.new_empty(count, blocks, 2 * channels)
        tensors = (_last(gradient), h, att, identity, mask, to_h, to_att, sums, to_mask)
        addresses = (value.data_ptr() for value in tensors)
        KERNELS.of(channels).aad_backward(*addresses, count, height, width, channels, BLOCK, build.is_half(h), twice)
        if twice:
            to_att = torch.ops.aten.upsample_bilinear2d_backward(to_att, (height, width), att.shape, False)
        return to_h, to_att, sums.sum(dim=1)[..., None, None], to_mask
