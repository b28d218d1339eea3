"""`fsf status`: where a run stands, read from its folder."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from fsframework.cli.main import fsf
from fsframework.models.run import Run
from fsframework.models.run_status import run_status, table
from fsframework.recipe.schema import Recipe


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run whose first stage is finished, and whose second is on its way."""
    sets = ["stages.0.steps=20", "stages.1.steps=50", "stages.1.batch_size=4"]
    made = Run.open(Recipe.load("smoke", sets), tmp_path / "run", device="cpu")
    first, second = made.recipe.stages
    for step in (10, 20):
        made.log(stage=first.name, step=step, losses={"identity": 0.5}, images_per_s=20.0, data_share=0.0)
    made.finish(first, {"generator.weight": torch.zeros(1)})
    for step, rate in ((10, 1.0), (20, 2.0), (30, 3.0)):
        made.log(stage=second.name, step=step, losses={"change": 0.25}, images_per_s=rate, data_share=0.0)
    made.save_training_state(second, 25, {"model.weight": torch.zeros(1)})
    return made


def test_stages(run: Run) -> None:
    old = time.time() - 65
    os.utime(run.path / "log.jsonl", (old, old))
    found = run_status(run.path)
    first, second = found.stages
    assert first.word == "finished" and first.seconds_left is None and first.checkpoint is None
    assert (second.word, second.done, second.steps, second.checkpoint) == ("begun", 30, 50, 25)
    assert second.images_per_s == 2.0 and second.seconds_left == 20 * 4 / 2.0  # the median of the last lines
    assert second.losses == {"change": 0.25}
    assert found.seconds_ago == pytest.approx(65, abs=5)


def test_before_the_first_step(tmp_path: Path, check_message: Callable[..., None]) -> None:
    made = Run.open(Recipe.load("smoke"), tmp_path / "run", device="cpu")
    found = run_status(made.path)
    assert found.seconds_ago is None and {stage.word for stage in found.stages} == {"waiting"}
    shown = CliRunner().invoke(fsf, ["status", str(made.path)])
    title = str(table(found).title)
    assert shown.exit_code == 0 and "".join(title.split()) in "".join(shown.output.split())  # lines are wrapped
    check_message(title)


def test_the_command(run: Run, expect_error: Callable[..., Any]) -> None:
    before = {file: file.stat().st_mtime_ns for file in run.path.rglob("*")}
    shown = CliRunner().invoke(fsf, ["status", str(run.path)], env={"COLUMNS": "150"})
    assert shown.exit_code == 0 and "30 of 50" in shown.output and "40 s" in shown.output
    said = json.loads(CliRunner().invoke(fsf, ["status", str(run.path), "--json"]).output)
    assert said["stages"][1]["checkpoint"] == 25 and said["folder"] == str(run.path)
    assert {file: file.stat().st_mtime_ns for file in run.path.rglob("*")} == before  # nothing is written
    with expect_error(run.path.parent):
        run_status(run.path.parent)
