"""ONNX: a file swaps as torch does, is used as other models are, and what cannot be one says so in a line."""

import re
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime  # type: ignore[import-untyped]
import pytest
import torch
from fsf_identity.dlib_resnet import DlibResNet
from graphs import Branching, Choosy, Masked, PlainIdentity, TwoFaced, pairs, small_swapper
from skimage import data
from swapping import FAST_MODEL

from fsframework.cli import main
from fsframework.core.errors import UserError
from fsframework.core.registry import registry
from fsframework.core.swapper import Swapper
from fsframework.core.types import SwapBatch
from fsframework.data.samples import SIZE
from fsframework.evaluation.evaluate import bench
from fsframework.inference.face_swapper import FaceSwapper
from fsframework.media.image_io import SOURCE_TYPE, is_marked, read_image, write_image
from fsframework.models import onnx_export, store
from fsframework.models.run import Run
from fsframework.recipe.schema import Recipe
from fsframework.testing.samples import SmallGenerator, batch_of
from fsframework.utils.weights import digest


def fsf(*words: str | Path) -> Any:
    return main.fsf.main([str(word) for word in words], standalone_mode=False)


@pytest.fixture(scope="module")
def small64(tmp_path_factory: pytest.TempPathFactory, small_recipe: Callable[..., Recipe]) -> Recipe:
    """A recipe of the small swappers' size."""
    return small_recipe(tmp_path_factory.mktemp("recipe") / "small.yaml").model_copy(update={"size": SIZE})


class Exports(dict[str, tuple[str | Path, Path]]):
    """Models and their ONNX files by name, exported when first used; beside each file a text, the command's output."""

    def __init__(self, folder: Path, models: dict[str, str | Path]) -> None:
        super().__init__()
        self.folder, self.models = folder, models

    def __missing__(self, name: str) -> tuple[str | Path, Path]:
        file = self.folder / f"{name}.onnx"
        with redirect_stdout(StringIO()) as output:
            fsf("export", self.models[name], file)
        file.with_suffix(".txt").write_text(output.getvalue())
        self[name] = self.models[name], file
        return self[name]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, untrained_run: Callable[..., Run]) -> Exports:
    folder = tmp_path_factory.mktemp("onnx")
    evaluation = {"pairs": 4, "benchmarks": [{"use": "reconstruction"}]}
    models: dict[str, str | Path] = {
        "shipped": FAST_MODEL,
        "small": untrained_run(folder / "plain", evaluation=evaluation).path,
        "small with refiner": untrained_run(folder / "refined", refiner=True, evaluation=evaluation).path,
    }
    return Exports(folder, models)


@pytest.fixture(scope="module")
def small(made: Exports) -> tuple[str | Path, Path]:
    return made["small"]


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("name", [pytest.param("shipped", marks=pytest.mark.slow), "small", "small with refiner"])
@torch.inference_mode()
def test_equals_torch(made: Exports, name: str, count: int) -> None:
    """As a whole, as other programs use it, and cut at the embedding, as we do."""
    where, file = made[name]
    trained, ours = store.load(where, "cpu"), store.load(file)
    batch = pairs(count, trained.recipe.size)
    right = trained.swapper(batch)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    inputs = {"source": batch.source.image.numpy(), "target": batch.target.image.numpy()}
    image, z_id = session.run(["swap", "z_id"], inputs)
    found = ours.swapper(batch)
    embedded = ours.swapper.identity(batch.source)
    known = ours.swapper(SwapBatch.of(batch.target, batch.target), embedded)
    for one in (torch.from_numpy(image), found.image, known.image):
        torch.testing.assert_close(one, right.image, rtol=0, atol=1e-4)
    for one in (torch.from_numpy(z_id), found.z_id, embedded):
        torch.testing.assert_close(one, right.z_id, rtol=0, atol=1e-4)
    assert right.image.std() > 0.01 and found.mask is None


