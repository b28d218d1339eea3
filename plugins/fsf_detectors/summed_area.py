"""Summed-area tables: the mean over any rectangle of a frame by four reads. Crow, SIGGRAPH 1984.

Area resizing divides an interval into equal parts, rounds each outwards to whole pixels and takes the mean, as
`torch.nn.functional.adaptive_avg_pool2d`. Integer sums are exact, and boxes of all sizes are resized in one call.
"""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from fsframework.ops.csrc import build

GREY = 127.5  # of pixels outside of frames; 0 to networks
KERNELS = build.Kernels(Path(__file__).with_suffix(".c"), crop=(4, 5))


def tables(frames: list[np.ndarray], device: torch.device) -> Tensor:
    """Return the sums (B, H+1, W+1, 3) int32 over all pixels above and left of each pixel corner.

    Sums may overflow in frames of more than 8 million pixels; differences below 2^31 are exact all the same.

    Parameters
    ----------
    frames:
        (H, W, 3) uint8, all of one size.
    """
    return torch.stack([torch.from_numpy(cv2.integral(frame)) for frame in frames]).to(device)


def crop(sums: Tensor, boxes: Tensor, owners: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the boxes resized by area, (N, 3, h, w) float in 0..255, channels-last; in C on CPUs, else in torch.

    Outside of the frame pixels are `GREY`.

    Parameters
    ----------
    sums:
        `tables` (B, H+1, W+1, 3).
    boxes:
        (N, 4) int64 left, top, right, bottom in pixel corners, not empty. They may reach beyond their frames.
    owners:
        (N,) int64, the frame of each box.
    size:
        Height h and width w of the result.
    """
    if sums.device.type != "cpu" or not KERNELS.suit():
        return _crop(sums, boxes, owners, size)
    sums, boxes, owners = sums.contiguous(), boxes.contiguous(), owners.contiguous()
    crops = torch.empty(len(boxes), *size, 3)
    addresses = (value.data_ptr() for value in (sums, boxes, owners, crops))
    KERNELS.of().crop(*addresses, len(boxes), *sums.shape[1:3], *size)
    return crops.permute(0, 3, 1, 2)


def _crop(sums: Tensor, boxes: Tensor, owners: Tensor, size: tuple[int, int]) -> Tensor:
    height, width = sums.shape[1:3]
    left, top, right, bottom = boxes.unbind(1)
    rows, columns = _bins(top, bottom - top, size[0]), _bins(left, right - left, size[1])
    areas = _products(rows, columns)
    in_rows = [row.clamp(0, height - 1) for row in rows]
    in_columns = [column.clamp(0, width - 1) for column in columns]
    low, high = ((row + height * owners[:, None])[:, :, None] * width for row in in_rows)
    first, last = (column[:, None, :] for column in in_columns)
    corners = [high + last, high + first, low + last, low + first]
    a, b, c, d = (sums.flatten(0, 2).index_select(0, each.flatten()).unflatten(0, each.shape) for each in corners)
    outside = (areas - _products(in_rows, in_columns)).float() * GREY
    return (((a - b - c + d).float() + outside) / areas).permute(0, 3, 1, 2)


def _products(rows: Sequence[Tensor], columns: Sequence[Tensor]) -> Tensor:
    """Return the areas (N, h, w, 1) of the parts with these first and last corners, (N, h) and (N, w)."""
    return (rows[1] - rows[0])[:, :, None, None] * (columns[1] - columns[0])[:, None, :, None]


def _bins(start: Tensor, length: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return first and last pixel corner, (N, count) each, of the equal parts of intervals (N,)."""
    steps = torch.arange(count + 1, device=start.device) * length[:, None]
    return start[:, None] + steps[:, :-1] // count, start[:, None] - (-steps[:, 1:] // count)
