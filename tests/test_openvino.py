"""OpenVINO: it swaps as torch does, from graphs that are made once, and torch stands in where it cannot."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from graphs import Branching, Choosy, Masked, TwoFaced, pairs, small_swapper
from skimage import data
from torch import Tensor

from fsframework.cli import main
from fsframework.core.errors import UserError
from fsframework.core.types import FaceBatch, SwapBatch
from fsframework.data.samples import SIZE
from fsframework.evaluation.evaluate import bench
from fsframework.faces.paste import PasteOptions
from fsframework.inference.face_swapper import FaceSwapper
from fsframework.media.image_io import read_image, write_image
from fsframework.models import onnx_export, openvino_export, openvino_runtime, store
from fsframework.models.openvino_export import ENTRY
from fsframework.models.run import Run
from fsframework.ops.precision import has_bf16
from fsframework.provenance.options import ProvenanceOptions
from fsframework.recipe.schema import Recipe
from fsframework.testing.samples import SmallGenerator
from fsframework.utils.weights import digest

pytestmark = pytest.mark.skipif(find_spec("openvino") is None, reason="needs the package openvino")
NATIVE = has_bf16(torch.device("cpu"))


def fsf(*words: str | Path) -> Any:
    return main.fsf.main([str(word) for word in words], standalone_mode=False)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of entries that these tests share; OpenVINO is visible in them."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(sys.modules, "openvino", raising=False)
        patch.setattr(openvino_export, "cache_folder", lambda: folder)
        yield folder / "openvino"


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(openvino_export, "cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache" / "openvino"


@pytest.fixture(scope="module")
def small64(tmp_path_factory: pytest.TempPathFactory, small_recipe: Callable[..., Recipe]) -> Recipe:
    """A recipe of the small swappers' size."""
    return small_recipe(tmp_path_factory.mktemp("recipe") / "small.yaml").model_copy(update={"size": SIZE})


EVALUATION = {"pairs": 4, "benchmarks": [{"use": "reconstruction"}]}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, untrained_run: Callable[..., Run]) -> Path:
    made: Run = untrained_run(tmp_path_factory.mktemp("run") / "plain", evaluation=EVALUATION)
    return made.path


@pytest.fixture(scope="module")
def refined(tmp_path_factory: pytest.TempPathFactory, untrained_run: Callable[..., Run]) -> Path:
    """A run with a refiner, which embeds faces, too."""
    made: Run = untrained_run(tmp_path_factory.mktemp("run") / "refined", refiner=True)
    return made.path


def decibels(found: Tensor, right: Tensor) -> float:
    """Return the PSNR of values in [-1, 1]."""
    return float(10 * torch.log10(4 / (found - right).square().mean()))


@torch.inference_mode()
def test_equals_torch(run: Path, capsys: pytest.CaptureFixture[str], check_message: Callable[..., None]) -> None:
    right, ours = (store.load(run, "cpu", runtime=runtime) for runtime in ("torch", "openvino"))
    (note,) = capsys.readouterr().err.splitlines()
    check_message(note)
    batch = pairs(3, 32)
    expected, found = right.swapper(batch), ours.swapper(batch)
    embedded = ours.swapper.identity(batch.source)
    known = ours.swapper(SwapBatch.of(batch.target, batch.target), embedded)
    for image in (found.image, known.image):
        torch.testing.assert_close(image, expected.image, rtol=0, atol=1e-4)
    for z_id in (found.z_id, embedded):
        torch.testing.assert_close(z_id, expected.z_id, rtol=0, atol=1e-4)
    assert expected.image.std() > 0.01 and found.mask is None
    assert digest(ours.swapper) == digest(right.swapper)  # by which videos are resumed
    assert ours.swapper.identity.dim == right.swapper.identity.dim
    assert ours.swapper.identity.match_threshold == right.swapper.identity.match_threshold
    assert (ours.swapper.runtime, right.swapper.runtime) == ("openvino", "torch")


@torch.inference_mode()
def test_faces_of_a_batch_are_independent(run: Path) -> None:
    swapper, batch = store.load(run, "cpu", runtime="openvino").swapper, pairs(3, 32)
    together = swapper(batch).image
    for row in range(3):
        source, target = (FaceBatch.of(faces.image[row : row + 1]) for faces in (batch.source, batch.target))
        assert torch.equal(swapper(SwapBatch.of(source, target)).image, together[row : row + 1])


@pytest.mark.skipif(not NATIVE, reason="needs a processor with bfloat16")
@torch.inference_mode()
def test_bfloat16(run: Path) -> None:
    batch = pairs(3, 32)
    right = store.load(run, "cpu").swapper(batch)
    ours = store.load(run, "cpu", runtime="openvino", precision="auto")
    found = ours.swapper(batch)
    assert ours.bf16
    assert 40 < decibels(found.image, right.image) < 90  # float32 is above
    torch.testing.assert_close(found.z_id, right.z_id, rtol=0, atol=1e-4)  # embeddings are float32


