"""Group frames of equal size for batched detection."""

from collections import defaultdict

import numpy as np


def by_size(frames: list[np.ndarray]) -> list[list[int]]:
    """Return the indices of the frames (H, W, 3), grouped by shape."""
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for index, frame in enumerate(frames):
        groups[frame.shape].append(index)
    return list(groups.values())
