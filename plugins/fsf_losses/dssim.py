"""Structural dissimilarity, the reconstruction loss of DeepFaceLab (arXiv:2005.05535, section 3.2)."""

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from fsframework.core.components import Loss
from fsframework.core.swapper import Swapper
from fsframework.core.types import SwapBatch, SwapResult

C1, C2 = 0.01**2, 0.03**2  # for values in [0, 1] (Wang et al., 2004, section III.B)
REACH = 3.5  # standard deviations at which the window ends


class Dssim(Loss):
    """(1 - SSIM) / 2 of what the generator painted and the truth, over same pairs (Wang et al., IEEE TIP 2004).

    The window is a Gaussian; places whose window reaches beyond the picture are left out.
    """

    name = "dssim"

    class Options(Loss.Options):
        sigma: float = Field(1.5, ge=0.5, le=8, description="Standard deviation of the window, in pixels.")

    options: Options

    def forward(self, batch: SwapBatch, output: SwapResult, swapper: Swapper) -> Tensor:
        """A scalar, 0 to 1; 0 where a batch has no same pair."""
        if not bool(batch.same.any()):
            return output.coarse.sum() * 0.0
        likeness = ssim((output.coarse.float() + 1) / 2, (batch.ground_truth.float() + 1) / 2, self.options.sigma)
        return ((1 - likeness) / 2 * batch.same).sum() / batch.same.sum()


def ssim(one: Tensor, other: Tensor, sigma: float) -> Tensor:
    """Mean structural similarity (B,) of images (B, C, H, W) in [0, 1]."""
    radius = int(REACH * sigma + 0.5)
    places = torch.arange(-radius, radius + 1, dtype=one.dtype, device=one.device)
    window = torch.exp(-0.5 * (places / sigma) ** 2)
    window = window / window.sum()
    channels = one.shape[1]

    def smooth(x: Tensor) -> Tensor:
        rows = F.conv2d(x, window.reshape(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
        return F.conv2d(rows, window.reshape(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)

    mean_one, mean_other = smooth(one), smooth(other)
    var_one = smooth(one * one) - mean_one**2
    var_other = smooth(other * other) - mean_other**2
    together = smooth(one * other) - mean_one * mean_other
    light = (2 * mean_one * mean_other + C1) / (mean_one**2 + mean_other**2 + C1)
    structure = (2 * together + C2) / (var_one + var_other + C2)
    return (light * structure).mean(dim=(1, 2, 3))
