"""The script that trains variants of a recipe at equal images, and the file of its trials."""

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner

from fsframework.recipe.schema import Recipe

ROOT = Path(__file__).parents[1]
SCRIPT = runpy.run_path(str(ROOT / "benchmarks" / "scripts" / "trials.py"))
TRIALS = sorted((ROOT / "benchmarks" / "trials").glob("*.yaml"))


@pytest.mark.parametrize("file", TRIALS, ids=lambda file: file.stem)
def test_settings_differ_from_each_other_and_agree_in_images(file: Path) -> None:
    content = SCRIPT["read"](file)
    content["settings"].pop("start", None)  # the weights before, which are measured without training
    recipes = [SCRIPT["recipe_of"](content["recipe"], file, sets) for sets in content["settings"].values()]
    assert len({recipe.digest() for recipe in recipes}) == len(recipes)
    assert len({(recipe.seed, *[stage.steps * stage.batch_size for stage in recipe.stages]) for recipe in recipes}) == 1
    assert len({recipe.stages[0].init for recipe in recipes}) == 1


@pytest.mark.parametrize(
    "content", [[], {"recipe": "smoke"}, {"recipe": "smoke", "settings": {}}, {"settings": {"a": []}}]
)
def test_a_file_that_is_no_trials_is_refused(content: Any, tmp_path: Path) -> None:
    file = tmp_path / "trials.yaml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.raises(click.ClickException, match=r"trials\.yaml: "):
        SCRIPT["read"](file)


def test_finished_runs_are_tabulated_and_other_recipes_refused(
    tmp_path: Path, small_recipe: Callable[..., Recipe]
) -> None:
    recipe = small_recipe(tmp_path / "small.yaml")
    benchmark = {"use": "reconstruction"}
    file = tmp_path / "trials.yaml"
    sets = ["evaluation={pairs: 2, benchmarks: [{use: reconstruction}]}"]
    settings = {"Control": sets, "other seed": [*sets, "seed=1"]}
    file.write_text(yaml.safe_dump({"recipe": recipe.dump(), "settings": settings}), encoding="utf-8")
    out = tmp_path / "runs"
    arguments = [str(file), "-o", str(out), "--only", "Control"]
    done = CliRunner().invoke(SCRIPT["main"], arguments)
    assert done.exit_code == 0, done.output
    metrics = json.loads((out / "control" / "metrics.json").read_text(encoding="utf-8"))
    assert f"ssim: {metrics['benchmarks'][benchmark['use']]['ssim']:.4g} (" in done.output
    trained = (out / "control" / "log.jsonl").stat().st_mtime_ns
    assert CliRunner().invoke(SCRIPT["main"], arguments).exit_code == 0
    assert (out / "control" / "log.jsonl").stat().st_mtime_ns == trained
    (out / "control").rename(out / "other-seed")
    refused = CliRunner().invoke(SCRIPT["main"], [*arguments[:-1], "other seed"])
    assert refused.exit_code == 1 and "contains a run of another recipe" in refused.output
