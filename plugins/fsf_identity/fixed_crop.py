"""Crop a fixed box of a whole-head aligned crop as input of a recogniser."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fsframework.faces.align import TEMPLATE, resampling_matrix
from fsframework.ops.precision import without_autocast


def box_to(points: Sequence[Sequence[float]], landmarks: Sequence[int], width: int) -> tuple[float, float, float]:
    """Return the box (left, top, width) for `crop_box` that maps template landmarks to given points.

    Shift and scale are fitted by least squares, without rotation: aligned crops are upright.

    Parameters
    ----------
    points:
        (N, 2) positions of the landmarks, in pixels of the recogniser's input.
    landmarks:
        The N rows of the template.
    width:
        Width of the recogniser's input in pixels.
    """
    goals = np.asarray(points, dtype=np.float64) + 0.5  # relative to the outer edge of the first pixel
    template = TEMPLATE[list(landmarks)]
    g, p = goals - goals.mean(axis=0), template - template.mean(axis=0)
    scale = (p * g).sum() / (p**2).sum()  # input pixels per crop side
    left, top = template.mean(axis=0) - goals.mean(axis=0) / scale
    return float(left), float(top), float(width / scale)


class FixedCrop:
    """Differentiable crop and resize with a fixed box and size, like `fsframework.faces.align.crop_box`.

    The two interpolation matrices are cached per side, device and dtype. Half-precision images are cropped in float32,
    also under autocast, because bfloat16 interpolation loses accuracy and is not faster.

    Parameters
    ----------
    box:
        Left, top and width in units of the crop's side.
    size:
        Height and width of the result in pixels.
    """

    def __init__(self, box: tuple[float, float, float], size: tuple[int, int]) -> None:
        self.box = box
        self.size = size
        self._matrices: dict[tuple[int, torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}

    def __call__(self, images: Tensor) -> Tensor:
        """Return the crops (B, C, height, width) of images (B, C, S, S)."""
        dtype = torch.promote_types(images.dtype, torch.float32)
        with without_autocast(images.device):
            rows, columns = self._interpolation(images.shape[-1], images.device, dtype)
            return rows @ images.to(dtype) @ columns

    def _interpolation(self, side: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        key = (side, device, dtype)
        if key not in self._matrices:
            height, width = self.size
            left, top, extent = (value * side for value in self.box)
            with torch.inference_mode(False):  # cached in evaluation, used in training
                rows = resampling_matrix(top, extent * height / width, side, height)
                columns = resampling_matrix(left, extent, side, width).T.contiguous()
                self._matrices[key] = rows.to(device, dtype), columns.to(device, dtype)
        return self._matrices[key]
