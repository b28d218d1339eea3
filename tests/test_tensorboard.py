"""`fsf run --tensorboard`: curves that say what the log says, also of a run that went on."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fsframework.cli import main
from fsframework.core.errors import UserError
from fsframework.models.run import Run
from fsframework.recipe.schema import Recipe
from fsframework.training.tensorboard import FOLDER, TensorBoardLogger
from fsframework.training.trainer import train


def curves(run: Run, stage: str) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard reads of a stage: by name, steps and values."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
        EventAccumulator,
    )

    found = EventAccumulator(str(run.path / FOLDER / stage))
    found.Reload()
    names = found.Tags()["scalars"]
    return {name: [(event.step, event.value) for event in found.Scalars(name)] for name in names}


def logged(run: Run, stage: str) -> dict[str, list[tuple[int, Any]]]:
    """The same of log.jsonl."""
    lines: dict[str, list[tuple[int, Any]]] = {}
    for entry in run.read_log():
        if entry["stage"] == stage:
            named = {f"loss/{name}": value for name, value in entry["losses"].items()}
            named |= {f"speed/{name}": entry[name] for name in ("images_per_s", "data_share")}
            for name, value in named.items():
                lines.setdefault(name, []).append((entry["step"], pytest.approx(value, rel=1e-6)))
    return lines


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")  # TensorBoard's own
def test_curves_say_what_the_log_says(small_recipe: Any, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    recipe: Recipe = small_recipe(tmp_path / "small.yaml", refiner=True)
    run = Run.open(recipe, tmp_path / "run", device="cpu")
    stage = recipe.stages[0]
    for step in (1, 2):  # as if an earlier process had gone further than its checkpoint
        run.log(stage=stage.name, step=step, losses={"identity": 9.0}, images_per_s=1.0, data_share=0.0)
    with TensorBoardLogger(run, stage) as board:
        board.add({"step": 7, "losses": {"identity": 9.0}, "images_per_s": 1.0, "data_share": 0.0})
    assert [step for step, _ in curves(run, stage.name)["loss/identity"]] == [1, 2, 7]
    train(run, board=True)
    for each in recipe.stages:
        assert curves(run, each.name) == logged(run, each.name) != {}
    assert "loss/identity" not in curves(run, stage.name)


def test_without_the_flag_there_are_none(small_recipe: Any, tmp_path: Path) -> None:
    run = Run.open(small_recipe(tmp_path / "small.yaml"), tmp_path / "run", device="cpu")
    train(run)
    assert not (run.path / FOLDER).exists()


def test_without_tensorboard_one_line_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, check_message: Callable[..., None]
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    result = CliRunner().invoke(main.fsf, ["run", "smoke", "--tensorboard", "--out", str(tmp_path / "run")])
    assert result.exit_code == 1 and isinstance(result.exception, UserError)
    assert str(result.exception).startswith("--tensorboard")
    check_message(str(result.exception))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_command(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    command = [sys.executable, "-m", "fsframework", "run", "smoke", "--tensorboard", "--device", "cpu", "--out", "run"]
    steps = ["--set", "stages.0.steps=2", "--set", "stages.1.steps=2", "--set", "evaluation=null"]
    result = subprocess.run([*command, *steps], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    run = Run.load(tmp_path / "run", "cpu")
    assert {file.parent.name for file in (run.path / FOLDER).glob("*/events*")} == {"aei-net", "hear-net"}
