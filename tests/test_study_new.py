"""Making a study: the same pairs by all methods, names that say nothing, nothing half-written."""

import errno
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from fsframework.cli.main import fsf
from fsframework.core.errors import UserError
from fsframework.core.registry import registry
from fsframework.evaluation.evaluate import dataset_of, pairs_of, plan_of
from fsframework.media.image_io import is_marked, read_image
from fsframework.media.tensor import swap_images
from fsframework.models import store
from fsframework.models.run import Run
from fsframework.recipe.schema import Recipe
from fsframework.training.trainer import train
from fsframework.web.study.new import in_squares, make
from fsframework.web.study.plan import Study

EVALUATION = {"pairs": 8, "benchmarks": [{"use": "reconstruction"}]}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, untrained_run: Callable[..., Run]) -> dict[str, Path]:
    """Two FaceShifters of different sizes that were not trained, and a DeepFakes of other people that was, a step."""
    folder = tmp_path_factory.mktemp("runs")
    untrained_run(folder / "small", evaluation=EVALUATION, data={"use": "orl", "test_people": [1, 2]})
    untrained_run(folder / "large", size=64, name="large")
    data = {"use": "orl", "people": [3, 4], "test_pictures": [9, 10]}
    sets = {"size": 32, "stages.0.steps": 1, "networks.generator.people": 2, "data": json.dumps(data)}
    sets |= {"networks.attributes.width": 0.125, "networks.generator.width": 0.125}
    recipe = Recipe.load("deepfakes", [f"{key}={value}" for key, value in sets.items()])
    train(Run.open(recipe, folder / "people", device="cpu"))
    return {name: folder / name for name in ("small", "large", "people")}


@pytest.fixture(scope="module")
def made(runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Study]:
    folder = tmp_path_factory.mktemp("made") / "study"
    return folder, make([runs["small"], runs["large"], runs["small"]], folder, trials=4, seed=3, device="cpu")


def test_what_the_folder_holds(made: tuple[Path, Study], runs: dict[str, Path]) -> None:
    folder, study = made
    assert Study.load(folder) == study
    assert sorted(file.name for file in folder.iterdir()) == ["consent.txt", "pictures", "study.json"]
    assert {file.name for file in (folder / "pictures").iterdir()} == study.pictures()
    assert len(study.pictures()) == 6 * 5
    assert [trial.is_check for trial in study.trials] == [False] * 4 + [True] * 2
    assert len({trial.pair for trial in study.trials}) == 6
    assert [method.name for method in study.methods] == ["small", "large", "small-2"]
    assert [method.size for method in study.methods] == [32, 64, 32]
    assert study.methods[0].recipe_sha256 == Run.load(runs["small"]).recipe.digest()
    weights = runs["small"] / "checkpoints" / "one.safetensors"
    assert study.methods[0].weights_sha256 == {weights.name: hashlib.sha256(weights.read_bytes()).hexdigest()}
    assert study.evaluation["pairs"] == 8 and study.manifest["versions"]["torch"]


def test_pictures_are_the_methods_swaps(made: tuple[Path, Study], runs: dict[str, Path]) -> None:
    folder, study = made
    trained = store.load(runs["small"], "cpu")
    plan = plan_of(trained.recipe)
    pairs = pairs_of(trained.recipe, plan, dataset_of(trained.recipe, plan.data))
    names = pairs.dataset.names()
    (batch,) = pairs
    with torch.no_grad():
        swaps = swap_images(trained.swapper(batch).image, batch.target.image)
    places = {(names[source], names[target]): place for place, (source, target) in enumerate(pairs.pairs)}
    for trial in study.trials[:4]:
        for option in (trial.options[0], trial.options[2]):
            picture = read_image(folder / "pictures" / option.picture)
            assert picture.shape == (256, 256, 3) and np.ptp(picture, axis=2).max() == 0  # ORL is grey
            small = picture.reshape(32, 8, 32, 8, 3).mean(axis=(1, 3))
            assert np.abs(small - swaps[places[trial.pair]]).mean() < 3  # enlarged by splines


def test_names_and_sizes_say_nothing(made: tuple[Path, Study]) -> None:
    folder, study = made
    assert all(len(name) == 36 and set(name[:32]) <= set("0123456789abcdef") for name in study.pictures())
    shapes = {read_image(folder / "pictures" / name).shape for name in study.pictures()}
    assert shapes == {(256, 256, 3)}


def test_swaps_are_marked_and_photographs_are_not(made: tuple[Path, Study]) -> None:
    folder, study = made
    for trial in study.trials:
        marks = [is_marked(folder / "pictures" / option.picture) for option in trial.options]
        assert marks == [not trial.is_check] * 3
        assert not is_marked(folder / "pictures" / trial.source)