def test_bfloat16_where_there_is_none(
    run: Path, monkeypatch: pytest.MonkeyPatch, expect_error: Callable[..., Any]
) -> None:
    monkeypatch.setattr(openvino_runtime, "has_bf16", lambda: False)
    with expect_error("--precision bf16: "):
        store.load(run, "cpu", runtime="openvino", precision="bf16")
    assert not store.load(run, "cpu", runtime="openvino", precision="auto").bf16


def test_threads_are_torchs(small64: Recipe, set_threads: Callable[[int], None]) -> None:
    for count in (1, 2):
        set_threads(count)
        swapper = openvino_export.load(small64, small_swapper(Masked), False)
        compiled = swapper.generate.request.get_compiled_model()  # type: ignore[attr-defined]
        assert compiled.get_property("INFERENCE_NUM_THREADS") == count


def painted(batch: SwapBatch, loaded: Any) -> tuple[Tensor, Tensor]:
    result = loaded(batch)
    assert result.mask is not None and result.image is result.coarse  # by which the mask is used for pasting
    return result.image, result.mask


@torch.inference_mode()
def test_masks(small64: Recipe) -> None:
    torch_swapper, batch = small_swapper(Masked), pairs(2, SIZE)
    expected = painted(batch, torch_swapper)
    for found, right in zip(painted(batch, openvino_export.load(small64, torch_swapper, False)), expected, strict=True):
        torch.testing.assert_close(found, right, rtol=0, atol=1e-4)


class Composing(Masked):
    composes = True


@torch.inference_mode()
def test_masks_that_compose(small64: Recipe) -> None:
    torch_swapper, batch = small_swapper(Composing), pairs(2, SIZE)
    ours = openvino_export.load(small64, torch_swapper, False)
    assert ours.generator.composes  # as the recipe's generator
    for found, right in zip(painted(batch, ours), painted(batch, torch_swapper), strict=True):
        torch.testing.assert_close(found, right, rtol=0, atol=1e-4)


@torch.inference_mode()
def test_onnx_files(small64: Recipe, tmp_path: Path, expect_error: Callable[..., Any]) -> None:
    torch_swapper, batch, file = small_swapper(Masked), pairs(2, SIZE), tmp_path / "x.onnx"
    onnx_export.write(small64, torch_swapper, file)
    ours = store.load(file, runtime="openvino").swapper
    assert ours.runtime == "openvino" and digest(ours) == digest(torch_swapper)
    for found, right in zip(painted(batch, ours), painted(batch, torch_swapper), strict=True):
        torch.testing.assert_close(found, right, rtol=0, atol=1e-4)
    assert store.load(file, runtime="auto").swapper.runtime == "onnx"
    with expect_error("x.onnx: "):
        store.load(file, runtime="torch")


# The cache


