"""Train variants of a recipe at equal images, and tabulate their metrics with intervals.

    python benchmarks/scripts/trials.py trials.yaml -o runs/trials
    python benchmarks/scripts/trials.py trials.yaml -o runs/trials --save trials_lfw_128px

The file has a recipe, or its name, and overrides of each setting, as of `fsf run --set`:

    recipe: faceshifter-lfw-128
    settings:
      control: []
      landmarks 500: [stages.0.losses.4.weight=500]

A setting whose run is finished is not run again, and an interrupted one is resumed. Numbers have 95 % intervals.
"""

import json
import re
from pathlib import Path
from typing import Any

import click

import fsframework as fsf
from fsframework.core.errors import UserError
from fsframework.evaluation.results import METHOD, Metrics
from fsframework.models.run import Run
from fsframework.recipe.schema import Recipe
from fsframework.utils.environment import of_script
from fsframework.utils.files import write_text
from fsframework.utils.yaml import dump_yaml, load_yaml

RESULTS = Path(__file__).parent.parent / "results"
SHOWN = ("top1", "cosine", "cosine_target", "pose_deg", "expression", "ssim", "background", "frechet", "error")


@click.command()
@click.argument("trials", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("-o", "--out", type=click.Path(path_type=Path), default=Path("runs/trials"), help="Folder of the runs.")
@click.option("--only", multiple=True, help="Name of a setting to run; may be repeated. Default: all.")
@click.option("--save", metavar="NAME", help="Name of the result in benchmarks/results.")
@click.option("--note", default="", help="Remark for the table.")
def main(trials: Path, out: Path, only: tuple[str, ...], save: str | None, note: str) -> None:
    """Run the settings of TRIALS and print their metrics."""
    content = read(trials)
    settings = content["settings"]
    if unknown := set(only) - set(settings):
        raise click.UsageError(f"No such setting: {', '.join(sorted(unknown))}; choose from {', '.join(settings)}.")
    rows = []
    try:
        for name, overrides in settings.items():
            folder = out / re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
            if only and name not in only:
                continue
            metrics = run(recipe_of(content["recipe"], trials, overrides), folder)
            rows.append({"setting": name, **row(metrics)})
            click.echo("  ".join(f"{key}: {value}" for key, value in rows[-1].items()))
    except UserError as error:
        raise click.ClickException(str(error)) from None
    if save is not None:
        command = f"python benchmarks/scripts/trials.py benchmarks/trials/{trials.name} --save {save}"
        facts = {**of_script("trials.py"), "command": command, "note": note}
        record = {**facts, "rows": rows, "trials": trials.read_text(encoding="utf-8")}
        write_text(RESULTS / f"{save}.json", json.dumps(record, indent=2) + "\n")


def read(path: Path) -> dict[str, Any]:
    """Return the content of a file of trials, with its two keys."""
    content, _ = load_yaml(path)
    if not isinstance(content, dict) or set(content) != {"recipe", "settings"}:
        raise click.ClickException(f"{path}: must contain recipe and settings, and nothing else")
    if not isinstance(content["settings"], dict) or not content["settings"]:
        raise click.ClickException(f"{path}: settings: must name at least one setting")
    return content


def recipe_of(recipe: str | dict[str, Any], trials: Path, overrides: list[str]) -> Recipe:
    """Return the recipe of a setting."""
    if isinstance(recipe, str):
        return Recipe.load(recipe, overrides)
    return Recipe.parse(dump_yaml(recipe), f"{trials}: recipe", overrides)


def run(recipe: Recipe, folder: Path) -> Metrics:
    """Train and evaluate, unless the folder has a finished run of the same recipe, and return the metrics."""
    metrics = folder / "metrics.json"
    started = (folder / "recipe.yaml").exists()
    if started and Run.load(folder, "cpu").recipe.digest() != recipe.digest():
        raise UserError(f"{folder}: contains a run of another recipe; remove it, or choose another folder")
    if not metrics.exists():
        fsf.train(recipe, folder, resume=started)
    return Metrics.from_json(json.loads(metrics.read_text(encoding="utf-8")), str(metrics))


def row(metrics: Metrics) -> dict[str, str]:
    """Return the method's metrics by heading and name, with intervals."""
    cells = {}
    for label, result in metrics.benchmarks.items():
        judge = re.sub(r".*\((?:judge: )?(.*)\)$", r"\1", label)
        for key, estimate in result.estimates[METHOD].items():
            if estimate.value is None or key not in SHOWN:
                continue
            interval = "" if estimate.low is None else f" ({estimate.low:.4g} to {estimate.high:.4g})"
            cells[key if label == judge else f"{judge}: {key}"] = f"{estimate.value:.4g}{interval}"
    return cells


if __name__ == "__main__":
    main()
