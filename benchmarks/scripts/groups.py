"""Break down figures by the target's yaw and by the lightness of the source's face.

    fsf bench --protocol lfw --details details.csv
    python benchmarks/scripts/groups.py details.csv --protocol lfw --save groups_lfw

Options --protocol and --set are those of `fsf bench`. The yaw is estimated by the estimator of pose-error. Lightness is
the mean CIELAB L* of the source's cheeks and nose. It depends on skin and lighting, so a difference between its thirds
needs further analysis and is no measure of fairness by itself.
"""

import csv
import json
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from skimage.color import rgb2lab

from fsframework.core.components import Dataset
from fsframework.core.types import FaceBatch
from fsframework.evaluation.protocol import Protocol
from fsframework.media.tensor import to_tensor
from fsframework.models import store
from fsframework.recipe.schema import Recipe
from fsframework.utils.environment import of_script
from fsframework.utils.files import write_text

CHEEKS = (0.38, 0.50, 0.63, 0.70)  # left, top, right, bottom in units of the aligned crop's side
BATCH = 32  # faces per batch of the estimator
FIGURES = ("top1", "cosine", "pose_deg", "ssim", "error")  # metrics in the table
TURNED = (15.0, 30.0)  # limits of the groups in degrees of yaw


@click.command()
@click.argument("details", type=click.Path(path_type=Path, exists=True))
@click.option("--model", default=store.DEFAULT)
@click.option("--protocol")
@click.option("--set", "sets", multiple=True)
@click.option("--save", metavar="NAME", help="Name of the result in benchmarks/results.")
def main(details: Path, model: str, protocol: str | None, sets: tuple[str, ...], save: str | None) -> None:
    """Print the means of the method's figures in DETAILS by group."""
    with details.open(encoding="utf-8") as file:
        lines = [line for line in csv.DictReader(file) if line.pop("way") == "method"]
    plan = Protocol.load(protocol).sets() if protocol else []
    recipe = store.recipe_of(store.find(model), [*plan, *sets])
    faces = dataset(recipe)
    indices = {name: index for index, name in enumerate(faces.names())}
    turned = np.abs(yaws(recipe, faces, [indices[line["target"]] for line in lines]))
    light = np.array([lightness(faces[indices[line["source"]]].image) for line in lines])
    low, high = np.quantile(light, [1 / 3, 2 / 3])
    groups = {
        "all": np.ones(len(lines), bool),
        f"target turned by less than {TURNED[0]:.0f} degrees": turned < TURNED[0],
        f"{TURNED[0]:.0f} to {TURNED[1]:.0f} degrees": (turned >= TURNED[0]) & (turned < TURNED[1]),
        f"{TURNED[1]:.0f} degrees or more": turned >= TURNED[1],
        f"source's face darkest third (L* below {low:.0f})": light < low,
        "middle third": (light >= low) & (light < high),
        f"lightest third (L* from {high:.0f})": light >= high,
    }
    rows = [{"group": name, "pairs": int(chosen.sum()), **means(lines, chosen)} for name, chosen in groups.items()]
    for row in rows:
        click.echo(row)
    if save is not None:
        record = {
            **of_script("groups.py"),
            "rows": rows,
        }
        write_text(Path(__file__).parents[1] / "results" / f"{save}.json", json.dumps(record, indent=2) + "\n")


def dataset(recipe: Recipe) -> Dataset:
    """Return the test faces of a recipe's evaluation."""
    plan = recipe.evaluation
    faces: Dataset = recipe.faces(plan.data if plan else None).build(recipe.size, recipe.detector, "test")
    faces.load()
    return faces


def yaws(recipe: Recipe, faces: Dataset, indices: list[int]) -> np.ndarray:
    """Return the yaw (n,) in degrees of the faces at `indices`."""
    parts = [part for part in (recipe.evaluation.benchmarks if recipe.evaluation else []) if part.name == "pose-error"]
    if not parts:
        raise click.UsageError("The recipe's evaluation has no pose-error, whose estimator measures the yaw.")
    estimator = parts[0].options.estimator.build()
    estimator.load()
    once = sorted(set(indices))
    batches = [once[start : start + BATCH] for start in range(0, len(once), BATCH)]
    with torch.no_grad():
        estimates = [
            estimator(FaceBatch.of(to_tensor(np.stack([faces[p].image for p in batch]))))[:, 0] for batch in batches
        ]
    yaw_of = dict(zip(once, torch.cat(estimates).tolist(), strict=True))
    return np.array([yaw_of[index] for index in indices])


def lightness(image: np.ndarray) -> float:
    """Return the mean L*, 0 to 100, of cheeks and nose in an aligned crop (S, S, 3) uint8."""
    left, top, right, bottom = (round(value * len(image)) for value in CHEEKS)
    return float(rgb2lab(image[top:bottom, left:right])[..., 0].mean())


def means(lines: list[dict[str, Any]], chosen: np.ndarray) -> dict[str, float | None]:
    """Return the mean of each of `FIGURES` over the selected lines that have a value."""
    keys = [key for key in lines[0] if key.rpartition(": ")[2] in FIGURES]
    result: dict[str, float | None] = {}
    for key in keys:
        values = [float(line[key]) for line, keep in zip(lines, chosen, strict=True) if keep and line[key]]
        result[key] = round(float(np.mean(values)), 3) if values else None
    return result


if __name__ == "__main__":
    main()
