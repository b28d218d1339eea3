"""Measure detection of turned faces, by turning pictures of upright faces.

    python benchmarks/scripts/turned_heads.py data/lfw/train.zip --count 100 --upright 400 --save lfw

Each picture is turned by 30 to 330 degrees. `right` is the percentage of pictures whose largest face is a face of the
upright picture: the five landmarks are within 15 % of the distance of the eyes, on average. `refused` is the percentage
without a face, `wrong` the rest. `detector` is detection in the upright frame alone, `any angle` is what `fsf swap` and
`fsf extract` do. Of upright pictures, `unchanged` is the percentage whose largest face is equal in both ways,
`all unchanged` that with equal lists of faces, and `ms` the processor time of a picture, as it is and enlarged three
times.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import torch
from figures import report
from fsf_data.sources import open_source

from fsframework.core.components import Detector
from fsframework.core.errors import UserError
from fsframework.core.part import part
from fsframework.core.types import Face
from fsframework.faces.align import transform
from fsframework.faces.select import largest
from fsframework.faces.turned import find_at_any_angle, shift
from fsframework.utils.progress import tracked

ANGLES = range(30, 360, 30)
RIGHT = 0.15  # eye distances
WAYS: dict[str, Callable[[Detector, np.ndarray], list[Face]]] = {
    "detector": lambda detector, frame: detector([frame])[0],
    "any angle": lambda detector, frame: find_at_any_angle(detector, frame).faces,
}


def turned(frame: np.ndarray, angle: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a frame turned counter-clockwise on black, and the matrix (2, 3) of the turn."""
    height, width = frame.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, 1)
    cosine, sine = np.abs(matrix[0, :2])
    wide, tall = (int(np.ceil(side)) for side in (cosine * width + sine * height, sine * width + cosine * height))
    matrix[:, 2] += [(wide - width) / 2, (tall - height) / 2]
    return cv2.warpAffine(frame, matrix, (wide, tall), flags=cv2.INTER_CUBIC), matrix


def verdict(faces: list[Face], upright: list[Face], matrix: np.ndarray) -> str:
    """Return right, refused or wrong for the faces of a picture that was turned by a matrix (2, 3)."""
    if not faces:
        return "refused"
    expected = [Face(face.box, transform(face.landmarks.astype(float), matrix), face.score) for face in upright]
    return "right" if min(shift(largest(faces), face) for face in expected) <= RIGHT else "wrong"


def same(one: list[Face], other: list[Face]) -> bool:
    """Return whether two lists hold equal faces."""
    return len(one) == len(other) and all(
        (a.landmarks == b.landmarks).all() and (a.box == b.box).all() for a, b in zip(one, other, strict=True)
    )


def turned_rows(detector: Detector, frames: list[np.ndarray]) -> list[dict[str, Any]]:
    """Return the rows of turned pictures: right, refused and wrong, in percent, for each angle and way."""
    truths = [detector([frame])[0] for frame in frames]
    counts: dict[tuple[str, int], list[str]] = {}
    for frame, truth in tracked(list(zip(frames, truths, strict=True)), "pictures", len(frames)):
        for angle in ANGLES:
            image, matrix = turned(frame, angle)
            for way, find in WAYS.items():
                counts.setdefault((way, angle), []).append(verdict(find(detector, image), truth, matrix))
    names = ("right", "refused", "wrong")
    rows = [
        {"way": way, "angle": str(angle), **{name: 100 * verdicts.count(name) / len(verdicts) for name in names}}
        for (way, angle), verdicts in sorted(counts.items(), key=lambda item: item[0][0], reverse=True)
    ]
    for way in WAYS:
        of_way = [row for row in rows if row["way"] == way]
        rows.append({"way": way, "angle": "mean", **{n: float(np.mean([row[n] for row in of_way])) for n in names}})
    return rows


def upright_rows(detector: Detector, frames: list[np.ndarray], scale: int) -> list[dict[str, Any]]:
    """Return the rows of upright pictures, enlarged by `scale`: unchanged faces, in percent, and each way's time."""
    seconds = dict.fromkeys(WAYS, 0.0)
    unchanged = all_unchanged = 0
    for frame in tracked(frames, "upright", len(frames)):
        image = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC) if scale > 1 else frame
        found = []
        for way, find in WAYS.items():
            began = time.process_time()
            found.append(find(detector, image))
            seconds[way] += time.process_time() - began
        all_unchanged += same(*found)
        unchanged += all(found) and same(*([largest(faces)] for faces in found))
    shares = {"unchanged": 100 * unchanged / len(frames), "all_unchanged": 100 * all_unchanged / len(frames)}
    angle = "0" if scale == 1 else f"0, {scale} x"
    return [
        {"way": way, "angle": angle, **(shares if way == "any angle" else {}), "ms": 1000 * value / len(frames)}
        for way, value in seconds.items()
    ]


def shown(row: dict[str, Any]) -> dict[str, str]:
    """Return a row of the table."""
    keys = {key: "{:.1f} %" for key in ("right", "refused", "wrong", "unchanged", "all_unchanged")} | {"ms": "{:.1f}"}
    return {
        "way": row["way"],
        "degrees": row["angle"],
        **{key.replace("_", " "): form.format(row[key]) if key in row else "" for key, form in keys.items()},
    }


@click.command(help=__doc__)
@click.argument("place", type=click.Path(exists=True, path_type=Path))
@click.option("--count", default=60, show_default=True, type=click.IntRange(1), help="Number of turned pictures.")
@click.option("--upright", default=600, show_default=True, type=click.IntRange(1), help="Number of upright pictures.")
@click.option("--save", metavar="NAME", help="Write the figures to benchmarks/results/turned_heads_NAME.json.")
def main(place: Path, count: int, upright: int, save: str | None) -> None:
    torch.set_num_threads(1)
    try:
        detector: Detector = part("detectors", "mtcnn").build()
        detector.load()
        pictures = open_source(place)
        order = np.random.default_rng(3).permutation(len(pictures.pictures))[: max(count, upright)]
        frames = [pictures.read(pictures.pictures[number]) for number in order]
        frames = [frame for frame in frames if detector([frame])[0]]
    except UserError as error:
        raise click.ClickException(str(error)) from error
    rows = turned_rows(detector, frames[:count])
    rows += [row for scale in (1, 3) for row in upright_rows(detector, frames[:upright], scale)]
    note = (
        f"{count} pictures, each turned by 11 angles, and {min(upright, len(frames))} upright ones; mtcnn, one thread."
    )
    report("turned_heads", rows, shown, save, figures={"rows": rows}, note=note)


if __name__ == "__main__":
    main()