def test_graphs_are_made_once(
    small64: Recipe, own_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    openvino_export.load(small64, small_swapper(Masked), False)
    (entry,) = own_cache.iterdir()
    before = sorted(path for path in entry.rglob("*") if path.is_file())
    assert len([path for path in before if path.suffix == ".blob"]) == 2  # compiled, too
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(openvino_export, "_convert", None)
        openvino_export.load(small64, small_swapper(Masked), False)
    assert capsys.readouterr().err == ""
    assert sorted(path for path in entry.rglob("*") if path.is_file()) == before
    torch.manual_seed(1)
    other = small_swapper(Masked)
    other.generator.paint.bias.data += 0.1  # type: ignore[union-attr, operator]
    openvino_export.load(small64, other, False)
    assert len(list(own_cache.iterdir())) == 2


def test_code_of_the_networks_is_part_of_the_key(small64: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    def key() -> str:
        return openvino_export._key(small64, small_swapper(Masked), "weights", "1")

    before, read = key(), Path.read_bytes
    assert key() == before
    changed = Path("fsframework/testing/samples.py")

    def read_bytes(file: Path) -> bytes:
        return read(file) + (b"# another comment" if file.match(str(changed)) else b"")

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    assert key() != before


def shorter(entry: Path) -> None:
    file = entry / "generate.bin"
    file.write_bytes(file.read_bytes()[:-4])


def without_a_graph(entry: Path) -> None:
    (entry / "embed.xml").unlink()


def with_a_foreign_graph(entry: Path) -> None:
    file = entry / "generate.xml"
    file.write_bytes(b"<a/>".ljust(file.stat().st_size))
    shutil.rmtree(entry / "compiled")


def without_a_description(entry: Path) -> None:
    (entry / ENTRY).unlink()


def with_a_foreign_description(entry: Path) -> None:
    (entry / ENTRY).write_text("[1, 2]")


def as_a_file(entry: Path) -> None:
    shutil.rmtree(entry)
    entry.write_text("none of ours")


@torch.inference_mode()
def test_broken_entries_are_made_anew(small64: Recipe, own_cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    swapper, batch = small_swapper(Masked), pairs(1, SIZE)
    openvino_export.load(small64, swapper, False)
    (entry,) = own_cache.iterdir()
    for damage in (
        shorter,
        without_a_graph,
        with_a_foreign_graph,
        without_a_description,
        with_a_foreign_description,
        as_a_file,
    ):
        damage(entry)
        capsys.readouterr()
        again = openvino_export.load(small64, swapper, False)
        notes = capsys.readouterr().err.splitlines()
        assert len(notes) == 2 and notes[0].startswith(f"note: {entry}: ") and notes[0].endswith("so it is made anew")
        torch.testing.assert_close(again(batch).image, swapper(batch).image, rtol=0, atol=1e-4)
        assert json.loads((entry / ENTRY).read_text())["problem"] is None
    openvino_export.load(small64, swapper, False)
    assert capsys.readouterr().err == ""


@torch.inference_mode()
def test_entries_used_long_ago_are_removed(small64: Recipe, own_cache: Path) -> None:
    swapper = small_swapper(Masked)
    openvino_export.load(small64, swapper, False)
    (used,) = own_cache.iterdir()
    for day in range(openvino_export.KEPT):
        (own_cache / f"old{day}").mkdir()
        (own_cache / f"old{day}" / ENTRY).write_text("{}")
        os.utime(own_cache / f"old{day}" / ENTRY, (day + 1, day + 1))
    (own_cache / "notes.txt").write_text("no entry")
    os.utime(used / ENTRY, (0, 0))
    openvino_export.load(small64, swapper, False)  # which is a use
    openvino_export.load(small64.model_copy(update={"name": "new"}), swapper, False)
    left = {entry.name.partition("-")[0] for entry in own_cache.iterdir()}
    assert left == {small64.name, "new", "old2", "old3", "notes.txt"}


@torch.inference_mode()
def test_cut_compiled_graphs_are_compiled_again(small64: Recipe, own_cache: Path) -> None:
    swapper, batch = small_swapper(Masked), pairs(1, SIZE)
    openvino_export.load(small64, swapper, False)
    for blob in own_cache.rglob("*.blob"):
        blob.chmod(0o600)
        blob.write_bytes(blob.read_bytes()[: blob.stat().st_size // 2])
    again = openvino_export.load(small64, swapper, False)
    torch.testing.assert_close(again(batch).image, swapper(batch).image, rtol=0, atol=1e-4)


def test_a_cache_that_cannot_be_written(
    small64: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expect_error: Callable[..., Any]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(openvino_export, "cache_folder", lambda: tmp_path / "file")
    with expect_error("openvino: "):
        openvino_export.load(small64, small_swapper(Masked), False)


# What OpenVINO cannot run


@pytest.mark.parametrize("generator", [SmallGenerator, Choosy, Branching, TwoFaced])
def test_parts_that_cannot_be_converted(
    generator: type[SmallGenerator],
    small64: Recipe,
    own_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    check_message: Callable[..., None],
) -> None:
    with pytest.raises(UserError) as caught:
        openvino_export.load(small64, small_swapper(generator), False)
    message = str(caught.value)
    assert message.startswith("small: ") and "\n" not in message
    check_message(message, reason=generator is Branching)
    monkeypatch.setattr(openvino_export, "_convert", None)
    with pytest.raises(UserError) as again:  # known now, without another try
        openvino_export.load(small64, small_swapper(generator), False)
    assert str(again.value) == message


def test_auto_runs_other_methods_by_torch(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    expect_error: Callable[..., Any],
    check_message: Callable[..., None],
) -> None:
    Run.open(Recipe.load("faceswap"), tmp_path / "run", device="cpu")
    assert store.load(tmp_path / "run", "cpu", runtime="auto").swapper.runtime == "torch"
    (note,) = capsys.readouterr().err.splitlines()
    check_message(note)
    with expect_error("faceswap: "):
        store.load(tmp_path / "run", "cpu", runtime="openvino")


def test_auto(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store.load(run, "cpu", runtime="openvino")
    capsys.readouterr()
    assert FaceSwapper(run, "cpu", runtime="auto").runtime == "openvino"
    trained = store.load(run, "cpu")
    assert trained.swapper.runtime == "torch" and store._suits_openvino(trained)
    on_gpu = store.Trained(trained.recipe, trained.swapper, torch.device("cuda"))
    assert not store._suits_openvino(on_gpu)
    assert capsys.readouterr().err == ""


def test_without_openvino(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], expect_error: Callable[..., Any]
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    openvino_runtime.core.cache_clear()
    assert FaceSwapper(run, "cpu", runtime="auto").runtime == "torch"
    assert capsys.readouterr().err == ""
    with expect_error("OpenVINO: openvino "):
        FaceSwapper(run, "cpu", runtime="openvino")


@pytest.mark.slow
@torch.inference_mode()
def test_refiners(refined: Path) -> None:
    right, ours = (store.load(refined, "cpu", runtime=runtime).swapper for runtime in ("torch", "openvino"))
    batch = pairs(2, 32)
    assert right.refiner is not None
    torch.testing.assert_close(ours(batch).image, right(batch).image, rtol=0, atol=1e-4)


def test_swaps_before_the_refiner_need_torch(refined: Path, expect_error: Callable[..., Any]) -> None:
    keep = PasteOptions(keep="reconstruction-errors")
    assert FaceSwapper(refined, "cpu", keep, runtime="auto").runtime == "torch"
    with expect_error("--runtime openvino: "):
        FaceSwapper(refined, "cpu", keep, runtime="openvino")


def test_gpus_are_refused(run: Path, expect_error: Callable[..., Any]) -> None:
    with expect_error("--device cuda: "):
        store.load(run, "cuda", runtime="openvino")


# Where it is used


def test_swap_and_bench(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_image(tmp_path / "a.png", data.astronaut(), synthetic=False)
    images = {}
    (tmp_path / "many").mkdir()
    write_image(tmp_path / "many" / "folder.png", data.astronaut(), synthetic=False)
    for runtime in ("torch", "openvino", "auto", "folder"):
        out = tmp_path / f"{runtime}.png"
        words: list[str | Path] = ["--model", run, "--device", "cpu", "--no-provenance"]
        if runtime == "folder":  # auto is OpenVINO for several pictures, and torch for one
            fsf("swap", tmp_path / "a.png", tmp_path / "many", tmp_path / "swapped", *words)
            out = tmp_path / "swapped" / "folder.png"
        else:
            fsf("swap", tmp_path / "a.png", tmp_path / "a.png", out, *words, "--runtime", runtime)
        images[runtime] = read_image(out).astype(int)
    assert 0 < np.abs(images["openvino"] - images["torch"]).max() <= 1
    assert np.array_equal(images["auto"], images["torch"])
    assert np.array_equal(images["folder"], images["openvino"])
    by_torch = bench(run, [], [], "cpu").to_json()["benchmarks"]["reconstruction"]
    ours = bench(run, [], [], "cpu", runtime="openvino").to_json()["benchmarks"]["reconstruction"]
    assert ours == pytest.approx(by_torch, rel=1e-2)


def test_other_processes_load_the_same(run: Path) -> None:
    """Check the runtime of the face swappers that `run_jobs` loads on other machines."""
    swapper = FaceSwapper(run, "cpu", precision="auto", runtime="openvino")
    assert (swapper.loaded_from, swapper.runtime, swapper.bf16) == (run, "openvino", NATIVE)
    assert ("precision" in swapper.origin(ProvenanceOptions()).facts()) == NATIVE


@pytest.mark.system
def test_nothing_leaves_the_machine(small64: Recipe, tmp_path: Path) -> None:
    """Neither when OpenVINO is imported, nor when a model is converted and run."""
    (tmp_path / "small.yaml").write_text(small64.dump_yaml())
    code = (
        "import sys\n"
        "seen = []\n"
        "watched = ('socket.connect', 'socket.getaddrinfo', 'os.fork', 'subprocess.Popen', 'urllib.Request')\n"
        "sys.path[:0] = sys.argv[1:3]\n"
        "from graphs import Masked, pairs, small_swapper\n"
        "from fsframework.models import openvino_export\n"
        "from fsframework.recipe.schema import Recipe\n"
        "recipe, swapper = Recipe.load(sys.argv[3]), small_swapper(Masked)\n"
        "sys.addaudithook(lambda event, values: event in watched and seen.append((event, values)))\n"
        "openvino_export.load(recipe, swapper, False)(pairs(1, recipe.size))\n"
        "print(seen, 'openvino_telemetry' in sys.modules, 'openvino.tools.ovc' in sys.modules)\n"
    )
    home = tmp_path / "home"
    home.mkdir()
    environment = {**os.environ, "HOME": str(home), "XDG_CACHE_HOME": str(tmp_path / "cache"), "CI": ""}
    tests = Path(__file__).parent
    words = [sys.executable, "-c", code, str(tests), str(tests.parent / "plugins"), str(tmp_path / "small.yaml")]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout == "[] False True\n", done.stderr
    assert not (home / "intel").exists()  # where the telemetry leaves its number of the user
