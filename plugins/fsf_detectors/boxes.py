"""Box operations of detectors: squaring, regression and non-maximum suppression. Boxes are left, top, right, bottom."""

from collections.abc import Callable

import cv2
import numpy as np
import torch
from torch import Tensor

Rule = Callable[[np.ndarray, np.ndarray, float], np.ndarray]  # boxes, scores, threshold -> indices


def square(boxes: Tensor) -> Tensor:
    """Return squares (N, 4) with the boxes' centres and longer sides."""
    sides = boxes[:, 2:] - boxes[:, :2]
    longest = sides.amax(dim=1, keepdim=True)
    corner = boxes[:, :2] + sides * 0.5 - longest * 0.5
    return torch.cat([corner, corner + longest], dim=1)


def move(boxes: Tensor, shifts: Tensor, extra: int) -> Tensor:
    """Return boxes (N, 4) with edges moved by `shifts` (N, 4), in units of the sides plus `extra` pixels."""
    sides = boxes[:, 2:] - boxes[:, :2] + extra
    return boxes + shifts * torch.cat([sides, sides], dim=1)


def best(rule: Rule, boxes: Tensor, scores: Tensor, owners: Tensor, threshold: float) -> Tensor:
    """Return the indices (n,) int64 of the boxes that `rule` keeps in each frame: by frame, best first.

    Parameters
    ----------
    rule:
        `by_union` or `by_smaller`.
    boxes, scores:
        (N, 4) and (N,).
    owners:
        (N,) int64, the frame of each box.
    threshold:
        Overlap in [0, 1] above which the worse of two boxes is suppressed.
    """
    order = owners.cpu().numpy().argsort(kind="stable")
    corners, confidence = boxes.cpu().numpy()[order], scores.cpu().numpy()[order]
    ends = np.bincount(owners.cpu().numpy()).cumsum()
    keep = [np.zeros(0, dtype=np.int64)]
    for start, end in zip([0, *ends], ends, strict=False):
        if end > start:
            keep.append(order[start:end][rule(corners[start:end], confidence[start:end], threshold)])
    return torch.from_numpy(np.concatenate(keep)).to(boxes.device)


def by_union(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> np.ndarray:
    """Return the indices (n,) int64 of one frame's boxes after non-maximum suppression by IoU, best first."""
    corners = boxes.astype(np.float64)
    rectangles = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)  # left, top, width, height
    return np.asarray(cv2.dnn.NMSBoxes(rectangles, scores, 0.0, threshold), dtype=np.int64)  # type: ignore[arg-type]


def by_smaller(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> np.ndarray:
    """Return indices as `by_union`, with overlap as intersection over the smaller area, which suppresses nested boxes.

    Boxes include their last pixel. Scores near 1 may be equal in float32. numpy's default sort then decides, as in
    facenet-pytorch.
    """
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    areas = (boxes[:, 2:] - boxes[:, :2] + 1).prod(axis=1)
    overlap = (high - low + 1).clip(min=0).prod(axis=2) / np.minimum(areas[:, None], areas)
    keep: list[int] = []
    for index in scores.argsort()[::-1]:
        if not (overlap[index, keep] > threshold).any():
            keep.append(int(index))
    return np.array(keep, dtype=np.int64)
