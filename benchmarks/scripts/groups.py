"""Figures by group: how far the target's head is turned, and how light the faces are.

    fsf bench --protocol lfw --details details.csv
    python benchmarks/scripts/groups.py details.csv --protocol lfw --save groups_lfw

The same --protocol and --set as for `fsf bench`. Turned is the yaw of the target by the estimator of pose-error.
Lightness is the mean CIELAB L* of the source's cheeks and nose; it mixes skin and light, so a difference between its
thirds is a reason to look, not a measure of fairness by itself.
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
BATCH = 32  # faces whose heads are looked at together
FIGURES = ("top1", "cosine", "pose_deg", "ssim", "error")  # those shown
TURNED = (15.0, 30.0)  # degrees of yaw between the groups


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
    places = {name: place for place, name in enumerate(faces.names())}
    turned = np.abs(yaws(recipe, faces, [places[line["target"]] for line in lines]))
    light = np.array([lightness(faces[places[line["source"]]].image) for line in lines])
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
        kept = {
            **of_script("groups.py"),
            "rows": rows,
        }
        write_text(Path(__file__).parent / "results" / f"{save}.json", json.dumps(kept, indent=2) + "\n")


def dataset(recipe: Recipe) -> Dataset:
    """The test faces of a recipe's evaluation."""
    plan = recipe.evaluation
    faces: Dataset = recipe.faces(plan.data if plan else None).build(recipe.size, recipe.detector, "test")
    faces.load()
    return faces


def yaws(recipe: Recipe, faces: Dataset, places: list[int]) -> np.ndarray:
    """Yaw (n,) in degrees of some faces."""
    parts = [part for part in (recipe.evaluation.benchmarks if recipe.evaluation else []) if part.name == "pose-error"]
    if not parts:
        raise click.UsageError("The recipe's evaluation has no pose-error, whose estimator says how heads are turned.")
    estimator = parts[0].options.estimator.build()
    estimator.load()
    once = sorted(set(places))
    batches = [once[start : start + BATCH] for start in range(0, len(once), BATCH)]
    with torch.no_grad():
        found = [
            estimator(FaceBatch.of(to_tensor(np.stack([faces[p].image for p in batch]))))[:, 0] for batch in batches
        ]
    of_place = dict(zip(once, torch.cat(found).tolist(), strict=True))
    return np.array([of_place[place] for place in places])


def lightness(image: np.ndarray) -> float:
    """Mean L*, 0 to 100, of cheeks and nose in an aligned crop (S, S, 3) uint8."""
    left, top, right, bottom = (round(value * len(image)) for value in CHEEKS)
    return float(rgb2lab(image[top:bottom, left:right])[..., 0].mean())


def means(lines: list[dict[str, Any]], chosen: np.ndarray) -> dict[str, float | None]:
    """The mean of each of `FIGURES` over the chosen lines in which it is known."""
    keys = [key for key in lines[0] if key.rpartition(": ")[2] in FIGURES]
    result: dict[str, float | None] = {}
    for key in keys:
        values = [float(line[key]) for line, keep in zip(lines, chosen, strict=True) if keep and line[key]]
        result[key] = round(float(np.mean(values)), 3) if values else None
    return result


if __name__ == "__main__":
    main()
