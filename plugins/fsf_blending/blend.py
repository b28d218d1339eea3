"""Blending a painted face into its target."""

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
from fsframework.faces.color_transfer import poisson_blend, reinhard_transfer
from fsframework.media.tensor import to_images, to_tensor


class Blend(Refiner):
    """Takes the painted face inside a mask, and the target outside.

    The mask is the generator's own, or that of an estimator on the target; with both, their product. Where the
    estimator fails the target is returned. With an own mask, and without colours or Poisson, gradients pass.
    """

    name = "blend"

    class Options(ComponentOptions):
        mask: Annotated[Part, use("estimators")] | None = Field(
            None, description="Finds the target's face; null: the generator's own mask alone."
        )
        colour: Literal["none", "mean-std"] = Field(
            "none",
            description="mean-std: the painted face gets the target's mean and spread in each channel of Lab, inside "
            "the mask (Reinhard et al., IEEE CG&A 2001).",
        )
        poisson: bool = Field(
            False, description="Whether gradients, not colours, are taken over (Perez et al., SIGGRAPH 2003)."
        )

    options: Options

    def __init__(self, options: Options, size: int) -> None:
        super().__init__(options, size)
        self.mask: Estimator | None = None
        if options.mask is not None:
            self.mask = options.mask.build_estimator("mask", "mask")
        self.learns = any(parameter.requires_grad for parameter in self.parameters())

    def load(self) -> None:
        """Load the mask's estimator."""
        if self.mask is not None:
            self.mask.load()

    def forward(self, coarse: SwapResult, batch: SwapBatch, swapper: Swapper) -> Tensor:
        """The painted face in the target (B, 3, S, S). Raises ValueError if there is no mask."""
        painted, target = coarse.image, batch.target.image
        if self.mask is None and coarse.mask is None:
            raise ValueError("the generator paints no mask; give blend a mask, such as {use: hull-mask}")
        if painted.is_meta:  # estimators look at pixels
            return torch.empty_like(painted)
        mask = self._mask(coarse, batch)
        if self.options.colour == "mean-std":
            painted = _each(reinhard_transfer, painted, target, mask)
        if self.options.poisson:
            return _each(poisson_blend, painted, target, mask)
        return mask * painted + (1 - mask) * target

    def _mask(self, coarse: SwapResult, batch: SwapBatch) -> Tensor:
        """(B, 1, S, S) in [0, 1]."""
        mask = torch.ones_like(coarse.image[:, :1]) if coarse.mask is None else coarse.mask
        if self.mask is not None:
            with torch.no_grad():
                mask = mask * self.mask(batch.target).to(mask).nan_to_num(0.0)
        return mask


def _each(
    work: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray], painted: Tensor, target: Tensor, mask: Tensor
) -> Tensor:
    """What `work` makes of each painted picture, target and mask, as `painted` (B, 3, S, S); no gradients pass."""
    masks = mask[:, 0].detach().float().cpu().numpy()
    pictures = zip(to_images(painted), to_images(target), masks, strict=True)
    return to_tensor(np.stack([work(*each) for each in pictures])).to(painted)
