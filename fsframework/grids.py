"""Pictures in a grid with names above its columns."""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

SIDE = 128  # pixels of a picture
HEAD = 22  # pixels of the line of names


def grid(pictures: Mapping[str, Sequence[np.ndarray]]) -> np.ndarray:
    """Pictures (S, S, 3) uint8 by the name of their column, which stands above it; a row for each pair."""
    columns = []
    for name, images in pictures.items():
        head = np.full((HEAD, SIDE + 4, 3), 255, np.uint8)
        scale = min(0.45, 0.45 * (SIDE / cv2.getTextSize(name, cv2.FONT_HERSHEY_SIMPLEX, 0.45, 1)[0][0]))
        cv2.putText(head, name, (2, HEAD - 7), cv2.FONT_HERSHEY_SIMPLEX, scale, (0, 0, 0), 1, cv2.LINE_AA)
        large = [cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC) for image in images]
        padded = [np.pad(image, ((2, 2), (2, 2), (0, 0)), constant_values=255) for image in large]
        columns.append(np.vstack([head, *padded]))
    return np.hstack(columns)
