"""Blend a generated face into its target."""

from collections.abc import Callable
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from fsframework.core.components import ComponentOptions, Estimator, Refiner
from fsframework.core.part import Part, use
from fsframework.core.swapper import Swapper
from fsframework.core.types import SwapBatch, SwapResult
from fsframework.faces.color_transfer import poisson_match, reinhard_transfer
from fsframework.media.tensor import to_images, to_tensor


class Blend(Refiner):
    """Refiner that composites the generated face inside a mask with the target outside.

    The mask is the generator's, or that of an estimator on the target, or the product of both. Where the estimator
    fails, the result is the target. It is differentiable with the generator's mask, without colour transfer and
    Poisson blending.
    """

    name = "blend"

    class Options(ComponentOptions):
        mask: Annotated[Part, use("estimators")] | None = Field(
            None, description="Estimator of the target's face mask; null: the generator's mask alone."
        )
        colour: Literal["none", "mean-std"] = Field(
            "none",
            description="Colour transfer inside the mask. mean-std: match mean and standard deviation of each Lab "
            "channel to the target (Reinhard et al., IEEE CG&A 2001).",
        )
        poisson: bool = Field(
            False, description="Whether to use Poisson blending (Perez et al., SIGGRAPH 2003) before the mask."
        )

    options: Options

    def __init__(self, options: Options, size: int) -> None:
        super().__init__(options, size)
        self.mask: Estimator | None = None
        if options.mask is not None:
            self.mask = options.mask.build_estimator("mask", "mask")
        self.learns = any(parameter.requires_grad for parameter in self.parameters())

    def load(self) -> None:
        """Load the mask estimator."""
        if self.mask is not None:
            self.mask.load()

    def forward(self, coarse: SwapResult, batch: SwapBatch, swapper: Swapper) -> Tensor:
        """Return the composite (B, 3, S, S) in [-1, 1]. Raises ValueError if there is no mask."""
        generated, target = coarse.image, batch.target.image
        # A generator that composes has applied its mask already.
        own_mask = None if swapper.generator.composes else coarse.mask
        if self.mask is None and own_mask is None:
            raise ValueError("the generator leaves no mask to apply; give blend a mask, such as {use: hull-mask}")
        if generated.is_meta:  # shape inference: estimators need pixels
            return torch.empty_like(generated)
        mask = self._mask(coarse, own_mask, batch)
        if self.options.colour == "mean-std":
            generated = _each(reinhard_transfer, generated, target, mask)
        if self.options.poisson:
            generated = _each(poisson_match, generated, target, mask)
        return mask * generated + (1 - mask) * target

    def _mask(self, coarse: SwapResult, own_mask: Tensor | None, batch: SwapBatch) -> Tensor:
        """Return the blending mask (B, 1, S, S) in [0, 1]; `own_mask` is the generator's."""
        mask = torch.ones_like(coarse.image[:, :1]) if own_mask is None else own_mask
        if self.mask is not None:
            with torch.no_grad():
                mask = mask * self.mask(batch.target).to(mask).nan_to_num(0.0)
        return mask


def _each(
    blend: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray], generated: Tensor, target: Tensor, mask: Tensor
) -> Tensor:
    """Return `blend` applied to each generated image, target and mask: (B, 3, S, S), without gradients."""
    masks = mask[:, 0].detach().float().cpu().numpy()
    pictures = zip(to_images(generated), to_images(target), masks, strict=True)
    return to_tensor(np.stack([blend(*images) for images in pictures])).to(generated)
