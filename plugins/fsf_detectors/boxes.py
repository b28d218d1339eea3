"""Boxes (N, 4) left, top, right, bottom, as detectors turn them: squares, shifts, and the best of many."""

from collections.abc import Callable

import cv2
import numpy as np
import torch
from torch import Tensor

Rule = Callable[[np.ndarray, np.ndarray, float], np.ndarray]  # boxes, scores, threshold -> places


def square(boxes: Tensor) -> Tensor:
    """Squares with the same centres, as wide as the longer sides."""
    sides = boxes[:, 2:] - boxes[:, :2]
    longest = sides.amax(dim=1, keepdim=True)
    corner = boxes[:, :2] + sides * 0.5 - longest * 0.5
    return torch.cat([corner, corner + longest], dim=1)


def move(boxes: Tensor, shifts: Tensor, extra: int) -> Tensor:
    """Boxes whose edges move by shifts (N, 4), in units of their sides; `extra` is added to the sides first."""
    sides = boxes[:, 2:] - boxes[:, :2] + extra
    return boxes + shifts * torch.cat([sides, sides], dim=1)


def best(rule: Rule, boxes: Tensor, scores: Tensor, owners: Tensor, threshold: float) -> Tensor:
    """Places of the boxes that `rule` keeps within each frame: frame by frame, best first.

    Parameters
    ----------
    rule:
        `by_union` or `by_smaller`.
    boxes, scores:
        (N, 4) and (N,).
    owners:
        (N,) int64, the frame of each box.
    threshold:
        The overlap, 0 to 1, from which on the worse of two boxes goes.
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
    """Places of the boxes of one frame, best first, that overlap no better one by more: intersection over union."""
    corners = boxes.astype(np.float64)
    rectangles = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)  # left, top, width, height
    return np.asarray(cv2.dnn.NMSBoxes(rectangles, scores, 0.0, threshold), dtype=np.int64)  # type: ignore[arg-type]


def by_smaller(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> np.ndarray:
    """As `by_union`, but over the smaller area, so that a box inside another one goes. The last pixel counts.

    Near 1 float32 has equal scores; numpy's default sort then decides, as it does in facenet-pytorch.
    """
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    areas = (boxes[:, 2:] - boxes[:, :2] + 1).prod(axis=1)
    overlap = (high - low + 1).clip(min=0).prod(axis=2) / np.minimum(areas[:, None], areas)
    keep: list[int] = []
    for place in scores.argsort()[::-1]:
        if not (overlap[place, keep] > threshold).any():
            keep.append(int(place))
    return np.array(keep, dtype=np.int64)
