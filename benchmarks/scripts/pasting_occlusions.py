"""Tabulate what masks and `keep` preserve of occluders, and the cost in identity.

    python benchmarks/scripts/pasting_occlusions.py LFW/val.zip --split train --save lfw

PLACE is a folder or a zip file of pictures whose names say who is who; by default it is ORL. Each target is swapped
twice, without and with composited occluders. `error` is the mean absolute difference to the target in the occluders'
pixels, in grey levels. `cosine` compares swap and source by dlib-resnet, the model's encoder, for covered and clear
targets; `judge` does so by lfw-recogniser for clear ones. `background` is the mean absolute difference of swap and
clear target outside of the hull of dlib's landmarks. `ms` is the time per face that `keep` adds. `truth` uses the
ground-truth mask of the occluders, as upper bound. The thresholds of reconstruction-errors were tuned on the test
splits of ORL and of LFW's val.zip: evaluate on other data, such as --split train.
"""

import time
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import torch
from figures import report
from torch import Tensor
from torch.nn import functional as F

from fsframework.core.components import IdentityEncoder
from fsframework.core.errors import UserError
from fsframework.core.part import part
from fsframework.core.types import FaceBatch, Sample, SwapBatch
from fsframework.faces.paste import ERRORS, HULL, KEEPS, LANDMARKS, OVAL, Compositor, PasteOptions
from fsframework.media.tensor import to_images, to_tensor
from fsframework.models import store

TRUTH = "oval, truth"


