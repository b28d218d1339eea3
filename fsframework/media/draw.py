"""Draw grids of images with column headings, and labels on images."""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

SIDE = 128  # of an image in the grid, in pixels
HEADING = 22  # height of the headings, in pixels


def grid(pictures: Mapping[str, Sequence[np.ndarray]]) -> np.ndarray:
    """Arrange images (S, S, 3) uint8 in a grid; return it, (H, W, 3) uint8.

    `pictures` maps each column's heading to its images, one per row.
    """
    columns = []
    for name, images in pictures.items():
        heading = np.full((HEADING, SIDE + 4, 3), 255, np.uint8)
        scale = min(0.45, 0.45 * (SIDE / cv2.getTextSize(name, cv2.FONT_HERSHEY_SIMPLEX, 0.45, 1)[0][0]))
        cv2.putText(heading, name, (2, HEADING - 7), cv2.FONT_HERSHEY_SIMPLEX, scale, (0, 0, 0), 1, cv2.LINE_AA)
        large = [cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC) for image in images]
        padded = [np.pad(image, ((2, 2), (2, 2), (0, 0)), constant_values=255) for image in large]
        columns.append(np.vstack([heading, *padded]))
    return np.hstack(columns)


WORD = "synthetic"
SHARE = 0.04  # height of the letters, in units of the image's shorter side
SMALLEST = 11.0  # smallest height, in pixels
_FONT, _THIN = cv2.FONT_HERSHEY_SIMPLEX, 0.1  # thickness of the strokes, in units of the letters' height


def draw_label(image: np.ndarray, word: str = WORD) -> np.ndarray:
    """Return a copy of an image (H, W, 3) uint8 with a word in the lower left corner, white on a dark plate.

    The letters' height is SHARE of the shorter side, and at least SMALLEST pixels. In a narrower image the word takes
    the whole width.
    """
    height, width = image.shape[:2]
    letters = max(SMALLEST, SHARE * min(height, width))
    scale = letters / _size(word, 1.0)[1]
    scale *= min(1.0, width / (_size(word, scale)[0] + letters))
    wide, high = _size(word, scale)
    margin = max(1, round(high / 2))
    plate = image[max(0, height - high - 2 * margin) :, : wide + 2 * margin]
    labelled = image.copy()
    labelled[-plate.shape[0] :, : plate.shape[1]] = plate // 4
    thickness = max(1, round(_THIN * high))
    cv2.putText(labelled, word, (margin, height - margin), _FONT, scale, (255, 255, 255), thickness, cv2.LINE_AA)
    return labelled


def _size(word: str, scale: float) -> tuple[int, int]:
    """Return the width and height of a word in pixels, including half of the descenders."""
    (width, height), baseline = cv2.getTextSize(word, _FONT, scale, 1)
    return width, height + baseline // 2
