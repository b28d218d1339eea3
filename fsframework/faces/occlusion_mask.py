"""Mask occlusions in front of a face by a generator's reconstruction error, or make a segmentation's eyes alike.

FaceShifter's heuristic error (arXiv:1912.13457, equation 9) is the target less its reconstruction: the generator's
output for the target with the target's own identity. HEAR-Net learns from this error; here it is thresholded. The
target's pixels are kept where the error is large, in regions that are large or that extend beyond the face. Mouths,
glasses and beards are hard to generate, too; the condition on the region excludes most of them.
"""

import cv2
import numpy as np

ERROR = 20.0  # grey levels, mean of the channels, blurred by BLUR
BLUR = 0.02  # standard deviation, in units of the crop's side
SMALLEST, LARGE = 0.003, 0.02  # of the crop's area: smaller regions are noise, larger ones count even inside the face
SOFT = 0.015  # standard deviation of the edge's blur, in units of the crop's side
EYE, LENS = 0.035, (0.115, 0.085)  # radii, in units of the crop's side, of an eye and of a lens in front of it
COVERED = (0.3, 0.6)  # means of a face's mask over an eye that is covered, and that is visible
OUTSIDE = 0.1  # value of the face's mask below which a pixel is outside of the face


def occlusion_mask(target: np.ndarray, reconstruction: np.ndarray, face: np.ndarray) -> np.ndarray:
    """Return how much of the target to keep, (S, S) float32 in 0..1.

    Parameters
    ----------
    target:
        The target's crop, (S, S, 3) uint8.
    reconstruction:
        The generator's output for the target with its own identity, (S, S, 3) uint8.
    face:
        (S, S) 0..1, the face's mask, such as the hull of its landmarks.
    """
    size = len(target)
    error = np.abs(target.astype(np.float32) - reconstruction).mean(axis=2)
    large = (cv2.GaussianBlur(error, (0, 0), BLUR * size) > ERROR).astype(np.uint8)
    count, regions, table, _ = cv2.connectedComponentsWithStats(large)
    mask = np.zeros_like(error)
    for number in range(1, count):
        region = regions == number
        area = table[number, cv2.CC_STAT_AREA] / size**2
        if area > LARGE or (area > SMALLEST and (face[region] < OUTSIDE).any()):
            mask[region] = 1
    wider = cv2.dilate(mask, np.ones((3, 3), np.uint8))
    return np.asarray(cv2.GaussianBlur(wider, (0, 0), SOFT * size), dtype=np.float32).clip(0, 1)


def equal_eyes(face: np.ndarray, eyes: np.ndarray) -> np.ndarray:
    """Return the visible face's mask (S, S) float32, where both eyes are covered if one is.

    A segmentation may find one lens of thin glasses and not the other. A swap with one eye of the target would show it.

    Parameters
    ----------
    face:
        (S, S) in 0..1, 1 where the face is visible.
    eyes:
        (2, 2) crop pixels.
    """
    size = len(face)
    y, x = np.mgrid[:size, :size].astype(np.float32)
    covered = []
    for left, top in eyes:
        near = np.hypot(x - left, y - top) < max(EYE * size, 1)
        mean = float(face[near].mean()) if near.any() else 1.0  # an eye outside of the crop
        covered.append(np.clip((COVERED[1] - mean) / (COVERED[1] - COVERED[0]), 0, 1))
    result = face.astype(np.float32)
    for (left, top), own, other in zip(eyes, covered, covered[::-1], strict=True):
        if other > own:
            radius = np.hypot((x - left) / (LENS[0] * size), (y - top) / (LENS[1] * size))
            result = np.minimum(result, 1 - other * np.clip((1.25 - radius) / 0.5, 0, 1))
    return result
