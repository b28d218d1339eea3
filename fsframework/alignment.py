"""From a detected face to a whole-head aligned crop, and back into the frame.

The template puts five landmarks where they lie in crops that show the whole head with some background, as in FFHQ
(Karras et al., arXiv:1812.04948, appendix A) and in FaceShifter (arXiv:1912.13457, section 4.1). A similarity
transform (shift, rotation, one scale) is fitted by least squares (Umeyama, PAMI 1991). Matrices are (2, 3) and take
(x, y) pixels of the frame to pixels of the crop; (0, 0) is the centre of the first pixel.
"""

import cv2
import numpy as np
import torch
from torch import Tensor

from fsframework.types import AlignedFace, Face

# Five landmarks in units of the crop's side, measured from its top left corner: eyes, nose, mouth corners.
TEMPLATE = np.array([[0.383, 0.477], [0.625, 0.477], [0.504, 0.610], [0.397, 0.743], [0.610, 0.743]])


def template(size: int) -> np.ndarray:
    """The template's landmarks (5, 2) in pixels of a crop whose side is `size`."""
    return TEMPLATE * size - 0.5


def fit_similarity(points: np.ndarray, goals: np.ndarray) -> np.ndarray:
    """The similarity (2, 3) that takes points (N, 2) nearest to goals (N, 2), by least squares.

    Raises
    ------
    ValueError
        The points coincide.
    """
    centre, goal_centre = points.mean(axis=0), goals.mean(axis=0)
    p, g = points - centre, goals - goal_centre
    spread = (p**2).sum()
    if spread == 0:
        raise ValueError("the points coincide, so no scale can be found")
    # With points as complex numbers the best rotation and scale is one complex factor.
    a = (p * g).sum() / spread
    b = (p[:, 0] * g[:, 1] - p[:, 1] * g[:, 0]).sum() / spread
    linear = np.array([[a, -b], [b, a]])
    return np.column_stack([linear, goal_centre - linear @ centre])


def invert(matrix: np.ndarray) -> np.ndarray:
    """The (2, 3) matrix of the inverse transform."""
    linear = np.linalg.inv(matrix[:, :2])
    return np.column_stack([linear, -linear @ matrix[:, 2]])


def transform(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Points (N, 2) taken through a (2, 3) matrix."""
    return points @ matrix[:, :2].T + matrix[:, 2]


def align(frame: np.ndarray, face: Face, size: int) -> AlignedFace:
    """The whole-head crop of one face.

    Parameters
    ----------
    frame:
        (H, W, 3) uint8 RGB.
    face:
        A face in that frame.
    size:
        Side of the crop in pixels.
    """
    matrix = fit_similarity(face.landmarks.astype(np.float64), template(size))
    return AlignedFace(image=warp(frame, matrix, size), matrix=matrix, face=face)


def warp(frame: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
    """A crop (size, size, 3) of a frame. Outside the frame its edge pixels repeat.

    A face larger than the crop is first reduced by averaging, so that nothing aliases.
    """
    scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    factor = int(1 / scale) if scale < 1 else 1
    if factor > 1:
        frame, matrix = _reduce(frame, matrix, size, factor)
    return cv2.warpAffine(frame, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _reduce(frame: np.ndarray, matrix: np.ndarray, size: int, factor: int) -> tuple[np.ndarray, np.ndarray]:
    """The part of the frame that the crop shows, averaged over factor x factor pixels, and the matrix from there."""
    corners = transform(np.array([[0, 0], [size, 0], [0, size], [size, size]], dtype=np.float64), invert(matrix))
    height, width = frame.shape[:2]
    low = np.maximum(np.floor(corners.min(axis=0)) - factor, 0).astype(int)
    high = np.minimum(np.ceil(corners.max(axis=0)) + factor + 1, [width, height]).astype(int)
    part = frame[low[1] : high[1], low[0] : high[0]]
    if min(part.shape[:2]) < factor:
        return frame, matrix
    wide, tall = part.shape[1] // factor, part.shape[0] // factor
    part = part[: tall * factor, : wide * factor]
    small = cv2.resize(part, (wide, tall), interpolation=cv2.INTER_AREA)
    # Pixel u of the reduced part lies at factor * u + (factor - 1) / 2 + low of the frame.
    back = np.array([[factor, 0, low[0] + (factor - 1) / 2], [0, factor, low[1] + (factor - 1) / 2], [0, 0, 1]])
    return small, matrix @ back


def paste(frame: np.ndarray, crop: np.ndarray, matrix: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The frame with a crop put back in its place.

    Parameters
    ----------
    frame:
        (H, W, 3) uint8.
    crop:
        (S, S, 3) uint8.
    matrix:
        (2, 3), from frame pixels to crop pixels.
    mask:
        (S, S) 0..1, how much of the crop to take. It should be 0 at the crop's border.
    """
    height, width = frame.shape[:2]
    size = len(crop)
    corners = transform(np.array([[0, 0], [size, 0], [0, size], [size, size]], dtype=np.float64), invert(matrix))
    left, top = np.maximum(np.floor(corners.min(axis=0)), 0).astype(int)
    right, bottom = np.minimum(np.ceil(corners.max(axis=0)) + 1, [width, height]).astype(int)
    if right <= left or bottom <= top:
        return frame.copy()
    shifted = matrix.copy()
    shifted[:, 2] += matrix[:, :2] @ np.array([left, top])
    how = dict(dsize=(int(right - left), int(bottom - top)), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    alpha = cv2.warpAffine(mask.astype(np.float32), shifted, **how)[..., None]
    colour = cv2.warpAffine(crop, shifted, borderMode=cv2.BORDER_REPLICATE, **how).astype(np.float32)
    result = frame.copy()
    region = result[top:bottom, left:right]
    region[:] = np.rint(alpha * colour + (1 - alpha) * region).astype(np.uint8)
    return result


def soft_mask(size: int) -> np.ndarray:
    """An oval over the face, forehead to chin, that fades to 0 before the crop's border: (size, size) float32 0..1."""
    y, x = (np.mgrid[:size, :size] + 0.5) / size
    radius = np.hypot((x - 0.504) / 0.33, (y - 0.60) / 0.38)
    return np.clip((1 - radius) / 0.2, 0, 1).astype(np.float32)


def resampling_matrix(start: float, length: float, source: int, size: int) -> Tensor:
    """Linear interpolation along one axis as a matrix (size, source), averaged where it shrinks.

    Parameters
    ----------
    start, length:
        The interval to show, in source pixels measured from the first pixel's outer edge.
    source, size:
        Pixels before and after.
    """
    step = length / size
    centres = start + (torch.arange(size) + 0.5) * step - 0.5  # in source pixel coordinates
    centres = centres.clamp(0, source - 1)  # edge pixels repeat
    distance = (torch.arange(source) - centres[:, None]).abs() / max(step, 1.0)
    weights = (1 - distance).clamp(min=0)
    return weights / weights.sum(dim=1, keepdim=True)


def crop_box(images: Tensor, box: tuple[float, float, float], size: tuple[int, int]) -> Tensor:
    """An upright rectangle of aligned crops, resized; differentiable.

    Parameters
    ----------
    images:
        (B, C, S, S).
    box:
        Left, top and width in units of the crop's side; the height follows from `size`.
    size:
        Height and width in pixels of what is returned, (B, C, height, width).
    """
    height, width = size
    side = images.shape[-1]
    left, top, extent = (value * side for value in box)
    rows = resampling_matrix(top, extent * height / width, side, height).to(images)
    columns = resampling_matrix(left, extent, side, width).to(images)
    return rows @ images @ columns.T
