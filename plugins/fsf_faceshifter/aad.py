"""Adaptive Attentional Denormalization (AAD): modulate features by gammas, betas and an attention mask.

Li et al., "FaceShifter", arXiv:1912.13457, equations 4 to 6.

In torch operations, a layer takes ten passes over memory forward and backward, at a quarter of the cost of the
convolutions. On CPUs in float32 and bfloat16, a C kernel (aad.c) takes one pass each way.
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
BLOCK = 256  # pixels per partial sum of the gradients of gamma_id and beta_id


def integrate(h: Tensor, att: Tensor, identity: Tensor, mask: Tensor) -> Tensor:
    """Return an AAD layer's output after a ReLU (equations 4 to 6), with the shape of `h`.

    The output is relu((1 - M) (gamma_att h + beta_att) + M (gamma_id h + beta_id)).

    Parameters
    ----------
    h:
        Feature map (B, C, H, W) after instance normalisation.
    att, identity:
        Modulation parameters: gamma and beta concatenated along channels, (B, 2C, H, W) and (B, 2C, 1, 1). An `att` of
        lower resolution is upsampled bilinearly. On CPUs, an `att` of half the side is upsampled inside the kernel,
        without a full-size copy in memory.
    mask:
        Attention mask M (B, 1, H, W) in [0, 1]; 1 selects the identity.
    """
    if 2 * att.shape[-1] != h.shape[-1]:
        att = _resized(att, h)
    if _has_kernel(h, att, identity, mask):
        return cast(Tensor, _Integrate.apply(h, att, identity.float(), mask.float()))
    gamma, beta = torch.lerp(_resized(att, h), identity, mask.to(att.dtype)).chunk(2, dim=1)
    return F.relu(torch.addcmul(beta, gamma, h))


def joined(kind: Integration, h: Tensor, att: Tensor, identity: Tensor, mask: Tensor) -> Tensor:
    """Return the input (B, C, H, W) of a block's convolution: attributes A and identity I combined, after a ReLU.

    A = gamma_att h + beta_att and I = gamma_id h + beta_id. `kind` selects the combination:

    * aad: blended by the mask, see `integrate`.
    * add: A + I.
    * cat: A and I concatenated, (B, 2C, H, W).
    * spade: A alone.
    * adain: one gamma and beta for all pixels: the average of the identity's and of the attributes' spatial mean.

    The other parameters are those of `integrate`. Only aad uses the mask.
    """
    if kind == "aad":
        return integrate(h, att, identity, mask)
    att = _resized(att, h)
    if kind == "adain":
        gamma, beta = (0.5 * (identity + att.mean(dim=(2, 3), keepdim=True))).chunk(2, dim=1)
        return F.relu(torch.addcmul(beta, gamma, h))
    gamma, beta = att.chunk(2, dim=1)
    attributes = torch.addcmul(beta, gamma, h)
    if kind == "spade":
        return F.relu(attributes)
    gamma, beta = identity.chunk(2, dim=1)
    identities = torch.addcmul(beta, gamma, h)
    return F.relu(attributes + identities) if kind == "add" else F.relu(torch.cat([attributes, identities], dim=1))


def _resized(att: Tensor, h: Tensor) -> Tensor:
    """Return `att` (B, 2C, H, W), upsampled bilinearly to the resolution of `h`.

    Interpolation commutes with the 1x1 convolution that computes gammas and betas.
    """
    if att.shape[-1] == h.shape[-1]:
        return att
    if 2 * att.shape[-1] == h.shape[-1]:
        return upsample2x(att)
    # Autocast on GPUs interpolates in float32; that precision is not needed here.
    return F.interpolate(att, size=h.shape[2:], mode="bilinear").to(att.dtype)


def _has_kernel(h: Tensor, *others: Tensor) -> bool:
    """Return whether the C kernel supports these tensors: on a CPU, one dtype, float32 or bfloat16."""
    if h.device.type != "cpu" or h.dtype not in (torch.float32, torch.bfloat16):
        return False
    if any(value.dtype != h.dtype for value in others):
        return False
    return not torch.compiler.is_compiling() and KERNELS.suit(h.shape[1])


def _channels_last(images: Tensor) -> Tensor:
    """Return the images (B, C, H, W) contiguous in channels-last memory format."""
    return images.contiguous(memory_format=torch.channels_last)


class _Integrate(torch.autograd.Function):
    """`integrate` by the C kernels of aad.c."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, att: Tensor, identity: Tensor, mask: Tensor) -> Tensor:
        h, att, identity, mask = _channels_last(h), _channels_last(att), identity.contiguous(), mask.contiguous()
        ctx.save_for_backward(h, att, identity, mask)
        result = torch.empty_like(h)
        count, channels, height, width = h.shape
        addresses = (value.data_ptr() for value in (h, att, identity, mask, result))
        doubled = int(att.shape[-1] < width)
        KERNELS.of(channels).aad_forward(*addresses, count, height, width, channels, build.is_half(h), doubled)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        h, att, identity, mask = ctx.saved_tensors
        count, channels, height, width = h.shape
        blocks = -(-height * width // BLOCK)
        doubled = int(att.shape[-1] < width)
        to_h, to_mask = torch.empty_like(h), torch.empty_like(mask)
        shape = count, 2 * channels, height, width
        to_att = torch.empty(shape, dtype=att.dtype, memory_format=torch.channels_last)
        sums = identity.new_empty(count, blocks, 2 * channels)
        tensors = (_channels_last(gradient), h, att, identity, mask, to_h, to_att, sums, to_mask)
        addresses = (value.data_ptr() for value in tensors)
        KERNELS.of(channels).aad_backward(*addresses, count, height, width, channels, BLOCK, build.is_half(h), doubled)
        if doubled:
            to_att = torch.ops.aten.upsample_bilinear2d_backward(to_att, (height, width), att.shape, False)
        return to_h, to_att, sums.sum(dim=1)[..., None, None], to_mask
