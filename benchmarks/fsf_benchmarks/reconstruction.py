"""Self-reconstruction: a swap of an image onto itself."""

from typing import Any, ClassVar

import numpy as np

from fsframework.core.components import Benchmark, Dataset, MetricInfo
from fsframework.core.types import SwapBatch, SwapResult
from fsframework.media.tensor import to_images


class Reconstruction(Benchmark):
    """Measure SSIM and PSNR of self-reconstruction; higher is better.

    Every target of the recipe's pairs is source and target. SSIM follows Wang et al. (IEEE TIP 2004) with their
    Gaussian window, averaged over red, green and blue. Whole crops are compared at their size; smaller crops are
    easier.
    """

    name = "reconstruction"
    pairing = "self"
    metrics: ClassVar = {
        "ssim": MetricInfo("", "higher", "Structural similarity of a picture and its self-reconstruction; at most 1."),
        "psnr": MetricInfo("dB", "higher", "Peak signal-to-noise ratio of the same; 60 for equal pictures."),
    }

    def measure_batch(self, batch: SwapBatch, swap: SwapResult, faces: Dataset) -> dict[str, Any]:
        pictures = list(zip(to_images(swap.image), to_images(batch.ground_truth), strict=True))
        ssim, psnr = (np.array([measure(*each) for each in pictures]) for measure in (similarity, signal_to_noise))
        return {"ssim": ssim, "psnr": psnr}


def similarity(image: np.ndarray, truth: np.ndarray) -> float:
    """Return the SSIM of two images (H, W, 3) uint8."""
    from skimage.metrics import structural_similarity  # imports SciPy, so imported on use

    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return float(structural_similarity(image, truth, data_range=255, channel_axis=2, **settings))


def signal_to_noise(image: np.ndarray, truth: np.ndarray) -> float:
    """Return the PSNR of two images (H, W, 3) uint8 in dB, at most 60."""
    from skimage.metrics import peak_signal_noise_ratio

    if (image == truth).all():
        return 60.0
    return min(60.0, float(peak_signal_noise_ratio(truth, image, data_range=255)))
