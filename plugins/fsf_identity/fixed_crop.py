"""The fixed rectangle of a whole-head aligned crop that a recogniser wants to see."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fsframework.faces.align import TEMPLATE, resampling_matrix
from fsframework.ops.precision import without_autocast


def box_to(points: Sequence[Sequence[float]], landmarks: Sequence[int], width: int) -> tuple[float, float, float]:
    """The box of `alignment.crop_box` that brings landmarks of the template nearest to given points.

    Only a shift and one scale are fitted, by least squares: aligned crops are upright already.

    Parameters
    ----------
    points:
        (N, 2) where the landmarks should lie, in pixels of the recogniser's input.
    landmarks:
        The N rows of the template that they belong to.
    width:
        Of the recogniser's input in pixels.
    """
    goals = np.asarray(points, dtype=np.float64) + 0.5  # from the outer edge of the first pixel
    places = TEMPLATE[list(landmarks)]
    g, p = goals - goals.mean(axis=0), places - places.mean(axis=0)
    scale = (p * g).sum() / (p**2).sum()  # input pixels a crop side
    left, top = places.mean(axis=0) - goals.mean(axis=0) / scale
    return float(left), float(top), float(width / scale)


class FixedCrop:
    """`alignment.crop_box` with a box and a size that never change, fit for every training step.

    The two interpolation matrices are made once for each side, device and precision. Half-precision images are
    cropped in float32, under autocast too, because interpolation in bfloat16 would cost accuracy and saves nothing.

    Parameters
    ----------
    box:
        Left, top and width in units of the crop's side.
    size:
        Height and width in pixels of what is returned.
    """

    def __init__(self, box: tuple[float, float, float], size: tuple[int, int]) -> None:
        self.box = box
        self.size = size
        self._matrices: dict[tuple[int, torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}

    def __call__(self, images: Tensor) -> Tensor:
        """Images (B, C, S, S) to (B, C, height, width); differentiable."""
        dtype = torch.promote_types(images.dtype, torch.float32)
        with without_autocast(images.device):
            rows, columns = self._interpolation(images.shape[-1], images.device, dtype)
            return rows @ images.to(dtype) @ columns

    def _interpolation(self, side: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        key = (side, device, dtype)
        if key not in self._matrices:
            height, width = self.size
            left, top, extent = (value * side for value in self.box)
            with torch.inference_mode(False):  # a training step may use what an evaluation made
                rows = resampling_matrix(top, extent * height / width, side, height)
                columns = resampling_matrix(left, extent, side, width).T.contiguous()
                self._matrices[key] = rows.to(device, dtype), columns.to(device, dtype)
        return self._matrices[key]
