"""The Python interface: what it returns, that results are marked, and that its documentation runs."""

import gc
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from synthetic_video import make_video

import fsframework as fsf
from fsframework.provenance.watermark import read
from fsframework.recipe.schema import Recipe
from fsframework.testing import portrait
from fsframework.utils.lazy import loading

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def swapper(converter: Any) -> fsf.SwapPipeline:
    return fsf.SwapPipeline(converter)


@pytest.fixture(scope="module")
def source() -> np.ndarray:
    """Somebody else than the portrait."""
    faces = fsf.create_component("datasets", "orl", 128, fsf.part("detectors", "mtcnn"), "test")
    image: np.ndarray = faces[0].image
    return image


@pytest.fixture(scope="module")
def group() -> np.ndarray:
    """Two faces, the larger one on the right."""
    image = portrait()
    small = np.array(Image.fromarray(image).resize((256, 256)))
    canvas = np.full((512, 768, 3), 128, np.uint8)
    canvas[128:384, :256], canvas[:, 256:] = small, image
    return canvas


@pytest.fixture
def folder(tmp_path: Path, source: np.ndarray, group: np.ndarray) -> Path:
    fsf.write_image(tmp_path / "anna.png", source, synthetic=False)
    fsf.write_image(tmp_path / "group.png", group, synthetic=False)
    return tmp_path


def test_paths_images_and_arrays_give_the_same(
    swapper: fsf.SwapPipeline, converter: Any, folder: Path, source: np.ndarray, group: np.ndarray
) -> None:
    expected = converter.swap(source, group)
    pairs: list[tuple[Any, Any]] = [
        (folder / "anna.png", str(folder / "group.png")),
        (Image.fromarray(source), Image.fromarray(group).convert("RGBA")),
        (swapper.read_source(source), group),
    ]
    for one, other in pairs:
        assert np.array_equal(swapper.swap(one, other, provenance=False).image, expected)


def test_arrays_carry_the_watermark_unless_it_is_left_out(
    swapper: fsf.SwapPipeline, source: np.ndarray, group: np.ndarray
) -> None:
    marked, again = swapper.swap(source, group), swapper.swap(source, group)
    found = [read(result.image) for result in (marked, again)]
    assert found[0] is not None and found[1] is not None and found[0].payload != found[1].payload
    plain = swapper.swap(source, group, provenance=False)
    assert read(plain.image) is None
    assert np.abs(plain.image.astype(int) - marked.image).mean() < 3
    assert np.array_equal(np.array(marked.to_pil()), marked.image)
    with pytest.raises(ValueError, match="read-only"):
        marked.image[0, 0] = 0


def test_saved_results_are_marked(swapper: fsf.SwapPipeline, folder: Path, source: np.ndarray) -> None:
    result = swapper.swap(folder / "anna.png", folder / "group.png")
    assert result.save(folder / "out.png") == folder / "out.png"
    report, mark = fsf.verify(folder / "out.png"), read(result.image)
    assert mark is not None and report.watermark is not None and report.manifest is not None
    assert (report.verdict, report.xmp, report.watermark.payload) == ("intact", True, f"{mark.payload:08x}")
    assert [each["title"] for each in report.manifest.ingredients] == ["target", "source"]
    assert str(report).splitlines()[0].startswith(f"{folder / 'out.png'}: intact")
    assert np.array_equal(fsf.read_image(folder / "out.png"), result.image)
    options = fsf.ProvenanceOptions(consent="Anna agreed")
    swapper.swap(source, folder / "group.png", provenance=options).save(folder / "agreed.jpg")
    manifest = fsf.verify(str(folder / "agreed.jpg")).manifest
    assert manifest is not None and manifest.consent == "Anna agreed"


def test_arrays_are_saved_with_a_manifest(
    swapper: fsf.SwapPipeline, tmp_path: Path, source: np.ndarray, group: np.ndarray
) -> None:
    swapper.swap(source, group).save(tmp_path / "marked.png")
    swapper.swap(source, group, provenance=False).save(tmp_path / "plain.png")
    verdicts = [fsf.verify(tmp_path / name).verdict for name in ("marked.png", "plain.png")]
    assert verdicts == ["intact", "unsigned"]  # of the second XMP says that it is synthetic
    assert sorted(file.name for file in tmp_path.iterdir()) == ["marked.png", "plain.png"]


def test_masks_cover_what_changed(swapper: fsf.SwapPipeline, source: np.ndarray, group: np.ndarray) -> None:
    result = swapper.swap(source, group, faces="all", provenance=False)
    assert len(result.faces) == 2
    assert result.masks.shape == (2, *group.shape[:2]) and result.masks.dtype == np.uint8
    changed = (result.image != group).any(axis=2)
    assert changed.any() and not changed[(result.masks == 0).all(axis=0)].any()
    for face, mask in zip(result.faces, result.masks, strict=True):
        left, top, right, bottom = face.box.astype(int)
        assert mask.max() == 255 and mask[top:bottom, left:right].mean() > 100


def test_faces_are_selected(swapper: fsf.SwapPipeline, source: np.ndarray, group: np.ndarray) -> None:
    middles = [swapper.swap(source, group, faces=faces).faces[0].box[0] for faces in (1, "2", "largest")]
    assert middles[0] < 256 < middles[1] == middles[2]
    assert len(swapper.detect(group)) == 2
    assert swapper.embed(group, "all").shape == (2, 128)