@pytest.mark.slow
def test_the_file_says_what_it_is(made: Exports) -> None:
    where, file = made["shipped"]
    trained = store.load(where, "cpu")
    model = onnx.load(file)
    onnx.checker.check_model(model, full_check=True)
    about = {entry.key: entry.value for entry in model.metadata_props}
    assert (about["name"], about["size"], about["digital_source_type"]) == (FAST_MODEL, "64", SOURCE_TYPE)
    ours = store.load(file).swapper
    assert about["sha256"] == digest(trained.swapper) == digest(ours)  # by which videos know whose work they go on with
    assert ours.identity.metric and ours.identity.dim == trained.swapper.identity.dim
    assert ours.identity.match_threshold == trained.swapper.identity.match_threshold == DlibResNet.match_threshold
    assert Recipe.parse(about["recipe"], "recipe").digest() == trained.recipe.digest()
    assert [value.name for value in model.graph.input] == ["source", "target"]
    assert [value.name for value in model.graph.output] == ["swap", "z_id"]
    assert {node.domain for node in model.graph.node} == {""}  # no kernels of ours, nor of anybody else
    assert str(Path(__file__).parents[1]).encode() not in file.read_bytes()
    assert {path.name for path in file.parent.glob("*shipped*")} == {"shipped.onnx", "shipped.txt"}


@pytest.mark.slow
def test_a_picture_is_swapped_as_by_torch(made: Exports) -> None:
    where, file = made["shipped"]
    picture = data.astronaut()
    by_torch, by_onnx = (FaceSwapper(each, "cpu").swap(picture[:, ::-1], picture) for each in (where, file))
    assert np.abs(by_torch.astype(int) - by_onnx).max() <= 1
    assert np.abs(by_onnx.astype(int) - picture).max() > 30


@torch.inference_mode()
def test_a_generators_mask_is_an_output(small64: Recipe, tmp_path: Path) -> None:
    swapper, file = small_swapper(Masked), tmp_path / "masked.onnx"
    onnx_export.write(small64, swapper, file)
    found, right = (each(batch_of([1, 2])) for each in (store.load(file).swapper, swapper))
    assert found.mask is not None and found.image is found.coarse  # by which the converter takes the mask
    torch.testing.assert_close(found.mask, right.mask, rtol=0, atol=1e-4)
    torch.testing.assert_close(found.image, right.image, rtol=0, atol=1e-4)


def test_a_file_that_differs_from_torch_is_not_written(
    small64: Recipe, tmp_path: Path, expect_error: Callable[..., Any]
) -> None:
    (tmp_path / "x.onnx").write_bytes(b"what was here before")
    with expect_error("x.onnx: ") as caught:
        onnx_export.write(small64, small_swapper(TwoFaced), tmp_path / "x.onnx")
    assert "1.0e-02" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["x.onnx"]
    assert (tmp_path / "x.onnx").read_bytes() == b"what was here before"


@pytest.mark.parametrize("generator", [SmallGenerator, Choosy, Branching])
def test_parts_that_cannot_be_captured_are_named(
    generator: type[SmallGenerator], small64: Recipe, tmp_path: Path, check_message: Callable[..., None]
) -> None:
    with pytest.raises(UserError) as caught:
        onnx_export.write(small64, small_swapper(generator), tmp_path / "x.onnx")
    message = str(caught.value)
    assert message.startswith("small: ") and "\n" not in message and not list(tmp_path.iterdir())
    assert ("small-generator" in message) == (generator is not Branching)  # torch names none
    check_message(message, reason=generator is Branching)


def test_graphics_are_refused(tmp_path: Path, expect_error: Callable[..., Any]) -> None:
    Run.open(Recipe.load("faceswap"), tmp_path / "run", device="cpu")
    with expect_error("faceswap: ") as caught:
        fsf("export", tmp_path / "run", tmp_path / "x.onnx")
    assert "face-texture" in str(caught.value) and not (tmp_path / "x.onnx").exists()


def test_recognisers_are_refused(tmp_path: Path, expect_error: Callable[..., Any]) -> None:
    with expect_error("recogniser: "):
        onnx_export.write(Recipe.load("recogniser"), Swapper(PlainIdentity()), tmp_path / "x.onnx")


