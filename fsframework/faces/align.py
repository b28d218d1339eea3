"""Align detected faces as whole-head crops, and paste crops back into the frame.

The template places five landmarks so that crops show the whole head with some background, as in FFHQ
(Karras et al., arXiv:1812.04948, appendix A) and in FaceShifter (arXiv:1912.13457, section 4.1). A similarity
transform (shift, rotation, one scale) is fitted by least squares (Umeyama, PAMI 1991). Matrices are (2, 3) and map
(x, y) pixels of the frame to pixels of the crop; (0, 0) is the centre of the first pixel.
"""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from fsframework.core.types import AlignedFace, Face

# Five landmarks in units of the crop's side, measured from its top left corner: eyes, nose, mouth corners.
TEMPLATE = np.array([[0.383, 0.477], [0.625, 0.477], [0.504, 0.610], [0.397, 0.743], [0.610, 0.743]])

SAMPLES = 16  # per axis, at most, averaged into one pixel; bounds the cost of very large faces


def template(size: int) -> np.ndarray:
    """Return the template's landmarks (5, 2) in pixels of a crop with side `size`."""
    return TEMPLATE * size - 0.5


def fit_similarity(points: np.ndarray, goals: np.ndarray) -> np.ndarray:
    """Return the similarity transform (2, 3) from points (N, 2) to goals (N, 2), by least squares.

    Raises
    ------
    ValueError
        The points coincide.
    """
    centre, goal_centre = points.mean(axis=0), goals.mean(axis=0)
    p, g = points - centre, goals - goal_centre
    spread = (p**2).sum()
    if spread == 0:
        raise ValueError("the points coincide, so no scale can be computed")
    # skimage's SimilarityTransform is equal within 1e-12, but four times as slow and 0.6 s of import in each swap.
    # With points as complex numbers the best rotation and scale is one complex factor.
    a = (p * g).sum() / spread
    b = (p[:, 0] * g[:, 1] - p[:, 1] * g[:, 0]).sum() / spread
    linear = np.array([[a, -b], [b, a]])
    return np.column_stack([linear, goal_centre - linear @ centre])


def invert(matrix: np.ndarray) -> np.ndarray:
    """Return the matrix (2, 3) of the inverse transform."""
    linear = np.linalg.inv(matrix[:, :2])
    return np.column_stack([linear, -linear @ matrix[:, 2]])


def transform(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Return points (N, 2) transformed by a matrix (2, 3)."""
    transformed: np.ndarray = points @ matrix[:, :2].T + matrix[:, 2]
    return transformed


def align(frame: np.ndarray, face: Face, size: int) -> AlignedFace:
    """Return the whole-head crop of one face.

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
    return AlignedFace(image=warp(frame, matrix, size), matrix=matrix, face=face, inside=_inside(frame, matrix, size))


def _inside(frame: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray | None:
    """Return where a crop (size, size) shows a frame and no repeated pixels, or None if it does everywhere."""
    height, width = frame.shape[:2]
    back, last = invert(matrix), size - 1
    corners = transform(np.array([[0.0, 0], [last, 0], [0, last], [last, last]]), back)
    if (corners >= -0.5).all() and (corners <= [width - 0.5, height - 0.5]).all():
        return None
    points = transform(np.indices((size, size))[::-1].reshape(2, -1).T.astype(np.float64), back)
    shown = np.all((points >= -0.5) & (points <= [width - 0.5, height - 0.5]), axis=1)
    return np.reshape(shown, (size, size))


def crop_side(face: Face) -> float:
    """Return the side of a face's aligned crop in pixels of its frame; crops of this side neither enlarge nor shrink.

    `align` raises ValueError where this does.
    """
    a, b = fit_similarity(face.landmarks.astype(np.float64), TEMPLATE)[:, 0]
    return float(1 / np.hypot(a, b))


def warp(frame: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
    """Return a crop (size, size, 3) of a frame, whose edge pixels repeat outside of it.

    A crop that is smaller than its region is averaged, to avoid aliasing.
    """
    return _resample(frame, matrix, (size, size), cv2.BORDER_REPLICATE)


def _resample(image: np.ndarray, matrix: np.ndarray, size: tuple[int, int], border: int, value: int = 0) -> np.ndarray:
    """Return an image warped by a matrix (2, 3) to `size` (width, height); `value` is that of a constant border.

    Enlarging is bicubic. Shrinking averages as many samples as the image has pixels, up to `SAMPLES` per axis for
    each pixel of the result.
    """
    scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    samples = int(np.clip(np.ceil(1 / scale - 1e-6), 1, SAMPLES))
    # Pixel u of the result covers the fine pixels samples * u to samples * u + samples - 1.
    fine = matrix * samples
    fine[:, 2] += (samples - 1) / 2
    wide, tall = size[0] * samples, size[1] * samples
    smooth = cv2.INTER_CUBIC if samples == 1 else cv2.INTER_LINEAR
    result = cv2.warpAffine(image, fine, (wide, tall), flags=smooth, borderMode=border, borderValue=(value,) * 4)
    return result if samples == 1 else cv2.resize(result, size, interpolation=cv2.INTER_AREA)


def resampling_matrix(start: float | Tensor, length: float | Tensor, source: int, size: int) -> Tensor:
    """Return linear interpolation along one axis as a matrix (size, source), which averages where it shrinks.

    Parameters
    ----------
    start, length:
        The interval to resample, in source pixels from the first pixel's outer edge: numbers, or scalar tensors on
        the device of the result.
    source, size:
        Pixels before and after.
    """
    step = length / size
    device = step.device if isinstance(step, Tensor) else None
    centres = start + (torch.arange(size, device=device) + 0.5) * step - 0.5  # in source pixel coordinates
    centres = centres.clamp(0, source - 1)  # edge pixels repeat
    reach = step.clamp(min=1.0) if isinstance(step, Tensor) else max(step, 1.0)
    distance = (torch.arange(source, device=device) - centres[:, None]).abs() / reach
    weights = (1 - distance).clamp(min=0)
    return weights / weights.sum(dim=1, keepdim=True)


def crop_box(images: Tensor, box: Sequence[float | Tensor], size: tuple[int, int]) -> Tensor:
    """Return an axis-aligned rectangle of aligned crops, resized: (B, C, height, width), differentiable.

    Parameters
    ----------
    images:
        (B, C, S, S).
    box:
        Left, top and width in units of the crop's side: numbers, or scalar tensors on the images' device. The height
        follows from `size`.
    size:
        Height and width of the result, in pixels.
    """
    height, width = size
    side = images.shape[-1]
    left, top, extent = (value * side for value in box)
    rows = resampling_matrix(top, extent * height / width, side, height).to(images)
    columns = resampling_matrix(left, extent, side, width).to(images)
    return rows @ images @ columns.T
