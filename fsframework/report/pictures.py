"""Read the images of a report: sources, targets, swaps, masks and visualizations."""

import csv
import tempfile
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from fsframework.evaluation.interpolation import ATTRIBUTES, INTERPOLATION
from fsframework.evaluation.samples import spread
from fsframework.media.image_io import is_marked, read_image, write_image
from fsframework.report.html import png_address

LARGEST = 384  # pixels; larger images are downsampled to limit the size of the report
KINDS = ("source", "target", "coarse", "swap")

Row = dict[str, Path]  # the images of a pair by kind: KINDS, map_0, map_1, ...


def sample_rows(folder: Path) -> list[Row]:
    """Return the sample images of an evaluation by pair."""
    rows: dict[str, Row] = {}
    for file in sorted(folder.glob("[0-9][0-9][0-9]_*.png")):
        number, _, kind = file.stem.partition("_")
        rows.setdefault(number, {})[kind] = file
    return list(rows.values())


def pair_names(file: Path, count: int) -> list[str]:
    """Return the names of `count` pairs from pairs.csv, or numbers if the file does not match."""
    names = []
    if file.is_file():
        with file.open(encoding="utf-8", newline="") as text:
            lines = [line for line in csv.reader(text) if len(line) == 2][1:]
        names = [f"{lines[index][0]} → {lines[index][1]}" for index in (spread(len(lines)) if lines else [])]
    return names if len(names) == count else [f"pair {row + 1}" for row in range(count)]


class Picture(NamedTuple):
    """A square image that is embedded in a page."""

    source: str  # a `data:` URL
    side: int  # pixels


def picture(file: Path) -> Picture:
    """Read an image for a page, and downsample large ones. The mark of synthetic images is preserved."""
    image = read_image(file)
    side = max(image.shape[:2])
    if side <= LARGEST:
        return Picture(png_address(file.read_bytes()), side)
    small = cv2.resize(image, (LARGEST, LARGEST), interpolation=cv2.INTER_AREA)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "small.png"
        write_image(path, np.asarray(small), synthetic=is_marked(file))
        return Picture(png_address(path.read_bytes()), LARGEST)


def mean(file: Path) -> float:
    """Return the mean of a mask, from 0 to 1."""
    return float(read_image(file).mean() / 255)


def explained(folder: Path) -> dict[str, str]:
    """Return the `data:` URLs of the images of `fsframework.evaluation.interpolation`, by kind."""
    files = {kind: folder / f"{kind}.png" for kind in (INTERPOLATION, ATTRIBUTES)}
    return {kind: png_address(file.read_bytes()) for kind, file in files.items() if file.is_file()}
