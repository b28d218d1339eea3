"""Models: a run as one file, found by path or by name, loaded, measured, converted with, and trained on from."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from skimage import data

from fsframework.core.errors import UserError
from fsframework.core.registry import Model, Registry, registry
from fsframework.evaluation.evaluate import bench
from fsframework.inference.face_swapper import FaceSwapper
from fsframework.media.image_io import write_image
from fsframework.models import store
from fsframework.models.run import Run
from fsframework.recipe.schema import Recipe
from fsframework.training.trainer import train
from fsframework.utils.weights import load_state, save_state


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, untrained_run: Callable[..., Run]) -> Path:
    """A run with both stages finished, its networks as they start."""
    evaluation = {"pairs": 4, "benchmarks": [{"use": "reconstruction"}]}
    return untrained_run(tmp_path_factory.mktemp("models") / "run", refiner=True, evaluation=evaluation).path


@pytest.fixture(scope="module")
def file(folder: Path) -> Path:
    file = folder.parent / "small.safetensors"
    store.export(folder, file, ["data.use=face-folder", "data.root=faces"])
    return file


def test_a_model_is_the_run_in_half_precision(folder: Path, file: Path) -> None:
    state = load_state(file)
    assert {name.partition(".")[0] for name in state} == {"attributes", "generator", "refiner"}
    assert {value.dtype for name, value in state.items() if "num_batches" not in name} == {torch.float16}
    loaded, run = store.load(file, "cpu"), store.load(folder, "cpu")
    assert not loaded.swapper.training and loaded.recipe.size == 32
    for (name, one), other in zip(loaded.swapper.state_dict().items(), run.swapper.state_dict().values(), strict=True):
        assert one.dtype == other.dtype, name
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)


def test_the_recipe_goes_with_it_as_it_was_changed(folder: Path, file: Path, expect_error: Callable[..., Any]) -> None:
    recipe = store.load(file, "cpu").recipe
    assert (recipe.data.name, recipe.data.dump()["root"]) == ("face-folder", "faces")
    assert store.load(file, "cpu", ["seed=7"]).recipe.seed == 7
    assert Recipe.load(str(folder / "recipe.yaml")).data.name == "orl"  # the run's own stays
    with expect_error("--set sed=7: sed: "):
        store.load(file, "cpu", ["sed=7"])


def test_exports_are_equal(folder: Path, file: Path) -> None:
    store.export(folder, folder.parent / "again.safetensors", ["data.use=face-folder", "data.root=faces"])
    assert (folder.parent / "again.safetensors").read_bytes() == file.read_bytes()


def test_a_run_without_a_refiner_gives_a_model_without(folder: Path, tmp_path: Path) -> None:
    run = Run.open(Recipe.load(str(folder / "recipe.yaml")), tmp_path / "run", device="cpu")
    run.finish(run.recipe.stages[0], load_state(folder / "checkpoints/one.safetensors"))
    store.export(tmp_path / "run", tmp_path / "x.safetensors")
    assert store.load(tmp_path / "x.safetensors", "cpu").swapper.refiner is None


def test_an_unfinished_stage_is_exported_from_its_newest_checkpoint(
    folder: Path, file: Path, tmp_path: Path, expect_error: Callable[..., Any]
) -> None:
    recipe = Recipe.load(str(folder / "recipe.yaml"))
    run = Run.open(recipe, tmp_path / "run", device="cpu")
    one = recipe.stages[0]
    with expect_error("run: ", hide={str(tmp_path): "PATH"}):
        store.export(run.path, tmp_path / "x.safetensors", unfinished=True)
    weights = load_state(folder / "checkpoints/one.safetensors")
    kind = "model" if one.ema is None else "average"
    for step, factor in ((1, 0.0), (2, 0.5)):
        tensors = {f"{kind}.{name}": value * factor for name, value in weights.items() if value.is_floating_point()}
        rest = {f"{kind}.{name}": value for name, value in weights.items() if not value.is_floating_point()}
        run.save_training_state(one, step, tensors | rest)
    with expect_error("run: ", hide={str(tmp_path): "PATH"}):
        store.export(run.path, tmp_path / "x.safetensors")
    store.export(run.path, tmp_path / "x.safetensors", unfinished=True)
    found, state = store.load(tmp_path / "x.safetensors", "cpu").swapper, load_state(file)
    assert found.refiner is None
    for name, value in found.generator.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, 0.5 * state[f"generator.{name}"].float(), rtol=2e-3, atol=1e-6)
    run.finish(one, weights)  # the next stage has no checkpoint
    store.export(run.path, tmp_path / "y.safetensors", unfinished=True)
    assert store.load(tmp_path / "y.safetensors", "cpu").swapper.refiner is None
    with expect_error("y.safetensors: ", hide={str(tmp_path): "PATH"}):
        store.export(tmp_path / "y.safetensors", tmp_path / "z.safetensors", unfinished=True)


def installed() -> dict[str, str]:
    """Return what hides the names of installed models."""
    return {", ".join(sorted(registry().models)): "MODELS"}


def test_faults_are_told_in_a_line(
    folder: Path, file: Path, tmp_path: Path, expect_error: Callable[..., Any], check_message: Callable[..., None]
) -> None:
    with expect_error("nobody: ", hide=installed()):
        store.load("nobody")
    with expect_error("faceshifter-lfw-46: ", hide=installed()):
        store.load("faceshifter-lfw-46")
    with expect_error("x.pt: "):
        store.export(folder, tmp_path / "x.pt")
    with expect_error(f"{tmp_path.name}: "):
        store.export(tmp_path, tmp_path / "x.safetensors")
    save_state(tmp_path / "bare.safetensors", {"a": torch.zeros(1)})
    with expect_error("bare.safetensors: "):
        store.load(tmp_path / "bare.safetensors")
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError) as caught:
        store.load(cut)
    assert str(caught.value).startswith(f"{cut}: ") and "\n" not in str(caught.value)
    check_message(str(caught.value), reason=True)
    with safe_open(file, "pt") as opened:
        text = opened.metadata()["recipe"]
    save_state(tmp_path / "other.safetensors", load_state(file), {"recipe": text.replace("width: 0.125", "width: 1.0")})
    with pytest.raises(UserError) as caught:
        store.load(tmp_path / "other.safetensors")
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}/other.safetensors: ") and "\n" not in message
    check_message(message, reason=True)


def with_model(monkeypatch: pytest.MonkeyPatch, model: Model) -> None:
    found = registry()
    changed = Registry(found.components, {model.name: model}, found.distributions, found.problems)
    monkeypatch.setattr(store, "registry", lambda: changed)


def test_installed_models_have_names_and_are_verified(
    file: Path, monkeypatch: pytest.MonkeyPatch, expect_error: Callable[..., Any]
) -> None:
    with_model(monkeypatch, Model("mine", file, "0" * 64))
    hide = {str(file.parent): "MODELS", hashlib.sha256(file.read_bytes()).hexdigest(): "SHA-256 OF THE FILE"}
    with expect_error("small.safetensors: ", hide=hide):
        store.load("mine", "cpu")
    with_model(monkeypatch, Model("mine", file, None))
    assert store.load("mine", "cpu").recipe.name == "small"


def test_a_model_is_measured_and_converted_with(file: Path, tmp_path: Path) -> None:
    metrics = bench(file, [], ["data.use=orl"], "cpu").to_json()
    assert metrics["method"] == "small" and metrics["benchmarks"]["reconstruction"]["ssim"] < 1
    write_image(tmp_path / "a.png", data.astronaut(), synthetic=False)
    out = FaceSwapper(file, "cpu").swap_into(
        FaceSwapper(file, "cpu").read_source(tmp_path / "a.png"), data.astronaut(), "a"
    )
    assert (out != data.astronaut()).any()


def test_training_starts_from_a_model(file: Path, tmp_path: Path, small_recipe: Callable[..., Recipe]) -> None:
    """`init` gives weights to all networks that no earlier stage trains, also when the run goes on later."""
    recipe = small_recipe(tmp_path / "tuned.yaml", refiner=True, init=str(file))
    run = Run.open(recipe, tmp_path / "run", device="cpu")
    train(run)
    tuned, given = run.load_swapper().state_dict(), store.load(file, "cpu").swapper.state_dict()
    learned = [name for name in given if name.partition(".")[0] != "identity" and name.endswith("weight")]
    for name in learned:
        torch.testing.assert_close(tuned[name], given[name], rtol=1e-3, atol=1e-5, msg=name)
    (tmp_path / "run/checkpoints/two.safetensors").unlink()
    train(Run.open(recipe, tmp_path / "run", resume=True, device="cpu"))
    again = Run.load(tmp_path / "run", "cpu").load_swapper().state_dict()
    assert np.all([torch.equal(again[name], tuned[name]) for name in tuned])


def test_networks_that_only_came_by_init_stay_with_the_run(
    file: Path, tmp_path: Path, small_recipe: Callable[..., Recipe]
) -> None:
    two = small_recipe(tmp_path / "both.yaml", refiner=True, init=str(file))
    alone = two.model_copy(update={"stages": [two.stages[1].model_copy(update={"init": str(file)})]})
    train(Run.open(alone, tmp_path / "run", device="cpu"))
    made, given = (store.load(where, "cpu").swapper.state_dict() for where in (tmp_path / "run", file))
    names = [name for name in given if name.startswith(("attributes.", "generator."))]
    assert names and all(torch.equal(made[name], given[name]) for name in names)


def test_a_recipe_without_refiner_starts_from_a_model_with_one(
    file: Path, tmp_path: Path, small_recipe: Callable[..., Recipe], capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = small_recipe(tmp_path / "plain.yaml", init=str(file))
    assert recipe.networks.refiner is None
    train(Run.open(recipe, tmp_path / "run", device="cpu"))
    assert f"note: {file}: its refiner is left out" in capsys.readouterr().err
    made, given = (store.load(where, "cpu").swapper.state_dict() for where in (tmp_path / "run", file))
    assert {name.partition(".")[0] for name in made} == {"identity", "attributes", "generator"}
    name = next(name for name in made if name.startswith("generator.") and name.endswith("weight"))
    torch.testing.assert_close(made[name], given[name], rtol=1e-3, atol=1e-5)


def test_an_init_that_is_not_there(
    tmp_path: Path, small_recipe: Callable[..., Recipe], expect_error: Callable[..., Any]
) -> None:
    run = Run.open(small_recipe(tmp_path / "tuned.yaml", init="nowhere"), tmp_path / "run", device="cpu")
    with expect_error("nowhere: ", hide=installed()):
        train(run)
