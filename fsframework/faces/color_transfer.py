"""Making a swapped crop agree with its target before it is pasted: three ways to match colours, and Poisson's equation.

Crops are (S, S, 3) uint8, masks (S, S) in 0..1: how much of the swap is taken. A pixel counts as inside from `INSIDE`.
"""

import cv2
import numpy as np

INSIDE = 0.5
MASK_EDGE = (0.05, 0.95)  # between these a mask fades


def mask_edge(mask: np.ndarray) -> np.ndarray:
    """Where a mask's edge is: (S, S) bool."""
    edge: np.ndarray = (mask > MASK_EDGE[0]) & (mask < MASK_EDGE[1])
    return edge


def match_boundary_color(image: np.ndarray, target: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The image, shifted by one colour to agree with the target where the mask fades.

    The shift is the median difference there, so that a strand of hair on the edge does not colour the face.
    """
    edge = mask_edge(mask)
    if not edge.any():
        return image
    shift = np.median(target[edge].astype(np.float32) - image[edge], axis=0)
    toned: np.ndarray = np.rint(np.clip(image + shift, 0, 255)).astype(np.uint8)
    return toned


def reinhard_transfer(image: np.ndarray, target: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The image with the target's mean and standard deviation of each Lab channel inside the mask.

    Reinhard et al., IEEE Computer Graphics and Applications 2001; they take the decorrelated space l-alpha-beta.
    """
    inside = mask > INSIDE
    if inside.sum() < 2:
        return image
    own, wanted = (cv2.cvtColor(each.astype(np.float32) / 255, cv2.COLOR_RGB2Lab) for each in (image, target))
    mean, spread = own[inside].mean(axis=0), own[inside].std(axis=0)
    factor = wanted[inside].std(axis=0) / np.maximum(spread, 1e-3)
    matched = (own - mean) * factor + wanted[inside].mean(axis=0)
    rgb = cv2.cvtColor(matched.astype(np.float32), cv2.COLOR_Lab2RGB)
    toned: np.ndarray = np.rint(np.clip(rgb, 0, 1) * 255).astype(np.uint8)
    return toned


def match_histogram(image: np.ndarray, target: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The image with the target's histogram of each channel inside the mask.

    What is learned inside is done to the whole image, so that no line shows where the inside ends.
    """
    inside = mask > INSIDE
    if inside.sum() < 2:
        return image
    made = np.empty_like(image)
    for channel in range(image.shape[2]):
        own, wanted = (_ranks(each[..., channel][inside]) for each in (image, target))
        levels = np.interp(own, wanted, np.arange(256))
        made[..., channel] = np.rint(levels).astype(np.uint8)[image[..., channel]]
    return made


def _ranks(values: np.ndarray) -> np.ndarray:
    """For each of 256 levels the share (256,) of values below it, with half of those that equal it."""
    counts = np.bincount(values, minlength=256)
    ranks: np.ndarray = (counts.cumsum() - counts / 2) / counts.sum()
    return ranks


def poisson_blend(image: np.ndarray, target: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The image's gradients inside the mask, fitted into the target (Perez et al., SIGGRAPH 2003).

    A mask that reaches the crop's border ends before it, where the solution is held to the target. A mask of fewer than
    three pixels a side gives the target.
    """
    inside = np.where(mask > INSIDE, np.uint8(255), np.uint8(0))
    inside[[0, -1]] = 0
    inside[:, [0, -1]] = 0
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if len(rows) < 3 or len(columns) < 3:
        return target.copy()
    # OpenCV puts the middle of the mask's bounding box where it is told: here it must stay.
    centre = (int(columns[0] + columns[-1] + 1) // 2, int(rows[0] + rows[-1] + 1) // 2)
    return np.asarray(cv2.seamlessClone(image, target, inside, centre, cv2.NORMAL_CLONE))
