"""The weights that come with the framework: small, as their hashes say, and good at people whom they never saw."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from fsf_blending import face_segmenter
from fsf_faceshifter.shipped import HASHES, MODELS
from fsf_identity import lfw_recogniser
from skimage import data
from swapping import swap_file

from fsframework.cli.main import fsf
from fsframework.core.components import Model
from fsframework.core.errors import UserError
from fsframework.core.part import part
from fsframework.core.registry import registry
from fsframework.evaluation.evaluate import bench
from fsframework.evaluation.standalone import measure
from fsframework.inference.face_swapper import FaceSwapper
from fsframework.media.image_io import is_marked, read_image, write_image
from fsframework.models import store
from fsframework.provenance import verify as verification
from fsframework.provenance.options import ProvenanceOptions
from fsframework.recipe.check import check_file
from fsframework.recipe.schema import Recipe
from fsframework.utils.weights import load_metadata, verify

ROOT = Path(__file__).parents[1]
CARD = (ROOT / "MODEL_CARD.md").read_text(encoding="utf-8")


def test_the_default_is_there_and_all_are_small() -> None:
    assert store.DEFAULT in HASHES
    files = [*(model.file for model in MODELS), lfw_recogniser.WEIGHTS, face_segmenter.WEIGHTS]
    assert sum(file.stat().st_size for file in files) <= 64e6
    assert registry().models.keys() >= HASHES.keys()


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_files_are_what_their_hashes_and_the_card_say(model: Model) -> None:
    assert model.sha256 is not None
    verify(model.file, model.sha256)
    assert model.name in CARD and model.sha256 in CARD


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_its_recipe_names_no_place_of_the_machine_that_trained_it(model: Model) -> None:
    recipe = store.recipe_of(model)
    assert not Path(recipe.data.dump().get("root", "")).is_absolute()
    assert recipe.name == model.name and recipe.evaluation is not None


def test_the_fine_tuning_recipe_fits_the_weights(tmp_path: Path) -> None:
    tuned = Recipe.load("faceshifter")
    assert tuned.stages[0].init == store.DEFAULT
    assert tuned.networks == store.recipe_of(store.find(store.DEFAULT)).networks
    assert "1.58" in check_file("faceshifter", ())


@pytest.fixture(scope="module", params=HASHES)
def converter(request: pytest.FixtureRequest) -> FaceSwapper:
    return FaceSwapper(request.param, device="cpu")


def test_a_swap_without_any_training(converter: FaceSwapper, tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", data.astronaut(), synthetic=False)
    swap_file(converter, tmp_path / "a.png", tmp_path / "a.png", tmp_path / "out.png")
    out = read_image(tmp_path / "out.png")
    assert is_marked(tmp_path / "out.png")
    left, top, right, bottom = converter.find(data.astronaut(), "a")[0].box.astype(int)
    face = np.abs(out.astype(int) - data.astronaut())[top:bottom, left:right]
    assert 1 < face.mean() < 25  # the astronaut onto herself: another picture, of the same face


def test_bfloat16_changes_a_swap_by_a_grey_level_or_two() -> None:
    exact, close = (FaceSwapper(device="cpu", precision=precision) for precision in ("fp32", "bf16"))
    frame = data.astronaut()
    face, source = exact.find(frame, "frame")[0], exact.source(frame[:, ::-1], "source")
    one, other = (each.crops(frame, [(face, source)])[0][1].astype(int) for each in (exact, close))
    assert 0 < np.abs(one - other).max() <= 4
    assert "precision" not in exact.origin(ProvenanceOptions()).facts()


def test_bfloat16_can_be_asked_for_and_the_manifest_says_so(tmp_path: Path) -> None:
    face, out = tmp_path / "face.png", tmp_path / "out.png"
    write_image(face, data.astronaut(), synthetic=False)
    done = CliRunner().invoke(fsf, ["swap", str(face), str(face), str(out), "--precision", "bf16", "--device", "cpu"])
    assert done.exit_code == 0, done.output
    manifest = verification.verify(out).manifest
    assert manifest is not None and manifest.facts["precision"] == "bf16"


@pytest.mark.parametrize("model", HASHES)
def test_swaps_of_people_whom_it_never_saw_are_found_as_the_source(model: str) -> None:
    sets = ["evaluation.pairs=40", "evaluation.data={use: orl}"]
    metrics = bench(model, ["id-retrieval", "reconstruction"], sets, "cpu").to_json()
    own = metrics["benchmarks"]["id-retrieval (own network)"]
    copied = metrics["baselines"]["copy-target"]["id-retrieval (own network)"]
    assert own["top1"] > 80 and own["cosine"] > copied["cosine"] + 0.4
    assert metrics["benchmarks"]["reconstruction"]["ssim"] > 0.6


def test_the_judge_knows_people_again_whom_it_never_saw() -> None:
    (row,) = measure("verification", ["judge={use: lfw-recogniser}"], "cpu")["rows"]
    assert row["faces"] == 100 and row["accuracy_percent"] > 90 and row["rank1_percent"] > 95


def test_the_judge_refuses_other_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expect_error: Callable[..., Any]
) -> None:
    damaged = bytearray(lfw_recogniser.WEIGHTS.read_bytes())
    damaged[-1] ^= 1
    (tmp_path / "other.safetensors").write_bytes(damaged)
    monkeypatch.setattr(lfw_recogniser, "WEIGHTS", tmp_path / "other.safetensors")
    hashes = {lfw_recogniser.SHA256: "EXPECTED", hashlib.sha256(damaged).hexdigest(): "FOUND"}
    with expect_error("other.safetensors: ", hide=hashes):
        part("identity-encoders", "lfw-recogniser").build().load()


def test_the_segmenter_is_what_its_hash_and_the_card_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expect_error: Callable[..., Any]
) -> None:
    verify(face_segmenter.WEIGHTS, face_segmenter.SHA256)
    assert face_segmenter.WEIGHTS.stat().st_size <= 5e6 and face_segmenter.SHA256 in CARD
    recipe = Recipe.parse(load_metadata(face_segmenter.WEIGHTS)["recipe"], "recipe")
    assert recipe.name == "segmenter" and not Path(recipe.data.dump()["root"]).is_absolute()
    assert recipe.networks == Recipe.load("segmenter").networks and recipe.stages == Recipe.load("segmenter").stages
    damaged = bytearray(face_segmenter.WEIGHTS.read_bytes())
    damaged[-1] ^= 1
    (tmp_path / "other.safetensors").write_bytes(damaged)
    monkeypatch.setattr(face_segmenter, "WEIGHTS", tmp_path / "other.safetensors")
    hashes = {face_segmenter.SHA256: "EXPECTED", hashlib.sha256(damaged).hexdigest(): "FOUND"}
    with expect_error("other.safetensors: ", hide=hashes):
        part("estimators", "face-segmenter").build().load()


def test_the_segmenter_finds_the_face_and_leaves_the_hair(tmp_path: Path) -> None:
    """And recipes that train it start from random weights."""
    network = part("estimators", "face-segmenter").build()
    network.load()
    assert not any(parameter.requires_grad for parameter in network.parameters())
    with pytest.raises(UserError, match="is no face-segmenter of"):
        part("estimators", "face-segmenter", width=8).build().load()
    for name in ("segmenter", "nirkin"):
        refiner = Recipe.load(name).networks.refiner
        assert refiner is not None and refiner.options.mask.options.weights is None and refiner.build(64).learns
