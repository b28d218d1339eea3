"""Losses for masks of generators and of the refiner `blend`."""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from fsf_blending.blend import Blend
from fsframework.core.components import Estimator, Loss
from fsframework.core.part import Part, use
from fsframework.core.swapper import Swapper
from fsframework.core.types import FaceBatch, SwapBatch, SwapResult


def generator_mask(output: SwapResult) -> Tensor:
    """Return the generator's mask (B, 1, S, S). Raises ValueError if there is none."""
    if output.mask is None:
        raise ValueError("the generator predicts no mask; choose one that does, or leave this loss out")
    return output.mask.float()


def refiner_mask(batch: SwapBatch, swapper: Swapper) -> Tensor:
    """Return the mask (B, 1, S, S) by the estimator of the refiner `blend`. Raises ValueError if there is none."""
    if not isinstance(swapper.refiner, Blend) or swapper.refiner.mask is None:
        raise ValueError("network: refiner needs the refiner blend with a mask, such as {use: face-segmenter}")
    mask: Tensor = swapper.refiner.mask(batch.target)
    return mask.float()


class MaskLoss(Loss):
    """Mean squared difference between a trained mask and a reference mask, by an estimator or of the data set.

    The trained mask is the generator's, as in DeepFaceLab, or that of the refiner `blend` on targets. An estimator's
    reference mask is that of the ground truth; estimators that need the five landmarks get the target's. Known
    occluders are excluded from it: the valid pixels of pairs of different images whose ground truth is the target's
    pixel (`SwapBatch.valid_mask`). The data set's reference mask is all but `valid_mask`.
    """

    name = "mask"

    class Options(Loss.Options):
        mask: Annotated[Part, use("estimators")] | None = Field(
            default={"use": "hull-mask"},
            validate_default=True,
            description="Estimator of the reference mask; null: the data set's mask, such as that of `face-masks`, on "
            "pairs of different images.",
        )
        network: Literal["generator", "refiner"] = Field("generator", description="Network whose mask is trained.")

    options: Options

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.mask: Estimator | None = None
        if options.mask is not None:
            self.mask = options.mask.build_estimator("mask", "mask")
            self.mask.requires_grad_(False)
        self.masks_seen = False
        self.reads_swap = self.mask is not None or options.network == "generator"

    def load(self) -> None:
        """Load the estimator."""
        if self.mask is not None:
            self.mask.load()

    def forward(self, batch: SwapBatch, output: SwapResult, swapper: Swapper) -> Tensor:
        """Return the loss, a scalar. Pairs without a reference mask are excluded.

        Raises ValueError if the data set should have masks and has none.
        """
        reference, valid = self._reference(batch)
        mask = refiner_mask(batch, swapper) if self.options.network == "refiner" else generator_mask(output)
        squared = (mask - reference.nan_to_num(0.0)).square() * valid
        return squared.sum() / valid.sum().clamp(min=1)

    def _reference(self, batch: SwapBatch) -> tuple[Tensor, Tensor]:
        """Return reference masks (B, 1, S, S), and where they are valid, (B, 1, S, S) bool."""
        if self.mask is None:
            self._require_masks(batch)
            return 1 - batch.valid_mask, ~batch.supervised[:, None, None, None].expand_as(batch.valid_mask)
        reference = self.mask(FaceBatch.of(batch.ground_truth, batch.target.landmarks)).float()
        return reference * (1 - _occluders(batch)), reference.isfinite()

    def _require_masks(self, batch: SwapBatch) -> None:
        """Raise ValueError if the first pairs of different images have no masks: the whole crop would be the face."""
        if self.masks_seen or bool(batch.supervised.all()):
            return
        if not batch.valid_mask[~batch.supervised].any():
            raise ValueError(
                "the data set has no masks; use one with masks, such as face-masks, or an estimator as `mask`"
            )
        self.masks_seen = True  # later batches are not read back from the device


def _occluders(batch: SwapBatch) -> Tensor:
    """Return where each target is known to be occluded (B, 1, S, S), 1 or a fraction there and 0 elsewhere.

    On other pixels with a ground truth, as of pairs with a known swap, the ground truth is not the target's pixel. On
    supervised pairs all pixels are valid, so that occluders are not known.
    """
    kept = (batch.ground_truth == batch.target.image).all(dim=1, keepdim=True)
    return torch.where(batch.supervised[:, None, None, None], 0.0, batch.valid_mask * kept)


class MaskShape(Loss):
    """Regulariser of a mask without supervision, as in FaceSwap-GAN: minimum size and total variation.

    The loss is the mean shortfall below `least`, plus `smooth` times the mean absolute difference of neighbours.
    """

    name = "mask-shape"

    class Options(Loss.Options):
        least: float = Field(0.5, ge=0, le=1, description="Value below which the mask is penalised.")
        smooth: float = Field(0.1, ge=0, description="Weight of the total variation.")

    options: Options

    def forward(self, batch: SwapBatch, output: SwapResult, swapper: Swapper) -> Tensor:
        """Return the loss, a scalar."""
        mask = generator_mask(output)
        steps = mask.diff(dim=2).abs().mean() + mask.diff(dim=3).abs().mean()
        return F.relu(self.options.least - mask).mean() + self.options.smooth * steps
