"""Frames as detectors work on them: those of one size together."""

from collections import defaultdict

import numpy as np


def by_size(frames: list[np.ndarray]) -> list[list[int]]:
    """Places of the frames (H, W, 3), those of one shape in one list."""
    places: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for place, frame in enumerate(frames):
        places[frame.shape].append(place)
    return list(places.values())
