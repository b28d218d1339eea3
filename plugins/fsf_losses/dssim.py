"""Structural dissimilarity, the reconstruction loss of DeepFaceLab (arXiv:2005.05535, section 3.2)."""

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from fsframework.core.components import Loss
from fsframework.core.swapper import Swapper
from fsframework.core.types import SwapBatch, SwapResult

C1, C2 = 0.01**2, 0.03**2  # for values in [0, 1] (Wang et al., 2004, section III.B)
REACH = 3.5  # radius of the window, in standard deviations


class Dssim(Loss):
    """DSSIM loss: (1 - SSIM) / 2 of coarse swap and ground truth over self pairs (Wang et al., IEEE TIP 2004).

    Reversed pairs count as self pairs. The window is a Gaussian. Pixels whose window exceeds the image are excluded.
    """

    name = "dssim"

    class Options(Loss.Options):
        sigma: float = Field(1.5, ge=0.5, le=8, description="Standard deviation of the window, in pixels.")

    options: Options

    def forward(self, batch: SwapBatch, output: SwapResult, swapper: Swapper) -> Tensor:
        """Return the loss, a scalar in [0, 1]; 0 for a batch without self pairs."""
        supervised = batch.supervised
        if not bool(supervised.any()):
            return output.coarse.sum() * 0.0
        similarity = ssim((output.coarse.float() + 1) / 2, (batch.ground_truth.float() + 1) / 2, self.options.sigma)
        return ((1 - similarity) / 2 * supervised).sum() / supervised.sum()


def ssim(first: Tensor, second: Tensor, sigma: float) -> Tensor:
    """Return the mean structural similarity (B,) of images (B, C, H, W) in [0, 1]."""
    radius = int(REACH * sigma + 0.5)
    offsets = torch.arange(-radius, radius + 1, dtype=first.dtype, device=first.device)
    window = torch.exp(-0.5 * (offsets / sigma) ** 2)
    window = window / window.sum()
    channels = first.shape[1]

    def smooth(x: Tensor) -> Tensor:
        rows = F.conv2d(x, window.reshape(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
        return F.conv2d(rows, window.reshape(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)

    mean_first, mean_second = smooth(first), smooth(second)
    var_first = smooth(first * first) - mean_first**2
    var_second = smooth(second * second) - mean_second**2
    covariance = smooth(first * second) - mean_first * mean_second
    luminance = (2 * mean_first * mean_second + C1) / (mean_first**2 + mean_second**2 + C1)
    structure = (2 * covariance + C2) / (var_first + var_second + C2)
    return (luminance * structure).mean(dim=(1, 2, 3))
