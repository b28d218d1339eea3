"""Measure how much masks of occlusions flicker in a film, for each `keep`, and without smoothing along the track.

    python benchmarks/scripts/mask_flicker.py --save synthetic

The film is the moving portrait of synthetic_video.py with a microphone that moves with the face, glasses, or nothing in
front of it; sensor noise; and H.264. It is also turned (`lying`), and with the face's detections missing in the middle
for half a second, where a second track begins (`broken`). In crop coordinates face and occluder stand still, so a
perfect mask does, too.
`flicker` is the mean absolute change of the mask from frame to frame inside the oval mask, in percent of full opacity;
`film` is that of the crops, in grey levels. `error` is the mean absolute difference of the target and the swapped film
in the occluder's pixels, in grey levels.
"""

from itertools import pairwise, product
from typing import Any

import click
import cv2
import numpy as np
import torch
from figures import report
from synthetic_video import RATE, after_h264, scene

from fsframework.data.samples import portrait, portrait_face, somebody
from fsframework.faces.detect_video import find_faces
from fsframework.faces.paste import KEEPS, OCCLUSIONS, Compositor, PasteOptions, soft_mask
from fsframework.faces.steady_mask import MaskSmoother
from fsframework.faces.track import smooth, track
from fsframework.inference.face_swapper import FaceSwapper
from fsframework.models import store

NOISE, CRF = 4.0, 23  # grey levels of sensor noise; quality of the film
BREAK = 12  # frames without detections, more than a track bridges
UNSMOOTHED = "occlusions, unsmoothed"


def covered(occluder: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the portrait with an occluder, and the occluder's mask, (H, W) bool."""
    picture, where = portrait().copy(), np.zeros(portrait().shape[:2], np.uint8)
    points = portrait_face().landmarks
    eyes, mouth, unit = points[:2], points[3:].mean(axis=0), np.linalg.norm(points[1] - points[0])
    if occluder == "microphone":
        head, foot = (mouth + unit * np.array(shift) for shift in ((0.1, 0.2), (1.2, 1.6)))
        cv2.line(where, head.astype(int).tolist(), foot.astype(int).tolist(), 1, int(0.3 * unit))
        cv2.circle(where, head.astype(int).tolist(), int(0.35 * unit), 1, cv2.FILLED)
    elif occluder == "glasses":
        for eye in eyes:
            centre, axes = eye.astype(int).tolist(), (int(0.42 * unit), int(0.3 * unit))
            cv2.ellipse(where, centre, axes, 0, 0, 360, 1, max(int(0.08 * unit), 2))
        left, right = eyes[0] + [0.42 * unit, 0], eyes[1] - [0.42 * unit, 0]
        cv2.line(where, left.astype(int).tolist(), right.astype(int).tolist(), 1, max(int(0.08 * unit), 2))
    picture[where > 0] = [40, 38, 45]
    return picture, where > 0


def film(picture: np.ndarray, count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    noisy = [scene(number, picture=picture) + rng.normal(0, NOISE, (240, 320, 1)) for number in range(count)]
    return after_h264([np.clip(np.rint(frame), 0, 255).astype(np.uint8) for frame in noisy], CRF)


def changes(images: list[np.ndarray], inside: np.ndarray) -> list[float]:
    """Return the mean absolute changes from image to image inside a mask."""
    return [float(np.abs(b.astype(float) - a)[inside].mean()) for a, b in pairwise(images)]


def measure(model: str, count: int) -> list[dict[str, Any]]:
    """Return a row for each occluder and `keep`."""
    swapper = FaceSwapper(model, "cpu")
    source = swapper.source(somebody(), "source")
    inside = soft_mask(swapper.size) > 0.5
    rows = []
    for occluder, kind in product(("nothing", "microphone", "glasses"), ("upright", "lying", "broken")):
        picture, where = covered(occluder)
        frames = film(picture, count)
        white = (where[..., None] * np.full(3, 255)).astype(np.uint8)
        marks = [scene(number, picture=white) for number in range(count)]
        if kind == "lying":
            frames, marks = ([np.ascontiguousarray(np.rot90(each)) for each in film] for film in (frames, marks))
        with torch.inference_mode():
            detections = [faces[:1] for faces in find_faces(swapper.detector, iter(frames))]
        if kind == "broken":
            middle = count // 2
            detections[middle - BREAK // 2 : middle + BREAK // 2] = [[]] * BREAK
        tracks = [smooth(each, RATE) for each in track(detections, [False] * count, RATE)]
        for keep in (*KEEPS, UNSMOOTHED) if kind == "upright" else (OCCLUSIONS, UNSMOOTHED):
            swapper.paster = Compositor(PasteOptions(keep=OCCLUSIONS if keep == UNSMOOTHED else keep), swapper.size)
            flickers, films, errors = [], [], []
            for one in tracks:
                smoothers = None if keep == UNSMOOTHED else [MaskSmoother(RATE)]
                masks, crops = [], []
                for number in range(one.start, one.stop):
                    ((crop, image, mask),) = swapper.crops(frames[number], [(one.face(number), source)], smoothers)
                    masks.append(mask)
                    crops.append(crop.image)
                    hidden = cv2.warpAffine(marks[number][..., 0], crop.matrix, (swapper.size, swapper.size)) > 200
                    result = mask[..., None] * image + (1 - mask[..., None]) * crop.image
                    if hidden.any():
                        errors.append(np.abs(result - crop.image).mean(axis=2)[hidden].mean())
                flickers += changes(masks, inside)
                films += changes(crops, inside)
            rows.append(
                {
                    "occluder": occluder,
                    "keep": keep,
                    "kind": kind,
                    "flicker": 100 * float(np.mean(flickers)),
                    "film": float(np.mean(films)),
                    "error": float(np.mean(errors)) if errors else None,
                }
            )
    return rows


def shown(row: dict[str, Any]) -> dict[str, str]:
    """Return a row of the table."""
    error = "-" if row["error"] is None else f"{row['error']:.1f}"
    return {
        "occluder": row["occluder"],
        "head": row["kind"],
        "keep": row["keep"],
        "flicker": f"{row['flicker']:.2f} %",
        "film": f"{row['film']:.1f}",
        "error": error,
    }


@click.command(help=__doc__)
@click.option("--model", default=store.DEFAULT, show_default=True, help="The model that swaps.")
@click.option("--count", default=40, show_default=True, type=click.IntRange(2), help="Number of frames.")
@click.option("--save", metavar="NAME", help="Write the figures to benchmarks/results/mask_flicker_NAME.json.")
def main(model: str, count: int, save: str | None) -> None:
    rows = measure(model, count)
    report("mask_flicker", rows, shown, save, figures={"ways": rows}, note=f"{count} frames, by {model}.")


if __name__ == "__main__":
    main()
