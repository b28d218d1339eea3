"""Methods beside each other: the same pairs and judges, one table, one grid."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console

from fsframework.cli.main import fsf
from fsframework.core.errors import UserError
from fsframework.core.registry import registry
from fsframework.evaluation.compare import compare
from fsframework.evaluation.results import Comparison
from fsframework.media.draw import grid
from fsframework.media.image_io import is_marked, read_image
from fsframework.models.run import Run
from fsframework.recipe.schema import Recipe
from fsframework.report.comparison import Row, columns, costs_of, rows, table, write_page
from fsframework.training.trainer import train

EVALUATION = {
    "pairs": 6,
    "benchmarks": [{"use": "id-retrieval", "judge": {"use": "dlib-resnet"}}, {"use": "reconstruction"}],
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, untrained_run: Callable[..., Run]) -> list[Path]:
    """A FaceShifter that was not trained and a DeepFakes that was, for two steps."""
    folder = tmp_path_factory.mktemp("runs")
    data = {"use": "orl", "people": [1, 2], "test_pictures": [9, 10]}
    untrained_run(folder / "one", evaluation=EVALUATION, data={"use": "orl", "people": [1, 2], "test_people": [1, 2]})
    sets = {"size": 32, "stages.0.steps": 2, "networks.generator.people": 2, "data": json.dumps(data)}
    sets |= {"networks.attributes.width": 0.125, "networks.generator.width": 0.125}
    recipe = Recipe.load("deepfakes", [f"{key}={value}" for key, value in sets.items()])
    train(Run.open(recipe, folder / "two", device="cpu"))
    return [folder / "one", folder / "two"]


@pytest.fixture(scope="module")
def found(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Comparison, Path]:
    folder = tmp_path_factory.mktemp("comparison")
    return compare([*runs, runs[0]], folder, device="cpu"), folder


def test_all_are_measured_alike(found: tuple[Comparison, Path]) -> None:
    methods = found[0].methods
    assert [method.name for method in methods] == ["small", "deepfakes", "small-2"]
    assert found[0].pairs == 6
    one, two, again = (method.metrics for method in methods)
    assert one.benchmarks == again.benchmarks and one.benchmarks != two.benchmarks
    assert one.own_networks == ["id-retrieval (own network)"] and two.own_networks == []
    assert [metrics.seen_people for metrics in (one, two)] == [False, True]
    assert all(method.seconds > 0 and method.parameters > 5e6 for method in methods)  # type: ignore[operator]


def test_a_comparison_is_read_back_and_becomes_a_table(found: tuple[Comparison, Path]) -> None:
    comparison = found[0]
    assert Comparison.from_json(json.loads(json.dumps(comparison.to_json())), "comparison.json") == comparison
    frame = comparison.to_pandas()
    assert list(frame)[:4] == ["method", "benchmark", "baseline", "metric"]
    ssim = frame[(frame.method == "deepfakes") & (frame.baseline == "method") & (frame.metric == "ssim")]
    assert (
        ssim.value.item()
        == comparison.methods[1].metrics.benchmarks["reconstruction"].estimates["method"]["ssim"].value
    )


def test_figures_of_different_headings_stand_in_one_row(found: tuple[Comparison, Path]) -> None:
    shown = columns(found[0])
    assert [column.benchmark for column in shown][:4] == ["id-retrieval (judge: dlib-resnet)"] * 4
    assert [column.benchmark for column in shown][4:] == ["reconstruction"] * 2
    listed = {row.name: row for row in rows(found[0])}
    assert list(listed) == ["small", "deepfakes†", "small-2", "copy-target", "copy-source"]
    assert [cell.own for cell in listed["small"].cells] == [True] * 4 + [False] * 2
    assert not any(cell.own for cell in listed["deepfakes†"].cells)
    estimates = found[0].methods[1].metrics.benchmarks["id-retrieval (judge: dlib-resnet)"].estimates
    assert listed["deepfakes†"].cells[0].value == estimates["method"]["top1"].value
    assert listed["copy-source"].cells[0].value == 100


def test_differences_are_of_the_same_pairs(found: tuple[Comparison, Path]) -> None:
    first, two, again = (row for row in rows(found[0]) if row.name.startswith(("small", "deepfakes")))
    assert all(cell.apart is None for cell in first.cells)
    for cell in again.cells:  # the same method
        assert cell.apart is not None and cell.apart == (0, 0, 0) and cell.marks.endswith("≈")
    ssim = [column.key for column in columns(found[0])].index("ssim")
    apart, ours, other = two.cells[ssim].apart, two.cells[ssim].value, first.cells[ssim].value
    assert apart is not None and ours is not None and other is not None
    assert apart.value is not None and apart.low is not None and apart.high is not None
    assert apart.value == pytest.approx(ours - other) and apart.low <= apart.value <= apart.high


def test_the_table_says_what_a_reader_must_know(
    found: tuple[Comparison, Path], check_message: Callable[..., None]
) -> None:
    console = Console(width=200)
    with console.capture() as captured:
        console.print(table(found[0]))
    text = captured.get()
    lines = [line.strip() for line in text.splitlines()]
    noted = lines[max(number for number, line in enumerate(lines) if "└" in line) + 1 :]
    assert [line[0] for line in noted] == ["6", "*", "†", "≈"]  # pairs, then the marks
    check_message("\n".join(noted))
    assert "small-2" in text and "ms a swap" in text and "100.0" in text


def test_pictures_and_page(found: tuple[Comparison, Path], check_message: Callable[..., None]) -> None:
    folder = found[1]
    names = sorted(file.name for file in folder.glob("000_*"))
    assert names == ["000_deepfakes.png", "000_small-2.png", "000_small.png", "000_source.png", "000_target.png"]
    assert is_marked(folder / "000_small.png") and not is_marked(folder / "000_source.png")
    assert is_marked(folder / "grid.png") and is_marked(folder / "small_interpolation.png")
    assert read_image(folder / "small_attributes.png").shape[1] == 132 * (1 + 5)  # 32 px has five levels
    assert not is_marked(folder / "small_attributes.png")  # real pictures
    assert not (folder / "deepfakes_interpolation.png").exists()  # two decoders have nothing between them
    assert (read_image(folder / "000_small.png") == read_image(folder / "000_small-2.png")).all()
    for file in folder.glob("*.png"):  # ORL is grey
        assert np.ptp(read_image(file), axis=2).max() == 0, file
    page = write_page(found[0], folder)
    check_message("\n".join(re.findall("<p>(Δ: .*?)</p>", page)))
    assert "deepfakes†" in page and "data:image/png;base64," in page and "<script" not in page


def test_grid_has_a_column_for_each_and_a_row_for_each_pair() -> None:
    dark = [np.zeros((8, 8, 3), np.uint8)] * 3
    picture = grid({"a": dark, "a name that is much too long for its column": dark})
    assert picture.shape == (22 + 3 * 132, 2 * 132, 3)


def test_command(runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["compare", *map(str, runs), "--pairs", "4", "--out", "out", "--save", "kept.json", "--device", "cpu"]
    done = CliRunner().invoke(fsf, words)
    assert done.exit_code == 0, done.output
    assert "comparison: out/comparison.html" in done.output
    kept = json.loads((tmp_path / "kept.json").read_text())
    assert kept == json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert kept["pairs"] == 4 and kept["command"].startswith("fsf") and kept["manifest"]["device"]


def test_mistakes(
    runs: list[Path], tmp_path: Path, expect_error: Callable[..., Any], check_message: Callable[..., None]
) -> None:
    alone = CliRunner().invoke(fsf, ["compare", str(runs[0])])
    assert alone.exit_code == 2 and alone.output.startswith("Usage: fsf compare")
    check_message(alone.output.partition("Error: ")[2])
    with expect_error("nothing: ", hide={", ".join(sorted(registry().models)): "MODELS"}):
        compare([runs[0], tmp_path / "nothing"], tmp_path / "out")
    (tmp_path / "file").write_text("")
    with expect_error("file: "):
        compare(runs, tmp_path / "file", device="cpu")
    with pytest.raises(UserError) as caught:
        compare(runs, tmp_path / "out", ["evaluation.pairs=0"])
    lines = str(caught.value).splitlines()
    assert all(line.startswith("--set evaluation.pairs=0: evaluation.pairs: ") for line in lines)
    check_message(str(caught.value))


def test_costs_of_a_method_whose_parameters_nobody_counted() -> None:
    """As of an ONNX file."""
    assert costs_of(Row("x", [], 0.5, None)) == ["500", ""]
    assert costs_of(Row("x", [], 0.5, 2_500_000)) == ["500", "2.5"]
