"""Measure detection and swaps of faces that the frame cuts, by cutting pictures of whole faces.

    python benchmarks/scripts/cut_faces.py data/lfw/val.zip --weights weights/retinaface_mobilenet025.pt --save lfw

A side of each picture, each side in turn, is cut off, up to a fraction of the whole-head crop's side. `found` is the
percentage of faces still detected. `landmarks` is the mean distance of the five landmarks from those in the whole
picture, in percent of the distance of the eyes: median and 90th percentile over the faces found. `swap` is the mean
difference between the swap of the cut picture and that of the whole one, in grey levels, where the picture shows the
face: detected by `mtcnn`, and with the whole picture's landmarks, its missing part filled in two ways. The rows
`visible` cut each picture until a share of the face's oval is left, and give the same of faces detected by `mtcnn`,
and the share that their landmarks give (`seen`).
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import click
import cv2
import numpy as np
from figures import report
from fsf_data.sources import open_source

from fsframework.core.components import Detector
from fsframework.core.errors import UserError
from fsframework.core.part import part
from fsframework.core.types import AlignedFace, Face
from fsframework.faces import align
from fsframework.faces.turned import shift
from fsframework.faces.visible import visible_share
from fsframework.inference.face_swapper import FaceSwapper, SourceIdentity
from fsframework.utils.progress import tracked

CUTS = (0.15, 0.25, 0.35, 0.45)
SHARES = (0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.5, 0.4, 0.3, 0.2)
APART = 1.0  # landmarks further off than the distance of the eyes are those of no face
FILLS = {"repeated edge": cv2.BORDER_REPLICATE, "reflection": cv2.BORDER_REFLECT_101}


class Whole(NamedTuple):
    """A picture of a whole face, and what is made of it."""

    frame: np.ndarray  # (H, W, 3) uint8
    face: Face
    swap: np.ndarray  # (S, S, 3) uint8, the crop
    mask: np.ndarray  # (S, S) in 0..1
    source: SourceIdentity


class Cut(NamedTuple):
    """A cut picture."""

    frame: np.ndarray  # (h, w, 3) uint8
    offset: np.ndarray  # (2,) of its corner in the whole picture, x and y in pixels


def cut_off(whole: Whole, side: int, fraction: float) -> Cut:
    """Return a picture without a fraction of the whole-head crop at the left, top, right or bottom (0 to 3)."""
    corners = np.array([[0, 0], [1, 0], [0, 1], [1, 1]], dtype=float)
    matrix = align.fit_similarity(whole.face.landmarks.astype(float), align.TEMPLATE)
    corners = align.transform(corners, align.invert(matrix))
    low, high = corners.min(axis=0), corners.max(axis=0)
    axis, offset, cut = side % 2, np.zeros(2), [slice(None), slice(None)]
    reach = fraction * (high - low)[axis]
    if side < 2:
        offset[axis] = max(int(low[axis] + reach), 1)
        cut[1 - axis] = slice(int(offset[axis]), None)
    else:
        cut[1 - axis] = slice(None, int(high[axis] - reach))
    return Cut(np.ascontiguousarray(whole.frame[tuple(cut)]), offset)


def cut_to(whole: Whole, side: int, share: float) -> Cut:
    """Return a picture cut at a side until a share of the face is left."""
    low, high = 0.0, 1.0
    for _ in range(10):
        middle = (low + high) / 2
        cut = cut_off(whole, side, middle)
        face = replace(whole.face, landmarks=whole.face.landmarks - cut.offset)
        if visible_share(face, cut.frame.shape[1::-1]) > share:
            low = middle
        else:
            high = middle
    return cut_off(whole, side, low)


def visible(swapper: FaceSwapper, faces: list[Whole]) -> Iterator[dict[str, Any]]:
    """Yield the rows of faces of which a share is visible, whole ones first."""
    for share in (1.0, *SHARES):
        cuts = [
            Cut(whole.frame, np.zeros(2)) if share == 1 else cut_to(whole, n % 4, share)
            for n, whole in enumerate(faces)
        ]
        distances, seen, errors = [], [], []
        for whole, cut in zip(faces, cuts, strict=True):
            distance, face = nearest(swapper.detector([cut.frame])[0], whole.face, cut.offset)
            if face is not None:
                distances.append(distance)
                seen.append(visible_share(face, cut.frame.shape[1::-1]))
                errors.append(difference(whole, cut, swapper.swap_faces(cut.frame, [(face, whole.source)])))
        row: dict[str, Any] = {"what": "visible", "cut": share, "found": 100 * len(distances) / len(faces)}
        if distances:
            middle, high = (100 * float(np.quantile(distances, q)) for q in (0.5, 0.9))
            row |= {"landmarks": middle, "landmarks_p90": high, "swap": float(np.mean(errors))}
            row |= {"swap_p90": float(np.quantile(errors, 0.9)), "seen": 100 * float(np.mean(seen))}
        yield row


def nearest(faces: list[Face], face: Face, offset: np.ndarray) -> tuple[float, Face | None]:
    """Return the distance of landmarks and the face nearest to `face`, or infinity and None."""
    distances = [shift(replace(each, landmarks=each.landmarks + offset), face) for each in faces]
    if not distances or min(distances) > APART:
        return np.inf, None
    return min(distances), faces[int(np.argmin(distances))]


def difference(whole: Whole, cut: Cut, swap: np.ndarray) -> float:
    """Return the mean difference of a cut picture's swap, pasted back, from the whole one's, inside face and frame."""
    size = len(whole.swap)
    matrix = align.fit_similarity(whole.face.landmarks.astype(float), align.template(size))
    of_cut = np.column_stack([matrix[:, :2], matrix[:, 2] + matrix[:, :2] @ cut.offset])
    shown = cv2.warpAffine(np.ones(cut.frame.shape[:2], np.uint8), of_cut, (size, size))
    inside = (shown > 0) & (whole.mask > 0.5)
    crop = align.warp(swap, of_cut, size) if swap.shape == cut.frame.shape else swap
    return float(np.abs(crop.astype(float) - whole.swap)[inside].mean())


def filled(swapper: FaceSwapper, whole: Whole, cut: Cut, border: int) -> np.ndarray:
    """Return the swap (S, S, 3) uint8 of a cut picture at the whole picture's landmarks."""
    matrix = align.fit_similarity(whole.face.landmarks - cut.offset, align.template(swapper.size))
    crop = align._resample(cut.frame, matrix, (swapper.size,) * 2, border)
    [(_, image, _)] = swapper._swap_crops([whole.source], [AlignedFace(image=crop, matrix=matrix, face=whole.face)])
    return image