def test_checks_have_answers_that_are_known(made: tuple[Path, Study]) -> None:
    folder, study = made
    for trial in study.trials[4:]:
        assert [option.what for option in trial.options] == ["source", "target", "degraded"]
        assert trial.right == {"identity": [0], "attributes": [1], "realism": [0, 1]}
        own = [read_image(folder / "pictures" / name) for name in (trial.source, trial.target)]
        options = [read_image(folder / "pictures" / option.picture) for option in trial.options]
        assert (options[0] == own[0]).all() and (options[1] == own[1]).all()
        assert np.abs(options[2].astype(float) - own[1]).mean() > 10


def test_degraded_pictures() -> None:
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    squares = in_squares(image, 4)
    assert squares.shape == image.shape and len(np.unique(squares.reshape(-1, 3), axis=0)) == 16


def test_a_seed_gives_the_same_pairs(made: tuple[Path, Study], runs: dict[str, Path], tmp_path: Path) -> None:
    _, study = made
    pairs = [trial.pair for trial in study.trials]
    two = [runs["small"], runs["small"]]
    again = make(two, tmp_path / "again", trials=4, seed=3, device="cpu")
    other = make(two, tmp_path / "other", trials=4, seed=4, device="cpu")
    assert [trial.pair for trial in again.trials] == pairs != [trial.pair for trial in other.trials]
    assert all(
        trial.right == {"identity": [0], "attributes": [1]} for trial in again.trials[4:]
    )  # both are photographs
    assert not again.pictures() & study.pictures()


def test_people_who_are_known(runs: dict[str, Path], tmp_path: Path, expect_error: Callable[..., Any]) -> None:
    two = [runs["small"], runs["people"]]
    with expect_error("deepfakes: "):
        make(two, tmp_path / "study", 2, device="cpu")
    assert list(tmp_path.iterdir()) == []
    sets = ["data.test_people=[]", "data.people=[3, 4]", "data.test_pictures=[9, 10]", "evaluation.pairs=4"]
    study = make(two, tmp_path / "study", 2, sets=sets, device="cpu")
    assert [method.known_people for method in study.methods] == [False, True]


def test_nothing_is_half_written(runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*values: Any) -> None:
        raise UserError("disk: full")

    monkeypatch.setattr("fsframework.web.study.new.write_text", fail)
    with pytest.raises(UserError, match="disk: full"):
        make([runs["small"], runs["small"]], tmp_path / "study", 2, device="cpu")
    assert list(tmp_path.iterdir()) == []


def test_command(runs: dict[str, Path], tmp_path: Path, check_message: Callable[..., None]) -> None:
    folder = tmp_path / "new" / "study"
    folder.mkdir(parents=True)  # an empty one will do
    words = [
        "study",
        "new",
        str(runs["small"]),
        str(runs["large"]),
        "-o",
        str(folder),
        "--pairs",
        "5",
        "--device",
        "cpu",
    ]
    done = CliRunner().invoke(fsf, [*words, "--trials", "3", "--seed", "9", "--set", "evaluation.batch_size=2"])
    assert done.exit_code == 0, done.output
    first, second = done.output.splitlines()[-2:]
    assert first.startswith(f"study: {folder} ") and second.startswith("next: ")
    check_message(first)
    check_message(second)
    study = Study.load(folder)
    assert study.seed == 9 and study.command.startswith("fsf") and study.evaluation["batch_size"] == 2


def test_mistakes(
    runs: dict[str, Path], tmp_path: Path, expect_error: Callable[..., Any], check_message: Callable[..., None]
) -> None:
    small, out = runs["small"], tmp_path / "out"
    for methods, settings, place in [
        ([small], {}, "MODEL...: "),
        ([small] * 10, {}, "MODEL...: "),
        ([small, tmp_path / "none"], {}, f"{tmp_path / 'none'}: "),
        ([small, "lfw-recogniser"], {}, "lfw-recogniser: "),
        ([runs["large"], small], {}, "large: evaluation: "),
        ([small] * 2, {"trials": 7}, "--trials 7: "),
        ([small] * 2, {"sets": ["evaluation.pairs=nothing"]}, "nothing: "),
    ]:
        with expect_error(place, hide={", ".join(sorted(registry().models)): "MODELS"}):
            make(methods, out, device="cpu", **settings)  # type: ignore[arg-type]
        assert not out.exists()
    with pytest.raises(UserError) as error:
        make([small] * 2, out, sets=["evaluation.pairs=0"], device="cpu")
    lines = str(error.value).splitlines()  # it is no list of pairs, and no number of them
    assert len(lines) == 2 and all(line.startswith("--set evaluation.pairs=0: evaluation.pairs: ") for line in lines)
    check_message(str(error.value))
    assert not out.exists()
    for name in ("file", "full/file"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    for where in (tmp_path / "file", tmp_path / "full"):
        with expect_error(f"{where}: "):
            make([small] * 2, where, device="cpu")
    with expect_error(tmp_path, hide={os.strerror(errno.ENOTDIR): "REASON"}):
        make([small] * 2, tmp_path / "file" / "below", 2, device="cpu")
