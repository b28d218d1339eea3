"""Match a swapped crop to its target before pasting: three colour transfers and Poisson blending.

Crops are (S, S, 3) uint8. Masks are (S, S) in 0..1: the share of the swap in each pixel. Pixels above `INSIDE` count as
inside.
"""

import cv2
import numpy as np

INSIDE = 0.5
MASK_EDGE = (0.05, 0.95)  # range of values of a mask's edge


def mask_edge(mask: np.ndarray) -> np.ndarray:
    """Return where a mask's edge is, (S, S) bool."""
    edge: np.ndarray = (mask > MASK_EDGE[0]) & (mask < MASK_EDGE[1])
    return edge


def match_boundary_color(image: np.ndarray, target: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the image, shifted by one colour to match the target at the mask's edge.

    The shift is the median difference there, so that a strand of hair on the edge does not colour the face.
    """
    edge = mask_edge(mask)
    if not edge.any():
        return image
    shift = np.median(target[edge].astype(np.float32) - image[edge], axis=0)
    toned: np.ndarray = np.rint(np.clip(image + shift, 0, 255)).astype(np.uint8)
    return toned


def reinhard_transfer(image: np.ndarray, target: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the image with the target's mean and standard deviation of crop Lab channel inside the mask.

    Reinhard et al., IEEE Computer Graphics and Applications 2001; they use the decorrelated space l-alpha-beta.
    """
    inside = mask > INSIDE
    if inside.sum() < 2:
        return image
    image_lab, target_lab = (cv2.cvtColor(crop.astype(np.float32) / 255, cv2.COLOR_RGB2Lab) for crop in (image, target))
    mean, spread = image_lab[inside].mean(axis=0), image_lab[inside].std(axis=0)
    factor = target_lab[inside].std(axis=0) / np.maximum(spread, 1e-3)
    matched = (image_lab - mean) * factor + target_lab[inside].mean(axis=0)
    rgb = cv2.cvtColor(matched.astype(np.float32), cv2.COLOR_Lab2RGB)
    toned: np.ndarray = np.rint(np.clip(rgb, 0, 1) * 255).astype(np.uint8)
    return toned


def match_histogram(image: np.ndarray, target: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the image with the target's histogram of crop channel inside the mask.

    The mapping is fitted inside and applied to the whole image, so that the mask's border leaves no visible line.
    """
    inside = mask > INSIDE
    if inside.sum() < 2:
        return image
    matched = np.empty_like(image)
    for channel in range(image.shape[2]):
        image_ranks, target_ranks = (_ranks(crop[..., channel][inside]) for crop in (image, target))
        levels = np.interp(image_ranks, target_ranks, np.arange(256))
        matched[..., channel] = np.rint(levels).astype(np.uint8)[image[..., channel]]
    return matched


def _ranks(values: np.ndarray) -> np.ndarray:
    """Return the share of values below each of 256 levels, (256,), counting half of the equal ones."""
    counts = np.bincount(values, minlength=256)
    ranks: np.ndarray = (counts.cumsum() - counts / 2) / counts.sum()
    return ranks


def poisson_blend(image: np.ndarray, target: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Blend the image's gradients inside the mask into the target (Perez et al., SIGGRAPH 2003); return the result.

    Outside the mask the result equals the target. A mask that reaches the crop's border is cut there, where the
    solution must equal the target. A mask of fewer than three pixels a side returns the target.
    """
    inside = mask > INSIDE
    inside[[0, -1]] = False
    inside[:, [0, -1]] = False
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if len(rows) < 3 or len(columns) < 3:
        return target.copy()
    # OpenCV moves the centre of the mask's bounding box to this point: its present position.
    centre = (int(columns[0] + columns[-1] + 1) // 2, int(rows[0] + rows[-1] + 1) // 2)
    # seamlessClone writes into its mask and takes the values as weights of gradients, so it gets a copy of 0 and 255.
    weights = np.where(inside, np.uint8(255), np.uint8(0))
    cloned = cv2.seamlessClone(image, target, weights, centre, cv2.NORMAL_CLONE)
    # It solves the equation in the whole bounding box, so that the target changes beside the mask, too.
    return np.where(inside[..., None], cloned, target)


def poisson_match(image: np.ndarray, target: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the Poisson blend wherever the mask is not 0, or the image itself if blending is not possible.

    The result replaces the image before alpha blending by the same mask, which hides the blend's own edge.
    """
    region = (mask > MASK_EDGE[0]).astype(np.float32)
    blended = poisson_blend(image, target, region)
    return image if (blended == target).all() else blended
