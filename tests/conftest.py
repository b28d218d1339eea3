"""Fixtures that more than one test file uses."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """A folder with LFW and weights, beside the checkout or named by FSF_SHARED; without it the test is skipped."""
    folder = Path(os.environ.get("FSF_SHARED", Path(__file__).parents[2] / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"needs the folder {folder} with data/lfw and weights")
    return folder


@pytest.fixture(scope="session")
def small_recipe() -> Callable[..., Any]:
    """Writes and loads a recipe: FaceShifter at 32 px on ORL, too small to learn, with a step for each stage.

    `refiner` adds HEAR-Net and its stage, `init` starts the first stage from weights, other keys are the recipe's.
    """
    from fsframework import safe_yaml
    from fsframework.recipe import Recipe

    def make(file: Path, refiner: bool = False, init: str | None = None, **keys: Any) -> Recipe:
        uses = {"attributes": "aei-attributes", "generator": "aad-generator"}
        trains = [["attributes", "generator"]]
        if refiner:
            uses["refiner"] = "hear-net"
            trains.append(["refiner"])
        settings = {"losses": [{"use": "reconstruction"}], "optimizer": {"lr": 1e-12}, "steps": 1, "batch_size": 2}
        stages: list[dict[str, Any]] = [
            {"name": name, "train": train, **settings} for name, train in zip(("one", "two"), trains, strict=False)
        ]
        stages[0]["init"] = init
        networks = {name: {"use": use, "width": 0.125} for name, use in uses.items()}
        recipe = {"name": "small", "size": 32, "data": {"use": "orl"}, "stages": stages, **keys}
        recipe["networks"] = {"identity": {"use": "dlib-resnet"}, **networks}
        file.write_text(safe_yaml.dump(recipe))
        return Recipe.load(str(file))

    return make


@pytest.fixture(scope="session")
def untrained_run(small_recipe: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a run of such a recipe whose stages are finished, with networks as they start from seed 0."""
    import torch

    from fsframework.recipe import build_swapper
    from fsframework.runs import Run

    def make(folder: Path, **settings: Any) -> Run:
        run = Run.open(small_recipe(folder.with_suffix(".yaml"), **settings), folder, device="cpu")
        torch.manual_seed(0)
        parts = dict(build_swapper(run.recipe).trained_parts())
        for stage in run.recipe.stages:
            weights = {f"{n}.{key}": value for n in stage.train for key, value in parts[n].state_dict().items()}
            run.finish(stage, weights)
        return run

    return make
