"""Tabulate the accuracy of face segmentation on people held out of training, and behind synthetic occluders.

    python benchmarks/scripts/segmentation.py MASKS --save celebamask

MASKS is a folder or a zip file for the data set `face-masks`. `iou` is the mean over pictures of intersection over
union of mask and truth in the whole crop, in percent. Inside the oval mask of `fsf swap`, `missed` is the fraction of
the pixels outside of the face that the network counts as face, and `cut` the fraction of the face's pixels that it does
not. The occluders are those of the split `test` of `occluded`, which training never draws. The people are those of the
data set's split `test`: pictures of a person under several names may be in both splits.
"""

from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from figures import report

from fsframework.core.components import Estimator
from fsframework.core.errors import UserError
from fsframework.core.part import part
from fsframework.core.types import FaceBatch, Sample
from fsframework.faces.paste import soft_mask
from fsframework.media.tensor import grey, to_tensor

OCCLUDERS = {"hand": 1, "object": 1, "glasses": 1, "hair": 1, "microphone": 1, "mask": 1}


def test_samples(place: Path, size: int) -> dict[str, list[Sample]]:
    """Return the held-out samples, plain, grey, and with one kind of occluder each."""
    mtcnn = part("detectors", "mtcnn")
    plain = part("datasets", "face-masks", root=str(place)).build(size, mtcnn, "test")
    plain.load()
    found = {"held-out people": [plain[index] for index in range(len(plain))]}
    found["in grey"] = [
        Sample(grey(each.image), each.name, each.person, each.landmarks, each.valid_mask)
        for each in found["held-out people"]
    ]
    for kind in OCCLUDERS:
        covered = part(
            "datasets", "occluded", share=1.0, both=0.0, opacity=0.02, mix={kind: 1.0}, data=plain_part(place)
        ).build(size, mtcnn, "test")
        covered.load()
        found[f"with {kind}"] = [covered.target(index, np.random.default_rng(index)) for index in range(len(covered))]
    return found


def plain_part(place: Path) -> dict[str, Any]:
    return {"use": "face-masks", "root": str(place)}


@torch.inference_mode()
def measure(network: Estimator, samples: list[Sample]) -> dict[str, float]:
    """Return means over pictures, in percent."""
    images = to_tensor(np.stack([each.image for each in samples]))
    masks = torch.cat([network(FaceBatch.of(batch)) for batch in images.split(32)])[:, 0].numpy() > 0.5
    truths = ~np.stack([each.valid_mask for each in samples if each.valid_mask is not None])
    oval = soft_mask(images.shape[-1]) > 0.5
    union = (masks | truths).sum(axis=(1, 2))
    outside, inside = ~truths & oval, truths & oval
    missed = (masks & outside).sum() / outside.sum()
    cut = (~masks & inside).sum() / inside.sum()
    iou = (masks & truths).sum(axis=(1, 2)) / np.maximum(union, 1)
    return {"iou": 100 * float(iou.mean()), "missed": 100 * float(missed), "cut": 100 * float(cut)}


def shown(row: dict[str, Any]) -> dict[str, str]:
    """Return a row of the table."""
    return {
        "pictures": row["pictures"],
        **{key: f"{row[key]:.1f} %" for key in ("iou", "missed", "cut")},
        "count": str(row["count"]),
    }


@click.command(help=__doc__)
@click.argument("place", type=click.Path(exists=True, path_type=Path))
@click.option("--weights", type=click.Path(exists=True), help="Weights instead of the shipped ones.")
@click.option("--size", default=128, show_default=True, type=click.IntRange(32), help="Side of the crops.")
@click.option("--save", metavar="NAME", help="Write the figures to benchmarks/results/segmentation_NAME.json.")
def main(place: Path, weights: str | None, size: int, save: str | None) -> None:
    options = {} if weights is None else {"weights": weights}
    try:
        network: Estimator = part("estimators", "face-segmenter", **options).build()
        network.load()
        rows = [
            {"pictures": name, **measure(network, samples), "count": len(samples)}
            for name, samples in test_samples(place, size).items()
        ]
    except UserError as error:
        raise click.ClickException(str(error)) from error
    report("segmentation", rows, shown, save, figures={"pictures": rows}, note=f"Crops of {size} px.")


if __name__ == "__main__":
    main()
