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


WORD = "synthetic"
SHARE = 0.04  # height of the letters, of the picture's shorter side
SMALLEST = 11.0  # pixels of that
_FONT, _THIN = cv2.FONT_HERSHEY_SIMPLEX, 0.1  # lines of a tenth of the letters' height


def draw_label(image: np.ndarray, word: str = WORD) -> np.ndarray:
    """A picture (H, W, 3) uint8 with a word, white on a dark plate, in the lower left corner.

    The letters' height is SHARE of the shorter side, and SMALLEST pixels at least; in a picture too narrow for that
    the word takes the whole width.
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
    """Width and height of a word in pixels; what reaches below the line counts."""
    (width, height), below = cv2.getTextSize(word, _FONT, scale, 1)
    return width, height + below // 2