def wholes(swapper: FaceSwapper, place: Path, count: int) -> Iterator[Whole]:
    """Yield random pictures with their swaps; the source is the picture before."""
    pictures = open_source(place)
    order = np.random.default_rng(3).permutation(len(pictures.pictures))[: count + 1]
    source = None
    for number in order:
        frame = pictures.read(pictures.pictures[number])
        face = swapper.find(frame, pictures.pictures[number].name)[0]
        if source is not None:
            [(_, swap, mask)] = swapper.crops(frame, [(face, source)])
            yield Whole(frame, face, swap, mask, source)
        source = swapper.source(frame, pictures.pictures[number].name)


def detection(name: str, detector: Detector, faces: list[Whole]) -> list[dict[str, Any]]:
    """Return the rows of one detector."""
    rows = []
    for fraction in CUTS:
        distances = []
        for number, whole in enumerate(faces):
            cut = cut_off(whole, number % 4, fraction)
            distances.append(nearest(detector([cut.frame])[0], whole.face, cut.offset)[0])
        near = np.array([value for value in distances if np.isfinite(value)])
        middle, high = (100 * float(np.quantile(near, q)) if len(near) else None for q in (0.5, 0.9))
        found = 100 * len(near) / len(faces)
        rows.append({"what": name, "cut": fraction, "found": found, "landmarks": middle, "landmarks_p90": high})
    return rows


def swaps(swapper: FaceSwapper, faces: list[Whole]) -> Iterator[dict[str, Any]]:
    """Yield the rows of swaps."""
    for fraction in CUTS:
        cuts = [cut_off(whole, number % 4, fraction) for number, whole in enumerate(faces)]
        pairs = list(zip(faces, cuts, strict=True))
        for fill, border in FILLS.items():
            values = [difference(whole, cut, filled(swapper, whole, cut, border)) for whole, cut in pairs]
            yield {"what": f"swap, {fill}", "cut": fraction, "swap": float(np.mean(values))}
        for name, options in (("mtcnn", {}), ("mtcnn with border: 0", {"border": 0})):
            swapper.detector = loaded("mtcnn", **options)
            values = []
            for whole, cut in pairs:
                _, face = nearest(swapper.detector([cut.frame])[0], whole.face, cut.offset)
                if face is not None:
                    values.append(difference(whole, cut, swapper.swap_faces(cut.frame, [(face, whole.source)])))
            yield {"what": f"swap, {name}", "cut": fraction, "swap": float(np.mean(values)) if values else None}


def loaded(name: str, **options: Any) -> Detector:
    """Return a loaded detector."""
    detector: Detector = part("detectors", name, **options).build()
    detector.load()
    return detector


def shown(row: dict[str, Any]) -> dict[str, str]:
    """Return a row of the table."""
    keys = {
        "found": "{:.0f} %",
        "landmarks": "{:.1f} %",
        "landmarks_p90": "{:.1f} %",
        "swap": "{:.2f}",
        "swap_p90": "{:.2f}",
    } | {"seen": "{:.0f} %"}
    cells = {key: form.format(row[key]) if row.get(key) is not None else "" for key, form in keys.items()}
    return {"what": row["what"], "cut": f"{100 * row['cut']:.0f} %", **cells}


@click.command(help=__doc__)
@click.argument("place", type=click.Path(exists=True, path_type=Path))
@click.option("--model", default="faceshifter-lfw-128", show_default=True, help="Model that swaps.")
@click.option("--count", default=100, show_default=True, type=click.IntRange(1), help="Number of pictures.")
@click.option("--weights", type=click.Path(exists=True), help="Weights of retinaface, to measure it too.")
@click.option("--save", metavar="NAME", help="Write the figures to benchmarks/results/cut_faces_NAME.json.")
def main(place: Path, model: str, count: int, weights: str | None, save: str | None) -> None:
    try:
        swapper = FaceSwapper(model)
        faces = list(tracked(wholes(swapper, place, count), "pictures", count))
        detectors = {"mtcnn": loaded("mtcnn"), "mtcnn with border: 0": loaded("mtcnn", border=0)}
        if weights is not None:
            detectors["retinaface"] = loaded("retinaface", weights=weights)
        rows = [row for name, detector in detectors.items() for row in detection(name, detector, faces)]
        rows += swaps(swapper, faces)
        swapper.detector = detectors["mtcnn"]
        rows += visible(swapper, faces)
    except UserError as error:
        raise click.ClickException(str(error)) from error
    note = f"{count} pictures, swaps by {model}. `swap` by hull and colours as of `fsf swap`, detected faces alone."
    report("cut_faces", rows, shown, save, figures={"rows": rows}, note=note)


if __name__ == "__main__":
    main()
