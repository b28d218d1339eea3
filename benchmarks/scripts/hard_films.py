"""Measure detection of upright faces in films that are dark, noisy, blurred, or of low contrast, and of small faces.

    python benchmarks/scripts/hard_films.py data/lfw/train.zip --save lfw

Each film shows the picture of one person that moves over a photograph: 320x240, 49 frames. `found` is the share of
frames with the face among the detections: its landmarks are within half of the distance of the eyes, on average, of
those in the picture. `tracked` is the same after tracking and smoothing. `elsewhere` is the number of faces a hundred
frames that are at no face. The film `no face` shows the photograph alone, dark and with noise.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import skimage.data
import torch
from figures import report
from fsf_data.sources import open_source
from turned_films import by_mtcnn

from fsframework.core.components import Detector
from fsframework.core.types import Face
from fsframework.faces.align import transform
from fsframework.faces.detect_video import find_faces
from fsframework.faces.track import smooth, track
from fsframework.faces.turned import shift
from fsframework.utils.progress import tracked

SIZE, COUNT, RATE = (320, 240), 49, 25.0  # width and height in pixels, frames, frames/s
NEAR = 0.5  # eye distances
BACKGROUNDS = (skimage.data.chelsea, skimage.data.coffee, skimage.data.rocket)


def noisy(frame: np.ndarray, amount: float, rng: np.random.Generator) -> np.ndarray:
    return np.clip(np.rint(frame + rng.normal(0, amount, frame.shape)), 0, 255).astype(np.uint8)


def dark(frame: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a frame with 12 % of its light, and noise."""
    return noisy(0.12 * frame.astype(float), 4, rng)


def blurred(frame: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a frame blurred by motion of 13 pixels."""
    return noisy(cv2.blur(frame, (13, 1)), 2, rng)


def low_contrast(frame: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return noisy(128 + 0.2 * (frame.astype(float) - 128), 2, rng)


def backlit(frame: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a frame whose middle is dark, and whose surroundings are bright."""
    y, x = np.mgrid[: SIZE[1], : SIZE[0]]
    glare = np.clip(np.hypot((x - 160) / 160, (y - 120) / 120), 0, 1)[..., None] ** 2
    return noisy(0.2 * frame.astype(float) * (1 - glare) + 250 * glare, 4, rng)


Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]
KINDS: dict[str, tuple[float, Change]] = {  # scale of the picture, whose face is about 95 pixels wide, and the change
    "plain": (1.0, lambda frame, rng: noisy(frame, 2, rng)),
    "dark": (1.0, dark),
    "noise": (1.0, lambda frame, rng: noisy(frame, 40, rng)),
    "blur": (1.0, blurred),
    "small": (0.3, lambda frame, rng: noisy(frame, 4, rng)),
    "low contrast": (1.0, low_contrast),
    "backlit": (1.0, backlit),
}
NO_FACE = "no face"


def film(kind: str, number: int, picture: np.ndarray, face: Face) -> tuple[list[np.ndarray], list[Face | None]]:
    """Return the frames of a film, and the face in each."""
    rng = np.random.default_rng(number)
    background = cv2.resize(BACKGROUNDS[number % len(BACKGROUNDS)](), SIZE, interpolation=cv2.INTER_AREA)
    if kind == NO_FACE:
        return [dark(background, rng) for _ in range(COUNT)], [None] * COUNT
    scale, change = KINDS[kind]
    frames: list[np.ndarray] = []
    faces: list[Face | None] = []
    for t in np.arange(COUNT) / RATE:
        matrix = np.array([[scale, 0, 160 + 20 * np.sin(2.5 * t)], [0, scale, 120 + 8 * np.cos(2 * t)]])
        matrix[:, 2] -= scale * (len(picture) - 1) / 2
        flags = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        soft = picture if scale == 1 else cv2.GaussianBlur(picture, (0, 0), 0.4 / scale)
        placed = cv2.warpAffine(soft, matrix, SIZE, flags=flags)
        covered = cv2.warpAffine(np.ones(picture.shape[:2], np.float32), matrix, SIZE) > 0.5
        frames.append(change(np.where(covered[..., None], placed, background), rng))
        faces.append(Face(face.box, transform(face.landmarks.astype(float), matrix), 1.0))
    return frames, faces


def measure(detector: Detector, frames: list[np.ndarray], faces: list[Face | None]) -> np.ndarray:
    """Return the numbers of frames in which the face is found, and is tracked, and of faces elsewhere."""
    with torch.inference_mode():
        found = list(find_faces(detector, iter(frames)))
    tracks = [smooth(each, RATE) for each in track(found, [False] * len(frames), RATE)]
    numbers = np.zeros(3)
    for number, face in enumerate(faces):
        after = [each.face(number) for each in tracks if each.start <= number < each.stop]
        near = [[face is not None and shift(one, face) < NEAR for one in each] for each in (found[number], after)]
        numbers += [any(near[0]), any(near[1]), sum(not each for each in near[1])]
    return numbers


def rows(detector: Detector, place: Path, count: int) -> Iterator[dict[str, Any]]:
    """Yield a row for each kind, of so many films."""
    source = open_source(place)
    order = np.random.default_rng(7).permutation(len(source.pictures))[: 2 * count + 4]
    pictures = [source.read(source.pictures[number]) for number in order]
    people = [(picture, faces[0]) for picture in pictures if len(faces := detector([picture])[0]) == 1]
    films = [(kind, number) for kind in (*KINDS, NO_FACE) for number in range(count)]
    sums: dict[str, np.ndarray] = {}
    for kind, number in tracked(films, "films", len(films)):
        sums[kind] = sums.get(kind, 0) + measure(detector, *film(kind, number, *people[number]))
    for kind, numbers in sums.items():
        found, after, elsewhere = (100 * numbers / (COUNT * count)).tolist()
        yield {"film": kind, "films": count, "found": found, "tracked": after, "elsewhere": elsewhere}


def shown(row: dict[str, Any]) -> dict[str, str]:
    """Return a row of the table."""
    shares = {name: "-" if row["film"] == NO_FACE else f"{row[name]:.1f} %" for name in ("found", "tracked")}
    return {"film": row["film"], "films": str(row["films"]), **shares, "elsewhere": f"{row['elsewhere']:.1f}"}


@click.command(help=__doc__)
@click.argument("place", type=click.Path(exists=True, path_type=Path))
@click.option("--count", default=6, show_default=True, type=click.IntRange(1), help="Films of each kind.")
@click.option("--save", metavar="NAME", help="Write the figures to benchmarks/results/hard_films_NAME.json.")
def main(place: Path, count: int, save: str | None) -> None:
    table = by_mtcnn(rows, place, count)
    report("hard_films", table, shown, save, figures={"rows": table}, note=f"{COUNT} frames each; mtcnn, one thread.")


if __name__ == "__main__":
    main()
