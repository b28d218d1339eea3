"""What lies in front of a face, told without a segmentation network: what a generator of faces cannot paint.

FaceShifter's heuristic error (arXiv:1912.13457, equation 9) is the target less what the generator makes of the target
with the target's own identity. HEAR-Net learns from it; here it is taken as it is: where it is large, over a region
that is large or that reaches out of the face, the target's pixels stay. Mouths, glasses and beards are hard to paint,
too; asking for such a region leaves most of them alone.
"""

import cv2
import numpy as np

ERROR = 20.0  # grey levels, mean of the channels, blurred by BLUR
BLUR = 0.02  # standard deviation, in units of the crop's side
SMALLEST, LARGE = 0.003, 0.02  # of the crop's area: what is less is noise, and what is more counts even inside the face
SOFT = 0.015  # standard deviation of the edge's blur, in units of the crop's side
OUTSIDE = 0.1  # of the face's mask, below which a pixel lies outside of the face


def occlusion_mask(target: np.ndarray, itself: np.ndarray, face: np.ndarray) -> np.ndarray:
    """How much of the target to keep, (S, S) float32 in 0..1.

    Parameters
    ----------
    target:
        The target's crop, (S, S, 3) uint8.
    itself:
        What the generator makes of it with its own identity, (S, S, 3) uint8.
    face:
        (S, S) 0..1, the face's mask, such as the hull of its landmarks.
    """
    size = len(target)
    error = np.abs(target.astype(np.float32) - itself).mean(axis=2)
    large = (cv2.GaussianBlur(error, (0, 0), BLUR * size) > ERROR).astype(np.uint8)
    count, regions, table, _ = cv2.connectedComponentsWithStats(large)
    kept = np.zeros_like(error)
    for number in range(1, count):
        region = regions == number
        share = table[number, cv2.CC_STAT_AREA] / size**2
        if share > LARGE or (share > SMALLEST and (face[region] < OUTSIDE).any()):
            kept[region] = 1
    wider = cv2.dilate(kept, np.ones((3, 3), np.uint8))
    return np.asarray(cv2.GaussianBlur(wider, (0, 0), SOFT * size), dtype=np.float32).clip(0, 1)
