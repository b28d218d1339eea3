"""Measure detection of turned faces in films, and what it costs in upright films.

    python benchmarks/scripts/turned_films.py data/lfw/train.zip --save lfw

Each film shows a picture of one face that moves over a photograph: 640x480, 48 frames. Kinds: the picture turned by a
fixed angle; turned by it beside an upright face; rolling from upright to that angle; turned, from the middle of the
film on, after a jump cut; upright. A film is `right` if at least 90 % of its frames have the turned face's landmarks
after tracking and smoothing, within 15 % of the distance of the eyes on average, and no frame has a face elsewhere.
It is `wrong` if more than 5 % of the frames have a face elsewhere, and `refused` if none has a face. The rest is
`partly`. `ms` is the detection's processor time for a frame.
"""

import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import click
import cv2
import numpy as np
import skimage.data
import torch
from figures import report
from fsf_data.sources import open_source

from fsframework.core.components import Detector
from fsframework.core.errors import UserError
from fsframework.core.part import part
from fsframework.core.types import Face
from fsframework.faces.align import transform
from fsframework.faces.detect_video import find_faces
from fsframework.faces.track import Track, smooth, track
from fsframework.faces.turned import GREY, shift
from fsframework.utils.progress import tracked

SIZE, COUNT, RATE = (640, 480), 48, 25.0  # width and height in pixels, frames, frames/s
ANGLES = (90, 135, 180, 270)
KINDS = ("turned", "beside", "rolling", "cut")
RIGHT = 0.15  # eye distances
ELSEWHERE = 0.5  # eye distances from every face


class Film(NamedTuple):
    """A film, and the faces of each frame; the first of a frame is the one that is measured."""

    frames: list[np.ndarray]
    faces: list[list[Face]]