def samples(place: Path | None, split: str, count: int, size: int) -> list[tuple[Sample, Sample, Sample]]:
    """Return (source, target, covered target) samples of one split; sources are other pictures of the same dataset."""
    inner = {"use": "orl"} if place is None else {"use": "face-folder", "root": str(place)}
    covered = part("datasets", "occluded", data=inner, share=1.0).build(size, part("detectors", "mtcnn"), split)
    covered.load()
    targets = np.random.default_rng(0).permutation(len(covered))[:count]
    sources = np.roll(targets, count // 3)
    found = [
        (covered[int(s)], covered.inner[int(t)], covered.target(int(t), np.random.default_rng(int(t))))
        for s, t in zip(sources, targets, strict=True)
    ]
    return [each for each in found if each[2].valid_mask is not None]


def as_faces(found: list[Sample]) -> FaceBatch:
    landmarks = np.stack([each.landmarks for each in found])
    return FaceBatch.of(to_tensor(np.stack([each.image for each in found])), torch.from_numpy(landmarks).float())


def pasted(swaps: np.ndarray, targets: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Return composites (B, S, S, 3) uint8 with the swaps inside masks (B, S, S)."""
    share = masks[..., None]
    composites: np.ndarray = np.rint(share * swaps + (1 - share) * targets).astype(np.uint8)
    return composites


@torch.inference_mode()
def measure(place: Path | None, model: str, split: str, count: int, more: list[str]) -> list[dict[str, Any]]:
    """Return a row of figures for each mask."""
    trained = store.load(model, "cpu")
    swapper = trained.swapper.eval()
    judge: IdentityEncoder = part("identity-encoders", "lfw-recogniser").build()
    judge.load()
    found = samples(place, split, count, trained.recipe.size)
    source = as_faces([each[0] for each in found])
    occluders = np.stack([each[2].valid_mask for each in found if each[2].valid_mask is not None])
    pastings = [PasteOptions(mask, "none", keep=keep) for mask in (HULL, OVAL, LANDMARKS) for keep in KEEPS]
    pasters = {f"{each.mask}, {each.keep}": Compositor(each, trained.recipe.size) for each in pastings}
    for pasting in (PasteOptions(mask, "none") for mask in more):
        named = pasting.mask_estimator()
        pasters[f"{named.name if named else OVAL}, nothing"] = Compositor(pasting, trained.recipe.size)
    rows: dict[str, dict[str, Any]] = {name: {"way": name} for name in [*pasters, TRUTH]}
    outline = Compositor(PasteOptions(LANDMARKS), trained.recipe.size)
    for covered in (True, False):
        target = as_faces([each[2 if covered else 1] for each in found])
        result = swapper(SwapBatch.of(source, target))
        start = time.process_time()
        self_reconstruction = to_images(swapper.coarse(SwapBatch.of(target, target), z_att=result.z_att).image)
        second_pass = time.process_time() - start
        swaps, shown = to_images(result.image), to_images(target.image)
        masks = {}
        for name, paster in pasters.items():
            by_errors = paster.pasting.keep == ERRORS
            start = time.process_time()
            pasted_crops = paster(swaps, shown, target, None, self_reconstruction if by_errors else None)
            seconds = time.process_time() - start + second_pass * by_errors
            masks[name] = np.stack([mask for _, mask in pasted_crops])
            rows[name]["ms"] = 1000 * seconds / len(found)
        outside = np.stack([mask for _, mask in outline(swaps, shown, target)]) < 0.05
        occluded = np.stack([cv2.GaussianBlur(each.astype(np.float32), (0, 0), 1) for each in occluders])
        masks[TRUTH] = masks["oval, nothing"] * (1 - occluded if covered else 1)
        for name, row in rows.items():
            made = pasted(swaps, shown, masks[name])
            faces = FaceBatch.of(to_tensor(made), target.landmarks)
            row["cosine_covered" if covered else "cosine_clear"] = mean_cosine(swapper.identity, faces, source)
            if covered:
                error = np.abs(made.astype(float) - shown).mean(axis=3)
                row["error"] = float(
                    np.mean([each[where].mean() for each, where in zip(error, occluders, strict=True)])
                )
            else:
                row["judge_clear"] = mean_cosine(judge.eval(), faces, source)
                row["background"] = float(np.abs(made.astype(float) - shown).mean(axis=3)[outside].mean())
    return [row | {"pairs": len(found)} for row in rows.values()]


def mean_cosine(encoder: IdentityEncoder, ones: FaceBatch, others: FaceBatch) -> float:
    """Return the mean cosine of the embeddings of two batches."""
    first, second = encoder(ones), encoder(others)
    cosine: Tensor = F.cosine_similarity(first, second)
    return cosine.mean().item()


def shown(row: dict[str, Any]) -> dict[str, str]:
    """Return a row of the table."""
    cosines = {key: f"{row[key]:.3f}" for key in ("cosine_covered", "cosine_clear", "judge_clear")}
    background, ms = f"{row['background']:.1f}", f"{row['ms']:.0f}" if "ms" in row else "-"
    return {"mask, keep": row["way"], "error": f"{row['error']:.1f}", **cosines, "background": background, "ms": ms}


@click.command(help=__doc__)
@click.argument("place", required=False, type=click.Path(exists=True, path_type=Path))
@click.option("--model", default=store.DEFAULT, show_default=True, help="Model, as for fsf swap.")
@click.option("--count", default=100, show_default=True, type=click.IntRange(min=3), help="Number of targets.")
@click.option(
    "--split", default="test", show_default=True, type=click.Choice(["train", "test"]), help="Whose pictures."
)
@click.option("--mask", "masks", multiple=True, help="Also measure this mask, as `fsf swap --mask` takes it.")
@click.option("--save", metavar="NAME", help="Write the figures to benchmarks/results/pasting_occlusions_NAME.json.")
def main(place: Path | None, model: str, count: int, split: str, masks: tuple[str, ...], save: str | None) -> None:
    try:
        rows = measure(place, model, split, count, list(masks))
    except UserError as error:
        raise click.ClickException(str(error)) from error
    report(
        "pasting_occlusions", rows, shown, save, figures={"ways": rows}, model=model, note=f"{rows[0]['pairs']} pairs."
    )


if __name__ == "__main__":
    main()
