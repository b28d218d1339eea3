"""Make docs/true_swaps.png: rendered heads of the benchmark true-swap, and their ground-truth swaps.

    python docs/true_swaps.py

Each column holds a source, a target and their ground-truth swap. All heads are synthetic; nobody shown exists.
"""

from pathlib import Path

import numpy as np

from fsframework.core.part import part
from fsframework.data.eval_pairs import EvaluationPairs, draw_pairs
from fsframework.media.image_io import write_image
from fsframework.media.tensor import to_images

SIDE = 96  # of each image, in pixels
COLUMNS = 9
GAP = 2


def main() -> None:
    """Render the pairs and write the sheet."""
    faces = part("datasets", "rendered-heads").build(SIDE, None, "test")
    faces.load()
    (batch,) = EvaluationPairs(faces, draw_pairs(faces, COLUMNS, 0), COLUMNS)
    rows = [to_images(images) for images in (batch.source.image, batch.target.image, batch.ground_truth)]
    framed = np.pad(np.stack(rows), ((0, 0), (0, 0), (GAP, GAP), (GAP, GAP), (0, 0)), constant_values=255)
    write_image(Path(__file__).with_suffix(".png"), np.concatenate(list(np.concatenate(list(framed), axis=1)), axis=1))


if __name__ == "__main__":
    main()