def placed(picture: np.ndarray, angle: float, centre: tuple[float, float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a picture turned counter-clockwise around a centre, what it covers, and the matrix of the turn."""
    side = len(picture)
    matrix = cv2.getRotationMatrix2D(((side - 1) / 2, (side - 1) / 2), angle, 1.0)
    matrix = np.column_stack([matrix[:, :2], matrix[:, 2] + np.array(centre) - (side - 1) / 2])
    covered = cv2.warpAffine(np.ones((side, side), np.float32), matrix, SIZE) > 0.5
    return cv2.warpAffine(picture, matrix, SIZE, flags=cv2.INTER_CUBIC), covered, matrix


def film(kind: str, angle: int, picture: np.ndarray, face: Face, other: np.ndarray, other_face: Face) -> Film:
    """Return a film of one kind."""
    background = cv2.resize(skimage.data.chelsea(), SIZE)
    frames, faces = [], []
    for number in range(COUNT):
        t = number / RATE
        turn = {"rolling": angle * number / (COUNT - 1), "cut": angle if number >= COUNT // 2 else 0}.get(kind, angle)
        x = 200 if kind == "beside" or (kind == "cut" and turn) else 320
        shown = [(picture, face, turn, (x + 25 * np.sin(2.5 * t), 240 + 10 * np.cos(2 * t)))]
        if kind == "beside":
            shown.append((other, other_face, 0, (480 + 10 * np.sin(2 * t), 240)))
        frame, of_frame = background, []
        for image, upright, roll, centre in shown:
            turned, covered, matrix = placed(image, roll, centre)
            frame = np.where(covered[..., None], turned, frame)
            of_frame.append(Face(upright.box, transform(upright.landmarks.astype(float), matrix), 1.0))
        frames.append(frame)
        faces.append(of_frame)
    return Film(frames, faces)


def tracks_of(detector: Detector, frames: list[np.ndarray]) -> tuple[list[Track], float]:
    """Return the tracks of a film, and the detection's processor time in seconds."""
    began = time.process_time()
    with torch.inference_mode():
        found = list(find_faces(detector, iter(frames)))
    seconds = time.process_time() - began
    return [smooth(each, RATE) for each in track(found, [False] * len(frames), RATE)], seconds


def verdict(truth: Film, tracks: list[Track]) -> str:
    """Return right, refused, wrong or partly."""
    right = elsewhere = 0
    for number, expected in enumerate(truth.faces):
        found = [each.face(number) for each in tracks if each.start <= number < each.stop]
        right += any(shift(each, expected[0]) <= RIGHT for each in found)
        elsewhere += any(min(shift(each, one) for one in expected) > ELSEWHERE for each in found)
    if elsewhere > 0.05 * COUNT:
        return "wrong"
    if not tracks:
        return "refused"
    return "right" if right >= 0.9 * COUNT and not elsewhere else "partly"


def all_faces(detector: Detector, picture: np.ndarray) -> list[Face]:
    """Return the faces of a picture, also those that its edges cut."""
    border = len(picture) // 2
    around = np.pad(picture, ((border, border), (border, border), (0, 0)), constant_values=GREY)
    (faces,) = detector([around])
    return [Face(face.box - border, face.landmarks - border, face.score) for face in faces]


def rows(detector: Detector, place: Path, count: int) -> Iterator[dict[str, Any]]:
    """Yield the rows: for each kind and angle, verdicts of so many films in percent, and the time of a frame."""
    source = open_source(place)
    order = np.random.default_rng(5).permutation(len(source.pictures))[: 8 * count + 8]
    pictures = [source.read(source.pictures[number]) for number in order]
    found = [(picture, faces[0]) for picture in pictures if len(faces := all_faces(detector, picture)) == 1]
    kinds = [("upright", 0), *product(KINDS, ANGLES)]
    films = [(kind, angle, number) for kind, angle in kinds for number in range(4 * count if angle == 0 else count)]
    verdicts: dict[tuple[str, int], list[str]] = {}
    seconds: dict[tuple[str, int], float] = {}
    for kind, angle, number in tracked(films, "films", len(films)):
        truth = film("turned" if angle == 0 else kind, angle, *found[number], *found[number + 1])
        tracks, spent = tracks_of(detector, truth.frames)
        verdicts.setdefault((kind, angle), []).append(verdict(truth, tracks))
        seconds[kind, angle] = seconds.get((kind, angle), 0.0) + spent
    for key, of_kind in verdicts.items():
        shares = {name: 100 * of_kind.count(name) / len(of_kind) for name in ("right", "partly", "refused", "wrong")}
        milliseconds = 1000 * seconds[key] / len(of_kind) / COUNT
        yield {"kind": key[0], "angle": key[1], "films": len(of_kind), **shares, "ms": milliseconds}


def by_mtcnn(rows: Callable[[Detector, Path, int], Iterator[dict[str, Any]]], place: Path, count: int) -> list[Any]:
    """Return rows that are measured with mtcnn by one thread."""
    torch.set_num_threads(1)
    try:
        detector: Detector = part("detectors", "mtcnn").build()
        detector.load()
        return list(rows(detector, place, count))
    except UserError as error:
        raise click.ClickException(str(error)) from error


def shown(row: dict[str, Any]) -> dict[str, str]:
    """Return a row of the table."""
    shares = {name: f"{row[name]:.0f} %" for name in ("right", "partly", "refused", "wrong")}
    head = {"film": row["kind"], "degrees": str(row["angle"]), "films": str(row["films"])}
    return {**head, **shares, "ms": f"{row['ms']:.2f}"}


@click.command(help=__doc__)
@click.argument("place", type=click.Path(exists=True, path_type=Path))
@click.option("--count", default=5, show_default=True, type=click.IntRange(1), help="Films of each kind and angle.")
@click.option("--save", metavar="NAME", help="Write the figures to benchmarks/results/turned_films_NAME.json.")
def main(place: Path, count: int, save: str | None) -> None:
    table = by_mtcnn(rows, place, count)
    report("turned_films", table, shown, save, figures={"rows": table}, note=f"{COUNT} frames each; mtcnn, one thread.")


if __name__ == "__main__":
    main()