def test_a_swap_looks_like_its_source(swapper: fsf.SwapPipeline, source: np.ndarray, group: np.ndarray) -> None:
    before, after = (
        (swapper.embed(source) @ swapper.embed(image).T).item() for image in (group, swapper.swap(source, group).image)
    )
    assert after > before + 0.2


def test_mistakes(swapper: fsf.SwapPipeline, folder: Path, group: np.ndarray, expect_error: Callable[..., Any]) -> None:
    with expect_error("target"):
        swapper.swap(folder / "anna.png", group.astype(np.float32))
    with expect_error("source"):
        swapper.swap(Image.new("F", (64, 64)), group)
    with expect_error("target"):
        swapper.swap(folder / "anna.png", group, faces=3)
    with expect_error("face"):
        swapper.swap(folder / "anna.png", group, faces="left")
    with expect_error("group.png"):
        swapper.swap(folder / "anna.png", folder / "group.png").save(folder / "group.png")
    with expect_error("group.png"):
        swapper.swap_video(folder / "anna.png", folder / "group.png", folder / "out.mp4")
    with expect_error("hinge-gan"):
        fsf.create_component("losses", "hinge-gan", wieght=2)
    with expect_error("no kind is called losss"):
        fsf.list_components("losss")
    with expect_error("overrides"):
        fsf.train(fsf.load_recipe("smoke"), overrides=["seed=1"])


def test_overrides_are_mappings_or_texts() -> None:
    texts = fsf.load_recipe("smoke", ["seed=3", "stages.0.pairs={same: 0.5}"])
    mapping = fsf.load_recipe("smoke", {"seed": 3, "stages.0.pairs": {"same": 0.5}})
    assert isinstance(mapping, Recipe) and mapping.digest() == texts.digest() != fsf.load_recipe("smoke").digest()


def test_components_are_listed_described_and_built() -> None:
    assert {"faceshifter-lfw-64", "faceshifter-lfw-128"} <= set(fsf.list_models())
    losses = fsf.list_components("loss")
    assert {each.kind for each in losses} == {"losses"} and "hinge-gan" in {each.name for each in losses}
    assert "smoke" in {each.name for each in fsf.list_components("recipes")}
    assert {each.kind for each in fsf.list_components()} >= {"losses", "generators", "recipes"}
    details = fsf.describe_component("losses", "hinge-gan")
    assert details.plugin == "fsf_losses" and "weight" in {row.key for row in details.options}
    loss = fsf.create_component("losses", "hinge-gan", weight=2)
    assert isinstance(loss, fsf.Loss) and loss.options.weight == 2
    assert isinstance(loss, fsf.component_class("losses", "hinge-gan"))
    assert fsf.is_standalone("speed") and not fsf.is_standalone("reconstruction")


def test_figures_become_tables(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    result = fsf.evaluate(
        "faceshifter-lfw-64", benchmarks=["reconstruction"], pairs=6, protocol="orl", device="cpu", command="fsf bench"
    )
    table = result.to_pandas()
    assert isinstance(table, pandas.DataFrame) and set(table["baseline"]) > {"method", "copy-target"}
    row = table.query("baseline == 'method' and metric == 'ssim'").iloc[0]
    estimate = result.metrics.benchmarks["reconstruction"].estimates["method"]["ssim"]
    assert [row["value"], row["low"], row["high"]] == [estimate.value, estimate.low, estimate.high]
    result.save(tmp_path / "figures.json")
    assert (tmp_path / "figures.json").read_text().startswith('{\n  "command": "fsf bench",\n  "manifest"')


def test_the_code_of_the_documentation_runs(folder: Path, monkeypatch: pytest.MonkeyPatch, group: np.ndarray) -> None:
    pytest.importorskip("av")
    pytest.importorskip("pandas")
    fsf.write_image(folder / "anna.jpg", fsf.read_image(folder / "anna.png"), synthetic=False)
    fsf.write_image(folder / "group.jpg", group, synthetic=False)
    make_video(folder / "film.mp4", [np.roll(portrait()[:480, :480], shift, axis=1) for shift in range(3)])
    monkeypatch.chdir(folder)
    text = "".join((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/python.md"))
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 10
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "python.md", "exec"), names)
    written = {"out.jpg", "careful.png", "swapped.mp4", "agreed.png", "metrics.json", "runs"}
    assert written <= {file.name for file in folder.iterdir()}
    assert [fsf.verify(name).verdict for name in ("out.jpg", "swapped.mp4", "agreed.png")] == ["intact"] * 3
    assert set(names["table"]["method"]) == {"faceshifter-lfw-64", "mine"}


@pytest.mark.system
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    pytest.importorskip("pandas")
    notebook = nbformat.read(ROOT / "examples" / "quickstart.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code), "clear its outputs"
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output for cell in code for output in cell.outputs]
    kinds = {kind for output in shown for kind in output.get("data", {})}
    assert {"image/png", "text/html"} <= kinds and not any(output.output_type == "error" for output in shown)
    assert "intact" in "".join(output.text for output in shown if output.output_type == "stream")
    assert (tmp_path / "runs" / "quickstart" / "run" / "report.html").is_file()
    assert [file.name for file in tmp_path.iterdir()] == ["runs"]


def test_nothing_is_collected_while_loading() -> None:
    assert gc.isenabled()
    frozen = gc.get_freeze_count()
    try:
        with loading():
            assert not gc.isenabled()
            kept = [[number] for number in range(100)]
        assert gc.isenabled() and gc.get_freeze_count() >= frozen + len(kept)
        with pytest.raises(KeyError), loading():
            raise KeyError
        assert gc.isenabled()
    finally:
        gc.unfreeze()
