"""Feature reconstruction loss: distance of swap and ground truth in the features of a pretrained network.

Johnson et al., arXiv:1603.08155, section 3.1.
"""

import torch
from pydantic import Field
from torch import Tensor

from fsf_losses.efficientnet_lite import EfficientNetLite0, scaled_to
from fsframework.core.components import Loss
from fsframework.core.swapper import Swapper
from fsframework.core.types import SwapBatch, SwapResult
from fsframework.ops.precision import without_autocast


class FeatureReconstruction(Loss):
    """Feature reconstruction: distance of swap and ground truth in features of EfficientNet-Lite0 (arXiv:1603.08155).

    The distance is the mean absolute difference, relative to the ground truth's mean absolute feature, averaged over
    the maps of strides 4 to 32. Johnson et al. square it and use one map of VGG-16. Only pairs whose ground truth is
    known at every pixel are compared, such as self pairs.
    """

    name = "feature-reconstruction"

    class Options(Loss.Options):
        side: int | None = Field(
            None,
            ge=64,
            multiple_of=32,
            description="Side in pixels to which images are scaled for the trunk; null: the crop's, at least 128.",
        )

    options: Options

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.trunk = EfficientNetLite0()

    def load(self) -> None:
        """Load the trunk's weights. Raises UserError if their package is not installed or its file was changed."""
        self.trunk.load()

    def forward(self, batch: SwapBatch, output: SwapResult, swapper: Swapper) -> Tensor:
        """Return the loss, a scalar; 0 for a batch without known ground truth."""
        known = batch.valid_mask.amin(dim=(1, 2, 3)) >= 1
        if not bool(known.any()):
            return output.image.sum() * 0.0
        with without_autocast(output.image.device):
            swaps = self.trunk(scaled_to(output.image[known].float(), self.options.side))
            with torch.no_grad():
                truths = self.trunk(scaled_to(batch.ground_truth[known].float(), self.options.side))
        distances = []
        for swap, truth in zip(swaps, truths, strict=True):
            magnitude = truth.abs().mean(dim=(1, 2, 3))  # (B,)
            distances.append(((swap - truth).abs().mean(dim=(1, 2, 3)) / magnitude.clamp(min=1e-6)).mean())
        return torch.stack(distances).mean()