def test_too_large_networks_are_refused(
    small64: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expect_error: Callable[..., Any]
) -> None:
    monkeypatch.setattr(onnx_export, "MOST", 1000)
    with expect_error("small: "):
        onnx_export.write(small64, small_swapper(Masked), tmp_path / "x.onnx")


# On the command line


def test_export_and_swap(
    small: tuple[str | Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    check_message: Callable[..., None],
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    where, file = small
    write_image(tmp_path / "a.png", data.astronaut(), synthetic=False)

    def swapped(*words: str | Path) -> np.ndarray:
        # Without the watermark, which is another one for every result.
        fsf(
            "swap",
            "--no-provenance",
            "--overwrite",
            tmp_path / "a.png",
            tmp_path / "a.png",
            tmp_path / "out.png",
            *words,
        )
        assert is_marked(tmp_path / "out.png")
        return read_image(tmp_path / "out.png")

    right = swapped("--model", where, "--runtime", "torch", "--device", "cpu")
    kept = []
    for words in (["--model", where, "--runtime", "onnx"], ["--model", where, "--runtime", "onnx"], ["--model", file]):
        assert np.abs(swapped(*words).astype(int) - right).max() <= 1
        kept.append([(path, path.stat().st_mtime_ns) for path in (tmp_path / "cache/fsframework/onnx").iterdir()])
    assert len(kept[0]) == 1 and kept[0] == kept[1] == kept[2]  # exported once
    assert kept[0][0][0].read_bytes() == file.read_bytes()  # equal networks, equal files
    (note,) = [line for line in capsys.readouterr().err.splitlines() if "small" in line]
    check_message(note)


def test_export_says_how_far_it_is_from_torch(made: Exports, check_message: Callable[..., None]) -> None:
    for name in ("small", "small with refiner"):
        _, file = made[name]
        size, difference = file.with_suffix(".txt").read_text().splitlines()
        megabytes = f"{file.stat().st_size / 1e6:.1f} MB"
        assert size.startswith(f"model: {file} ") and megabytes in size
        check_message(size, {str(file.parent): "ONNX", megabytes: "SIZE"})
        (figure,) = re.findall(r"\b\d\.\de-0[5-9]\b", difference)
        check_message(difference, {figure: "DIFFERENCE"})


def test_a_model_can_be_written_again_as_safetensors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fsf("export", FAST_MODEL, tmp_path / "x.safetensors", "--set", "seed=9")
    assert "onnxruntime" not in capsys.readouterr().out
    again, right = store.load(tmp_path / "x.safetensors", "cpu"), store.load(FAST_MODEL, "cpu")
    assert again.recipe.seed == 9 and digest(again.swapper) == digest(right.swapper)


def test_what_does_not_go_with_onnx(
    small: tuple[str | Path, Path], tmp_path: Path, expect_error: Callable[..., Any]
) -> None:
    file, hide = small[1], {str(small[1].parent): "ONNX", ", ".join(sorted(registry().models)): "MODELS"}
    write_image(tmp_path / "a.png", data.astronaut(), synthetic=False)
    swap: list[str | Path] = ["swap", tmp_path / "a.png", tmp_path / "a.png", tmp_path / "out.png", "--model", file]
    with expect_error("small.onnx: ", hide=hide):
        fsf(*swap, "--runtime", "torch")
    with expect_error("--device cuda: "):
        fsf(*swap, "--device", "cuda")
    with expect_error("small.onnx: ", hide=hide):
        fsf("export", file, tmp_path / "x.safetensors")
    with expect_error("nobody.onnx: ", hide=hide):
        fsf(*swap[:-1], "nobody.onnx", "--runtime", "onnx")
    with expect_error("x.pt: "):
        fsf("export", file, tmp_path / "x.pt")


def test_it_is_measured_as_torch_is(small: tuple[str | Path, Path]) -> None:
    by_torch, by_onnx = (bench(each, [], [], "cpu").to_json()["benchmarks"]["reconstruction"] for each in small)
    assert by_onnx == pytest.approx(by_torch, rel=1e-2)


# Files that are none


def changed(file: Path, out: Path, change: Callable[[onnx.ModelProto], object]) -> Path:
    model = onnx.load(file)
    change(model)
    out.write_bytes(model.SerializeToString())
    return out


def recipe_entry(model: onnx.ModelProto) -> Any:
    return next(entry for entry in model.metadata_props if entry.key == "recipe")


def without_metadata(model: onnx.ModelProto) -> None:
    del model.metadata_props[:]


def of_another_size(model: onnx.ModelProto) -> None:
    recipe_entry(model).value = recipe_entry(model).value.replace("size: 32", "size: 64")


def with_a_wrong_recipe(model: onnx.ModelProto) -> None:
    recipe_entry(model).value = "name: 3"


def without_a_source(model: onnx.ModelProto) -> None:
    model.graph.input[0].name = "picture"


def without_a_swap(model: onnx.ModelProto) -> None:
    model.graph.output[0].name = "picture"


def with_an_unknown_operation(model: onnx.ModelProto) -> None:
    model.graph.node[-1].op_type = "Unheard"


def without_an_operation(model: onnx.ModelProto) -> None:
    del model.graph.node[len(model.graph.node) // 2]


def with_tensors_elsewhere(model: onnx.ModelProto) -> None:
    tensor = max(model.graph.initializer, key=lambda each: len(each.raw_data))
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../secret")


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (without_metadata, ""),
        (of_another_size, ""),
        (with_a_wrong_recipe, "line 1: name: "),
        (without_a_source, ""),
        (without_a_swap, ""),
        (with_an_unknown_operation, "onnxruntime "),
        (without_an_operation, "onnxruntime "),
        (with_tensors_elsewhere, "onnxruntime "),
    ],
    ids=["metadata", "size", "recipe", "source", "swap", "unknown operation", "operation", "tensors"],
)
def test_foreign_files(
    small: tuple[str | Path, Path],
    tmp_path: Path,
    change: Callable[[onnx.ModelProto], object],
    place: str,
    check_message: Callable[..., None],
) -> None:
    file = changed(small[1], tmp_path / "x.onnx", change)
    with pytest.raises(UserError) as caught:
        FaceSwapper(file)
    message, *more = str(caught.value).splitlines()
    assert message.startswith(f"{file}: {place}")
    assert not more or (change is with_a_wrong_recipe and all(line.startswith(f"{file}: ") for line in more))
    check_message(message, reason=place == "onnxruntime ")


def test_bfloat16_is_refused(small: tuple[str | Path, Path], expect_error: Callable[..., Any]) -> None:
    """onnxruntime computes as the file says, which is float32; auto means that there."""
    with expect_error("small.onnx: ", hide={str(small[1].parent): "ONNX"}):
        FaceSwapper(small[1], precision="bf16")
    assert not FaceSwapper(small[1], precision="auto").bf16


def test_damaged_files(small: tuple[str | Path, Path], tmp_path: Path, expect_error: Callable[..., Any]) -> None:
    whole, file = small[1].read_bytes(), tmp_path / "x.onnx"
    for content in (
        whole[:-100],
        whole[: len(whole) // 2],
        b"",
        b"I am a text.",
        whole[:500] + bytes(99) + whole[599:],
    ):
        file.write_bytes(content)
        with expect_error("x.onnx: "):
            store.load(file)


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxscript"])
def test_without_the_packages(
    package: str,
    small: tuple[str | Path, Path],
    small64: Recipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    expect_error: Callable[..., Any],
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with expect_error(f"ONNX: {package} "):
        onnx_export.write(small64, small_swapper(Masked), tmp_path / "x.onnx")
    if package != "onnxscript":  # which only writes
        with expect_error(f"ONNX: {package} "):
            store.load(small[1])
    assert not list(tmp_path.iterdir())
