"""Identity loss: distance of swap and source in the embedding space of a frozen face recogniser."""

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from fsframework.core.components import IdentityEncoder, Loss
from fsframework.core.errors import UserError
from fsframework.core.part import Part, use
from fsframework.core.swapper import Swapper
from fsframework.core.types import FaceBatch, SwapBatch, SwapResult

RADIUS = 2.5  # of the blur's kernel, in units of its largest standard deviation


def jitter(images: Tensor, shift: float, scale: float) -> Tensor:
    """Return the images (B, C, S, S), each randomly shifted, scaled and mirrored; differentiable.

    Parameters
    ----------
    images:
        (B, C, S, S).
    shift:
        Maximum shift along each axis, in units of the side.
    scale:
        Maximum relative change of size.
    """
    count = len(images)
    move = (2 * torch.rand(count, 2, device=images.device) - 1) * 2 * shift  # the grid's side is 2
    size = 1 + (2 * torch.rand(count, device=images.device) - 1) * scale
    mirror = torch.randint(0, 2, (count,), device=images.device) * 2 - 1
    zero = torch.zeros_like(size)
    rows = [torch.stack([size * mirror, zero, move[:, 0]], dim=1), torch.stack([zero, size, move[:, 1]], dim=1)]
    grid = F.affine_grid(torch.stack(rows, dim=1), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def blur(images: Tensor, largest: float) -> Tensor:
    """Return the images (B, C, S, S), half of them blurred by a Gaussian of random width; differentiable.

    Parameters
    ----------
    images:
        (B, C, S, S).
    largest:
        Maximum standard deviation, in units of the side.
    """
    count, channels, side, _ = images.shape
    drawn = torch.rand(count, 1, device=images.device) * (torch.rand(count, 1, device=images.device) < 0.5)
    deviation = (drawn * largest * side).clamp_min(1e-3)  # pixels; the least is a kernel of a single 1
    radius = max(1, min(math.ceil(RADIUS * largest * side), side - 1))
    offsets = torch.arange(-radius, radius + 1, device=images.device)
    kernel = torch.softmax(-((offsets / deviation) ** 2) / 2, dim=1)  # (B, 2 radius + 1), sums to 1
    kernel = kernel.to(images.dtype).repeat_interleave(channels, dim=0)[:, None]
    rows = F.pad(images, (radius,) * 4, mode="replicate").flatten(0, 1)[None]
    rows = F.conv2d(rows, kernel[:, :, :, None], groups=count * channels)
    return F.conv2d(rows, kernel[:, :, None, :], groups=count * channels)[0].unflatten(0, (count, channels))


def recolour(images: Tensor, strength: float) -> Tensor:
    """Return the images (B, 3, S, S) in [-1, 1], half of them with random gain, offset and saturation; differentiable.

    Parameters
    ----------
    images:
        (B, 3, S, S).
    strength:
        Maximum relative change of each channel's gain and of the saturation, and of the offset in units of 1.
    """
    count, device = len(images), images.device

    def drawn(channels: int) -> Tensor:
        values = (2 * torch.rand(count, channels, 1, 1, device=device) - 1) * strength
        return (values * changed).to(images.dtype)

    changed = torch.rand(count, 1, 1, 1, device=device) < 0.5
    grey = images.mean(dim=1, keepdim=True)
    saturated = grey + (images - grey) * (1 + drawn(1))
    return saturated * (1 + drawn(3)) + drawn(1)


class Identity(Loss):
    """Identity loss: one minus the cosine of the embeddings of swap and source (FaceShifter, equation 8).

    Li et al., arXiv:1912.13457. A generator can overfit to the recogniser of this loss. Random shifts, scales,
    mirroring, blur and colours of the swap reduce that, and so does a second loss with another `encoder`. The paper
    does without.
    """

    name = "identity"
    asks_identity = True  # unless `encoder` is set

    class Options(Loss.Options):
        encoder: Annotated[Part, use("identity-encoders")] | None = Field(
            default=None, description="Recogniser of the loss; null: the recipe's identity encoder."
        )
        shift: float = Field(0.0, ge=0, le=0.2, description="Maximum random shift of the crop, in units of its side.")
        scale: float = Field(0.0, ge=0, le=0.5, description="Maximum random relative change of the crop's size.")
        blur: float = Field(
            0.0,
            ge=0,
            le=0.1,
            description="Maximum standard deviation of a Gaussian blur of half the crops, in units of the side.",
        )
        recolour: float = Field(
            0.0, ge=0, lt=1, description="Maximum random change of gain, offset and saturation of half the crops."
        )

    options: Options

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.encoder: IdentityEncoder | None = None
        if options.encoder is not None:
            encoder: IdentityEncoder = options.encoder.build()
            if not (encoder.metric and encoder.differentiable):
                raise UserError(
                    f"{self.name}: encoder {options.encoder.name}: has no metric or no gradient; choose another encoder"
                )
            self.encoder = encoder.requires_grad_(False)

    def train(self, mode: bool = True) -> "Identity":
        """Set the mode of all but `encoder`, which stays in eval mode, and return the loss."""
        super().train(mode)
        if self.encoder is not None:
            self.encoder.eval()
        return self

    def load(self) -> None:
        """Load the weights of `encoder`."""
        if self.encoder is not None:
            self.encoder.load()
            self.encoder.requires_grad_(False)

    def forward(self, batch: SwapBatch, output: SwapResult, swapper: Swapper) -> Tensor:
        """Return the loss, a scalar in [0, 2]."""
        options, image = self.options, output.image
        if options.shift > 0 or options.scale > 0:
            image = jitter(image, options.shift, options.scale)
        if options.blur > 0:
            image = blur(image, options.blur)
        if options.recolour > 0:
            image = recolour(image, options.recolour)
        encoder, z_id = swapper.identity, output.z_id
        if self.encoder is not None:
            encoder = self.encoder
            with torch.no_grad():
                z_id = encoder(batch.source)
        return (1 - F.cosine_similarity(encoder(FaceBatch.of(image)).float(), z_id.float())).mean()
