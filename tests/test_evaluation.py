"""Evaluation: pairs, intervals, baselines beside the method, what is written; and a real run measured whole."""

import base64
import csv
import io
import json
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from rich.console import Console
from torch import Tensor

from fsframework.core.components import Benchmark, ComponentOptions, Dataset, MetricInfo
from fsframework.core.errors import UserError
from fsframework.core.part import Part, part
from fsframework.core.types import Sample, SwapBatch, SwapResult
from fsframework.data.collate import collate
from fsframework.data.eval_pairs import EvaluationPairs, draw_pairs, pairs_file, pairs_text, read_pairs
from fsframework.evaluation.baselines import Swaps
from fsframework.evaluation.bootstrap import bootstrap, differences, failed, summarize
from fsframework.evaluation.evaluate import bench, evaluate, measure, pairs_of, table
from fsframework.evaluation.interpolation import _slerp, attribute_neighbours
from fsframework.evaluation.judges import judges, own_identity
from fsframework.evaluation.results import Estimate, Metrics
from fsframework.media.image_io import is_marked, read_image, write_image
from fsframework.media.tensor import to_tensor
from fsframework.models.run import Run
from fsframework.models.store import Trained
from fsframework.recipe.build import build_swapper
from fsframework.recipe.schema import Evaluation, Recipe
from fsframework.report.run_report import write_report

PEOPLE: list[str | None] = ["b", "a", "b", None, "c", "a", None]


class Painted(Dataset):
    """Picture number i is grey with level 10 i; picture 4 has a known left half."""

    def __init__(self, people: list[str | None] = PEOPLE, names: list[str] | None = None) -> None:
        self.who = people
        self.called = names or [f"{person}/{index}.png" for index, person in enumerate(people)]

    def load(self) -> None:
        self.loaded = True

    def __len__(self) -> int:
        return len(self.who)

    def __getitem__(self, index: int) -> Sample:
        known = None
        if index == 4:
            known = np.zeros((8, 8), bool)
            known[:, :4] = True
        image = np.full((8, 8, 3), 10 * index, np.uint8)
        return Sample(image, self.called[index], self.who[index], np.full((5, 2), index), known)


# Pairs ------------------------------------------------------------------------------------------------------------


def test_people_are_numbered_by_first_appearance() -> None:
    assert Painted().persons().tolist() == [0, 1, 0, -1, 2, 1, -1]
    assert Painted([]).persons().tolist() == []


def test_collate() -> None:
    faces = Painted()
    batch = collate([faces[5], faces[3]], [5, 3], faces.persons())
    assert batch.image.shape == (2, 3, 8, 8) and batch.image.dtype == torch.float32
    assert torch.equal(batch.image, to_tensor(np.stack([faces[5].image, faces[3].image])))
    assert batch.person.tolist() == [1, -1] and batch.index.tolist() == [5, 3]
    assert batch.landmarks[:, 0, 0].tolist() == [5, 3] and batch.landmarks.dtype == torch.float32


def test_pairs_as_batches() -> None:
    pairs = EvaluationPairs(Painted(), [(0, 1), (2, 2), (1, 4)], 2)
    first, second = pairs
    assert len(pairs) == 2 and len(first.same) == 2 and len(second.same) == 1
    assert first.source.index.tolist() == [0, 2] and first.target.index.tolist() == [1, 2]
    assert first.same.tolist() == [False, True]
    assert first.valid_mask.mean(dim=(1, 2, 3)).tolist() == [0, 1]
    assert second.valid_mask[0, 0, :, :4].min() == 1 and second.valid_mask[0, 0, :, 4:].max() == 0
    assert torch.equal(first.ground_truth, first.target.image)
    assert len(list(pairs)) == 2  # they can be walked again


def test_lists_are_read_back(tmp_path: Path) -> None:
    names = ["a, b/1.png", 'say "x".png', "c.jpg", "d", "e", "f", "g"]
    faces, pairs = Painted(names=names), [(0, 1), (2, 0), (6, 3)]
    file = tmp_path / "pairs.csv"
    file.write_text(pairs_text(pairs, faces))
    assert read_pairs(file, faces) == pairs


def test_lists_may_leave_out_suffixes_where_they_are_clear(tmp_path: Path, expect_error: Callable[..., Any]) -> None:
    faces = Painted(names=["p.q/1.png", "p.q/2.webp", "p.q/2.jpg", "x", "y", "z.tar.gz", "u"])
    file = tmp_path / "pairs.csv"
    file.write_text("\ufeffsource,target\n\np.q/1,x\n")
    assert read_pairs(file, faces) == [(0, 3)]
    file.write_text("source,target\np.q/2,x\n")
    with expect_error("pairs.csv: line 2: "):
        read_pairs(file, faces)


def test_lists_may_leave_out_parts_of_a_mixture_where_they_are_clear(
    tmp_path: Path, expect_error: Callable[..., Any]
) -> None:
    faces = Painted(names=["lfw/p/1.webp", "lfw/p/2.webp", "orl/p/2.png", "orl/q/3", "p/1.webp", "e/f.png", "g"])
    file = tmp_path / "pairs.csv"
    file.write_text("source,target\np/1.webp,q/3\np/1,lfw/p/2\n")
    assert read_pairs(file, faces) == [(4, 3), (4, 1)]  # the whole name is preferred
    for unclear in ("p/2", "p/2.webp/", "f.png"):
        file.write_text(f"source,target\n{unclear},g\n")
        with expect_error("pairs.csv: line 2: "):
            read_pairs(file, faces)


@pytest.mark.parametrize(
    "content, place",
    [
        pytest.param(b"", "line 1: ", id="empty"),
        pytest.param(b"target,source\nb/0,a/1\n", "line 1: ", id="other heading"),
        pytest.param(b"source,target\n", "", id="heading alone"),
        pytest.param(b"source,target\nb/0\n", "line 2: ", id="one value"),
        pytest.param(b"source,target\nb/0,a/1\nb/0,nobody\n", "line 3: ", id="unknown face"),
        pytest.param(b"source,target\n\xff,a/1\n", "", id="not UTF-8"),
        pytest.param(b'source,target\n"b/0,a/1\n', "", id="open quotation"),
    ],
)
def test_faults_of_lists_are_told_in_a_line(
    tmp_path: Path, content: bytes, place: str, check_message: Callable[..., None]
) -> None:
    file = tmp_path / "pairs.csv"
    file.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_pairs(file, Painted())
    message, cause = str(caught.value), caught.value.__cause__
    assert message.startswith(f"{file}: {place}") and "\n" not in message
    check_message(message if cause is None else message.replace(str(cause), "REASON"))  # Python's words change


def test_a_list_that_is_not_there(expect_error: Callable[..., Any]) -> None:
    with expect_error("nowhere: "):
        pairs_file("nowhere")


def test_drawn_pairs_are_of_different_people_each_about_equally_often() -> None:
    people: list[str | None] = [*"aaaaaaab", *"bcd", None, None]
    faces = Painted(people)
    pairs = draw_pairs(faces, 100, seed=3)
    assert pairs == draw_pairs(faces, 100, seed=3) != draw_pairs(faces, 100, seed=4)
    assert len(pairs) == 100
    group = [person or str(place) for place, person in enumerate(people)]  # somebody unknown is a person alone
    assert all(group[source] != group[target] for source, target in pairs)
    for side in (0, 1):
        times = Counter(group[pair[side]] for pair in pairs)
        assert len(times) == 6 and max(times.values()) - min(times.values()) <= 1
        pictures = Counter(pair[side] for pair in pairs if group[pair[side]] == "a")
        assert len(pictures) == 7 and max(pictures.values()) - min(pictures.values()) <= 2


def test_no_pair_is_drawn_twice_while_there_are_others() -> None:
    pairs = draw_pairs(Painted([*"aaaabbbb"]), 30, seed=0)  # of 32 that there are
    assert len(set(pairs)) >= 28
    pairs = draw_pairs(Painted([*"aaaabbbbccccdddd"]), 60, seed=0)
    assert len(set(pairs)) == 60


@pytest.mark.parametrize("people", [[], ["a"], ["a", "a"]], ids=["nobody", "one picture", "two pictures"])
def test_pairs_need_two_people(people: list[str | None], expect_error: Callable[..., Any]) -> None:
    with expect_error("evaluation.pairs: "):
        draw_pairs(Painted(people), 1, seed=0)


def shipped(name: str) -> list[tuple[PurePosixPath, PurePosixPath]]:
    with pairs_file(name).open(encoding="utf-8") as file:
        return [(PurePosixPath(row["source"]), PurePosixPath(row["target"])) for row in csv.DictReader(file)]


@pytest.mark.parametrize("name, count, often", [("orl", 200, (20, 20)), ("lfw", 500, (1, 1))])
def test_shipped_lists(name: str, count: int, often: tuple[int, int]) -> None:
    pairs = shipped(name)
    assert len(pairs) == len(set(pairs)) == count
    assert all(source.parent != target.parent for source, target in pairs)
    times = Counter(source.parent for source, _ in pairs).values()
    assert (min(times), max(times)) == often


def test_orl_list_is_of_test_people() -> None:
    people = {int(face.parent.name.removeprefix("s")) for pair in shipped("orl") for face in pair}
    assert people == set(range(4, 41, 4))


def test_lfw_list_is_of_faces_that_are_there(shared: Path) -> None:
    with zipfile.ZipFile(shared / "data/lfw/val.zip") as archive:
        there = {PurePosixPath(name).with_suffix("") for name in archive.namelist()}
    assert {face for pair in shipped("lfw") for face in pair} <= there


# Numbers ----------------------------------------------------------------------------------------------------------


def test_interval_of_a_mean_equals_the_textbooks() -> None:
    values = np.random.default_rng(0).normal(5, 2, 400)
    low, high = bootstrap(values, np.arange(400)) or (0, 0)
    error = values.std() / np.sqrt(400)
    assert (low, high) == pytest.approx((values.mean() - 1.96 * error, values.mean() + 1.96 * error), abs=0.03)
    assert bootstrap(values, np.arange(400)) == (low, high)


def test_interval_counts_people_not_pairs() -> None:
    values = np.repeat(np.random.default_rng(0).normal(0, 1, 20), 25)  # each person's pairs say the same
    alone, together = bootstrap(values, np.arange(500)), bootstrap(values, np.repeat(np.arange(20), 25))
    assert alone is not None and together is not None
    assert (together[1] - together[0]) / (alone[1] - alone[0]) == pytest.approx(5, rel=0.15)  # sqrt(25)


def test_no_interval_of_one_person() -> None:
    assert bootstrap(np.array([1.0, 2.0]), np.array([7, 7])) is None


def test_errors_are_compared_on_pairs_that_all_solved() -> None:
    nan = np.nan
    ways: dict[str, Any] = {
        "method": {"error": np.array([1.0, 2.0, nan, 30.0]), "speed": 2.5, "hopeless": np.full(4, nan)},
        "copy": {"error": np.array([3.0, 4.0, 5.0, nan]), "speed": nan, "hopeless": np.ones(4)},
    }
    summary = summarize(ways, np.array([0, 1, 2, 3]))
    ours, copy = summary["method"], summary["copy"]
    assert ours["error"].value == 1.5 and copy["error"].value == 3.5
    assert 1 <= ours["error"].low <= 1.5 <= ours["error"].high <= 2  # type: ignore[operator]
    assert ours["speed"] == Estimate(2.5, per_pair=False)
    assert copy["speed"].value is None and copy["hopeless"].value is None
    assert failed(ways["method"], 4).tolist() == [True] * 4
    assert failed({"error": ways["method"]["error"]}, 4).tolist() == [False, False, True, False]
    assert failed({"speed": 1.0}, 4).tolist() == [False] * 4


# The whole, with a swapper and benchmarks that are easy to foresee ----------------------------------------------------


class Brighter(torch.nn.Module):
    """The target, 50 levels brighter; before refinement 20."""

    def __init__(self, refines: bool) -> None:
        super().__init__()
        self.refiner = torch.nn.Identity() if refines else None
        self.generator = SimpleNamespace(maps=self.maps)
        self.identity = SimpleNamespace(metric=False)
        self.attributes = SimpleNamespace(channels=[3])
        self.is_closed_set: list[int] = []

    def maps(self, z_id: Tensor, z_att: list[Tensor]) -> list[Tensor]:
        return [torch.tensor([[0.0, 1.0], [0.5, 2.0]]).expand(len(z_id), 1, 2, 2), torch.ones(len(z_id), 1, 1, 1)]

    def forward(self, batch: SwapBatch) -> SwapResult:
        assert not torch.is_grad_enabled()
        self.is_closed_set += batch.source.index.tolist()
        image = batch.target.image
        coarse = image + 20 / 127.5
        swap = image + 50 / 127.5 if self.refiner else coarse
        return SwapResult(swap, coarse, torch.ones(len(image), 2), [image])


class Level(Benchmark):
    """Grey levels between swap and target; fails where the swap is darker than 25."""

    name = "level"
    metrics: ClassVar = {
        "distance": MetricInfo("", "lower", "Grey levels."),
        "share": MetricInfo("%", "higher", "Of nothing."),
        "pairs_seen": MetricInfo("", "higher", "A number."),
    }

    class Options(ComponentOptions):
        judge: str = "level-judge"
        wrong: bool = False

    options: Options

    def load(self) -> None:
        self.loaded = True

    def measure_batch(self, batch: SwapBatch, swap: SwapResult, faces: Dataset) -> dict[str, Any]:
        assert self.loaded and not self.training
        assert torch.equal(swap.coarse, swap.image) and swap.z_id.shape == (len(batch.same), 2)
        level = (swap.image.mean(dim=(1, 2, 3)) + 1) * 127.5
        distance = level - (batch.target.image.mean(dim=(1, 2, 3)) + 1) * 127.5
        return {"distance": distance.masked_fill(level < 25, torch.nan)}

    def combine(self, parts: Sequence[dict[str, Any]], faces: Dataset) -> dict[str, np.ndarray | float]:
        found = super().combine(parts, faces)["distance"]
        assert isinstance(found, np.ndarray)
        if self.options.wrong:
            found = found[1:]
        return {"distance": found, "share": np.full(len(found), 100.0), "pairs_seen": float(len(found))}

    def label(self, trained_against: str | None) -> str:
        return "level (own network)" if trained_against == self.options.judge else f"level ({self.options.judge})"


@dataclass(frozen=True)
class Installed(Part):
    """A part whose class is not registered."""

    cls: Any = None

    def build(self, *args: Any) -> Any:
        return self.cls(self.options)


def level(**options: Any) -> Part:
    return Installed("benchmarks", "level", Level.Options(**options), Level)


def fake_run(folder: Path, pairs: str | int, benchmarks: list[Part], refines: bool = True) -> Any:
    plan = Evaluation.model_construct(data=None, pairs=pairs, benchmarks=benchmarks, batch_size=3)
    data = SimpleNamespace(build=lambda size, detector, split: Painted() if (size, split) == (8, "test") else None)
    recipe = SimpleNamespace(
        name="brighter",
        evaluation=plan,
        faces=lambda narrowed: narrowed or data,
        detector=None,
        size=8,
        seed=1,
        stages=[],
        networks=SimpleNamespace(identity=SimpleNamespace(name="trainer"), generator=None),
        data=data,
        relative=Path,
    )
    swapper = Brighter(refines)
    return SimpleNamespace(
        recipe=recipe, path=folder, device=torch.device("cpu"), swapper=swapper, load_swapper=lambda: swapper
    )


@pytest.fixture
def listed(tmp_path: Path) -> str:
    """Four pairs; the target of the first is black, level 0."""
    file = tmp_path / "list.csv"
    file.write_text("source,target\na/1,b/0\nb/2,a/1\na/5,b/2\nc/4,a/5\n")
    return str(file)


def test_the_method_stands_beside_its_baselines(tmp_path: Path, listed: str) -> None:
    run = fake_run(tmp_path, listed, [level()])
    metrics = evaluate(run).to_json()
    assert run.swapper.is_closed_set[:4] == [1, 2, 5, 4]  # each pair once for all measurements; samples come after
    assert metrics["method"] == "brighter" and metrics["pairs"] == 4
    # Copies of black, dark and source pictures fail: only the last pair is solved by all.
    label = "level (level-judge)"
    assert metrics["failures"] == {
        label: {"method": 0, "without-refiner": 1, "copy-target": 3, "copy-source": 2},
    }
    assert metrics["compared"] == {label: 1}
    assert metrics["benchmarks"][label]["distance"] == pytest.approx(50, abs=1e-3)
    assert {way: found[label]["distance"] for way, found in metrics["baselines"].items()} == pytest.approx(
        {"without-refiner": 20, "copy-target": 0, "copy-source": -10}, abs=1e-3
    )
    assert metrics["benchmarks"][label]["share"] == metrics["benchmarks"][label]["share_low"] == 100
    assert metrics["benchmarks"][label]["pairs_seen"] == 4 and "pairs_seen_low" not in metrics["benchmarks"][label]
    assert metrics["own_network"] == []
    assert metrics["metrics"][label]["distance"] == {"unit": "", "better": "lower", "meaning": "Grey levels."}


def test_pairs_are_read_once_for_all_benchmarks(tmp_path: Path, listed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[tuple[int, int]] = []
    original = EvaluationPairs._target

    def target(self: EvaluationPairs, source: int, target: int, rng: np.random.Generator) -> Sample:
        read.append((source, target))
        return original(self, source, target, rng)

    monkeypatch.setattr(EvaluationPairs, "_target", target)
    run = fake_run(tmp_path, listed, [level(), level(judge="other")])
    pairs = pairs_of(run.recipe, run.recipe.evaluation, Painted())
    found = measure(Trained(run.recipe, run.swapper, run.device), run.recipe.evaluation, pairs, run.recipe).values
    assert len(found) == 2 and all(len(baselines) == 4 for baselines in found.values())
    assert read == list(pairs.pairs) and len(run.swapper.is_closed_set) == 4


def test_without_a_refiner_there_is_no_such_baseline(tmp_path: Path, listed: str) -> None:
    metrics = evaluate(fake_run(tmp_path, listed, [level()], refines=False)).to_json()
    assert list(metrics["baselines"]) == ["copy-target", "copy-source"]
    assert not list((tmp_path / "samples").glob("*_coarse.png"))


def test_benchmarks_are_told_apart_and_own_networks_named(tmp_path: Path, listed: str) -> None:
    metrics = evaluate(fake_run(tmp_path, listed, [level(), level(judge="trainer"), level()])).to_json()
    assert list(metrics["benchmarks"]) == ["level (level-judge)", "level (own network)", "level (level-judge) 2"]
    assert metrics["own_network"] == ["level (own network)"]


def test_encoders_of_losses_are_own_networks_too(tmp_path: Path, listed: str) -> None:
    run = fake_run(tmp_path, listed, [level(judge="in-a-loss")])
    encoder = Part("identity-encoders", "in-a-loss", ComponentOptions())
    loss = Part("losses", "identity", LossOptions(encoder))
    run.recipe.stages = [SimpleNamespace(losses=[loss])]
    assert evaluate(run).own_networks == ["level (own network)"]


def test_points_of_the_landmark_loss_are_its_own_network() -> None:
    assert judges(part("losses", "landmarks")) == ["mtcnn"]
    error = part("benchmarks", "pose-error").build()
    assert error.label("mtcnn") == "pose-error (own network)"
    assert error.label("dlib-resnet") == error.label(None) == "pose-error"


class LossOptions:
    """Options that hold one component."""

    def __init__(self, inner: Part) -> None:
        self.inner = inner

    def __iter__(self) -> Any:
        return iter([("encoder", self.inner), ("weight", 1.0)])


def test_what_is_written(tmp_path: Path, listed: str) -> None:
    (tmp_path / "samples").mkdir()
    stale = tmp_path / "samples/007_swap.png"
    stale.touch()
    run = fake_run(tmp_path, listed, [level()])
    metrics = evaluate(run)
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics.to_json()
    assert read_pairs(tmp_path / "pairs.csv", Painted()) == read_pairs(listed, Painted())
    kinds = ("source", "target", "coarse", "swap", "map_0", "map_1")
    found = {file.name for file in (tmp_path / "samples").iterdir()}
    assert found == {f"{row:03}_{kind}.png" for row in range(4) for kind in kinds}  # and the stale one is gone
    picture = {kind: read_image(tmp_path / f"samples/003_{kind}.png") for kind in kinds}
    assert {kind: int(picture[kind][0, 0, 0]) for kind in kinds[:4]} == {
        "source": 40, "target": 50, "coarse": 70, "swap": 100,
    }  # fmt: skip
    assert picture["map_0"].shape == (8, 8, 3)
    assert picture["map_0"][::4, ::4, 0].tolist() == [[0, 255], [128, 255]]  # nearest, clipped
    assert is_marked(tmp_path / "samples/000_swap.png") and not is_marked(tmp_path / "samples/000_source.png")


class Tinted(Brighter):
    """Brighter, and red."""

    def forward(self, batch: SwapBatch) -> SwapResult:
        result = super().forward(batch)
        red = torch.tensor([40, 0, 0])[:, None, None] / 127.5
        return SwapResult(result.image + red, result.coarse + red, result.z_id, result.z_att)


def test_what_is_measured_is_grey_where_the_target_is() -> None:
    class Coloured(Painted):
        def __getitem__(self, index: int) -> Sample:
            sample = super().__getitem__(index)
            return replace(sample, image=sample.image + np.array([0, 0, 9], np.uint8) * np.uint8(index == 5))

    pairs = EvaluationPairs(Coloured(), [(0, 2), (1, 5), (2, 6)], 3)
    swapper: Any = Tinted(refines=True)
    (swapped,) = Swaps(pairs, swapper, torch.device("cpu"))
    assert swapped.coarse is not None
    for images, brighter in ((swapped.image, 50), (swapped.coarse, 20)):
        luma = round(0.299 * 40)
        expected = [
            [20 + brighter + luma] * 3,
            [90 + brighter, 50 + brighter, 59 + brighter],
            [60 + brighter + luma] * 3,
        ]
        assert images[:, 0, 0].tolist() == expected
    method, coarse, *_ = (result.image for _, result in swapped.baselines())
    assert torch.equal(method, to_tensor(swapped.image)) and torch.equal(coarse, to_tensor(swapped.coarse))


def test_samples_are_eight_spread_over_the_list(tmp_path: Path) -> None:
    evaluate(fake_run(tmp_path, 30, [level()]))
    assert len(list((tmp_path / "samples").glob("*_swap.png"))) == 8


def test_drawn_pairs_follow_the_seed(tmp_path: Path) -> None:
    evaluate(fake_run(tmp_path, 9, [level()]))
    assert read_pairs(tmp_path / "pairs.csv", Painted()) == draw_pairs(Painted(), 9, seed=1)


def test_a_benchmark_that_loses_pairs_is_named(tmp_path: Path, listed: str, expect_error: Callable[..., Any]) -> None:
    with expect_error("level (level-judge): distance "):
        evaluate(fake_run(tmp_path, listed, [level(wrong=True)]))
    assert not (tmp_path / "metrics.json").exists()


def test_no_evaluation(tmp_path: Path, expect_error: Callable[..., Any]) -> None:
    run = fake_run(tmp_path, 1, [level()])
    run.recipe.evaluation = None
    with expect_error("brighter: evaluation: "):
        evaluate(run)


def test_table_shows_baselines_failures_and_own_networks(
    tmp_path: Path, listed: str, check_message: Callable[..., None]
) -> None:
    metrics = evaluate(fake_run(tmp_path, listed, [level(judge="trainer"), level(judge="[b]other")]))
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(table(metrics))
    text = console.export_text()
    lines = text.splitlines()
    for title in ("level (own network)", "level ([b]other)"):
        start = next(number for number, line in enumerate(lines) if line.strip() == title)
        rows = [cells for line in lines[start + 1 : start + 9] if len(cells := line.split("│")) > 3]
        assert [row[1].strip() for row in rows] == ["brighter", "without-refiner", "copy-target", "copy-source"]
        assert rows[0][2].strip() == "50.00" and [row[5].strip() for row in rows] == ["0", "1", "3", "2"]
    assert "distance ↓" in text and "share % ↑" in text and "100.0 (100.0 to 100.0)" in text
    noted = [line.strip() for line in lines[max(n for n, line in enumerate(lines) if "└" in line) + 1 :]]
    assert "4 pairs" in " ".join(noted)
    check_message("\n".join(noted))


# A real run, trained not at all ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with a real, small FaceShifter of random weights, on pictures of noise."""
    folder = tmp_path_factory.mktemp("untrained")
    rng = np.random.default_rng(0)
    for person in range(3):
        (folder / f"faces/p{person}").mkdir(parents=True)
        for picture in range(2):
            image = rng.integers(0, 256, (32, 32, 3)).astype(np.uint8)
            write_image(folder / f"faces/p{person}/{picture}.png", image, synthetic=False)
    data = {"use": "face-folder", "root": str(folder / "faces"), "layout": "aligned", "test_share": 1.0}
    recipe = {
        "name": "untrained",
        "size": 32,
        "data": data | {"cache": str(folder / "cache")},
        "networks": {
            "identity": {"use": "dlib-resnet"},
            "attributes": {"use": "aei-attributes", "width": 0.25},
            "generator": {"use": "aad-generator", "width": 0.125},
        },
        "stages": [
            {"name": "aei-net", "train": ["attributes", "generator"], "losses": [{"use": "reconstruction"}],
             "optimizer": {"lr": 1e-3}, "steps": 1, "batch_size": 2},
        ],
        "evaluation": {
            "pairs": 4,
            "benchmarks": [{"use": "id-retrieval", "judge": {"use": "dlib-resnet"}}, {"use": "pose-error"}],
        },
    }  # fmt: skip
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    run = Run.open(Recipe.load(str(folder / "recipe.yaml")), folder / "run", device="cpu")
    torch.manual_seed(0)
    parts = build_swapper(run.recipe).trained_parts()
    state = {f"{name}.{key}": value for name, part in parts for key, value in part.state_dict().items()}
    run.finish(run.recipe.stages[0], state)
    return folder / "run"


def test_a_real_run(untrained: Path) -> None:
    metrics = evaluate(Run.load(untrained, "cpu")).to_json()
    assert list(metrics["benchmarks"]) == ["id-retrieval (own network)", "pose-error"]
    assert metrics["own_network"] == ["id-retrieval (own network)"]
    retrieval = {way: found["id-retrieval (own network)"] for way, found in metrics["baselines"].items()}
    assert retrieval["copy-source"]["top1"] == 100 and retrieval["copy-target"]["top1"] == 0
    assert retrieval["copy-source"]["cosine"] == pytest.approx(1, abs=1e-4)
    assert metrics["failures"]["pose-error"]["copy-target"] == 4  # noise has no face
    assert metrics["benchmarks"]["pose-error"]["pose_deg"] is None
    assert len(list((untrained / "samples").glob("000_map_*.png"))) > 1


def test_bench_measures_otherwise_and_writes_nothing(untrained: Path, expect_error: Callable[..., Any]) -> None:
    before = {file: file.stat().st_mtime_ns for file in untrained.rglob("*")}
    metrics = bench(untrained, ["pose-error"], ["evaluation.pairs=3"], "cpu").to_json()
    assert list(metrics["benchmarks"]) == ["pose-error"] and metrics["pairs"] == 3
    assert {file: file.stat().st_mtime_ns for file in untrained.rglob("*")} == before
    with expect_error("no benchmark is called pose-eror"):
        bench(untrained, ["pose-eror"], [], "cpu")


def test_bench_writes_every_pairs_figures(untrained: Path, tmp_path: Path) -> None:
    metrics = bench(untrained, ["pose-error"], ["evaluation.pairs=3"], "cpu", tmp_path / "details.csv")
    lines = list(csv.DictReader((tmp_path / "details.csv").read_text().splitlines()))
    assert list(lines[0]) == ["source", "target", "way", "pose-error: pose_deg"]  # one number for all is no column
    assert len(lines) == 3 * (1 + len(metrics.baselines))
    copies = [line["pose-error: pose_deg"] for line in lines if line["way"] == "copy-target"]
    assert set(copies) <= {"0", ""} and len(copies) == 3
    assert [line["source"] for line in lines[:3]] == [line["source"] for line in lines[3:6]]


def test_metrics_are_read_back_and_become_a_table(untrained: Path, expect_error: Callable[..., Any]) -> None:
    metrics = bench(untrained, [], ["evaluation.pairs=3"], "cpu")
    found = json.loads(json.dumps(metrics.to_json()))
    assert Metrics.from_json(found, "metrics.json") == metrics
    frame = metrics.to_pandas()
    assert list(frame) == ["benchmark", "baseline", "metric", "value", "low", "high", "unit", "better"]
    assert len(frame) == (4 + 3) * (1 + len(metrics.baselines))
    row = frame[(frame.benchmark == "pose-error") & (frame.baseline == "copy-source") & (frame.metric == "noise_deg")]
    expected = metrics.benchmarks["pose-error"].estimates["copy-source"]["noise_deg"].value
    assert row.value.item() == expected or expected is None
    with expect_error("metrics.json: "):
        Metrics.from_json({**found, "figures": found["metrics"]}, "metrics.json")
    del found["failures"]
    with expect_error("metrics.json: "):
        Metrics.from_json(found, "metrics.json")


def test_bench_needs_options_for_what_the_recipe_lacks(untrained: Path, expect_error: Callable[..., Any]) -> None:
    run = Run.load(untrained, "cpu")
    plan = run.recipe.evaluation
    assert plan is not None
    from fsframework.evaluation.evaluate import _named

    only_pose = plan.model_copy(update={"benchmarks": plan.benchmarks[1:]})
    assert _named("pose-error", only_pose) == plan.benchmarks[1:]
    with expect_error("id-retrieval: "):
        _named("id-retrieval", only_pose)


@pytest.mark.parametrize(("loss", "own"), [("reconstruction", []), ("identity", ["dlib-resnet"])])
def test_who_only_chooses_a_decoder_is_no_network_of_the_training(loss: str, own: list[str]) -> None:
    """Unless a loss asks it; a generator that paints from the embedding has always seen it."""
    losses = json.dumps([{"use": loss}])
    assert own_identity(Recipe.load("deepfakes", [f"stages.0.losses={losses}"])) == own
    assert own_identity(Recipe.load("smoke")) == ["dlib-resnet"]


def test_figures_say_that_people_were_seen(check_message: Callable[..., None]) -> None:
    console = Console(width=400)
    texts = []
    for seen in (True, False):
        with console.capture() as captured:
            console.print(table(Metrics("x", 3, {}, seen_people=seen)))
        texts.append(captured.get().strip())
    assert texts[0].startswith(f"{texts[1]} ")
    check_message(texts[0].removeprefix(texts[1]).strip())


# Differences ------------------------------------------------------------------------------------------------------


def test_a_paired_difference_sees_what_two_intervals_hide() -> None:
    rng = np.random.default_rng(0)
    hard = rng.normal(0, 10, 200)  # what makes a pair hard for both
    ours, theirs = hard + 1 + rng.normal(0, 0.5, 200), hard + rng.normal(0, 0.5, 200)
    people = np.arange(200) // 2
    apart = differences({"x": ours}, {"x": theirs}, people)["x"]
    assert apart.value == pytest.approx((ours - theirs).mean())
    assert 0.7 < apart.low < 1 < apart.high < 1.3  # type: ignore[operator]
    low, high = bootstrap(ours, people)  # type: ignore[misc]
    assert low < theirs.mean() < high
    interval = bootstrap(ours - theirs, people)
    assert interval == apart[1:]


def test_differences_are_over_pairs_that_both_solved() -> None:
    ours, theirs = np.array([1.0, np.nan, 3.0, 5.0]), np.array([0.0, 1.0, np.nan, 2.0])
    found = differences({"x": ours, "one": 3.0}, {"x": theirs, "one": 4.0}, np.arange(4))
    assert list(found) == ["x"] and found["x"].value == 2
    nothing = differences({"x": ours}, {"x": np.full(4, np.nan)}, np.arange(4))["x"]
    assert nothing == (None, None, None)


# Explained --------------------------------------------------------------------------------------------------------


def test_identities_go_on_the_sphere_from_one_end_to_the_other() -> None:
    one, other = torch.eye(3)[:1], torch.eye(3)[1:2]
    assert torch.allclose(_slerp(one, other, 0.0), one) and torch.allclose(_slerp(one, other, 1.0), other)
    middle = _slerp(one, other, 0.5)
    assert torch.allclose(middle, torch.tensor([[0.5**0.5, 0.5**0.5, 0]])) and torch.allclose(
        _slerp(one, one, 0.3), one
    )


def test_a_run_shows_what_is_between_people_and_who_is_shown_alike(
    tmp_path: Path, untrained_run: Callable[..., Any], check_message: Callable[..., None]
) -> None:
    plan = {"pairs": 3, "benchmarks": [{"use": "reconstruction"}]}
    run = untrained_run(tmp_path / "run", evaluation=plan)
    evaluate(run)
    samples = run.path / "samples"
    between, alike = read_image(samples / "interpolation.png"), read_image(samples / "attributes.png")
    assert between.shape == (22 + 3 * 132, (5 + 3) * 132, 3) and alike.shape == (22 + 3 * 132, (1 + 5) * 132, 3)
    assert is_marked(samples / "interpolation.png") and not is_marked(samples / "attributes.png")
    page = write_report(run).read_text()
    shown = [base64.b64decode(data) for data in re.findall(r"data:image/png;base64,([^\"]+)", page)]
    assert len(shown) >= 2 + 3 * 3  # source, target and swap of three pairs
    for file in [*samples.glob("*.png"), *map(io.BytesIO, shown)]:  # ORL is grey
        assert np.ptp(np.asarray(Image.open(file).convert("RGB")), axis=2).max() == 0
    found = re.findall(r'<h2 id="(interpolation|attributes)">(.*?)</h2>\s*<p>(.*?)</p>', page, re.DOTALL)
    assert [kind for kind, *_ in found] == ["interpolation", "attributes"]
    check_message("\n".join(" ".join(text.split()) for _, *texts in found for text in texts))


def test_the_nearest_attributes_are_those_of_the_likest_picture() -> None:
    class Greys(torch.nn.Module):
        def forward(self, faces: Any) -> list[torch.Tensor]:
            return [faces.image.mean(dim=(1, 2, 3), keepdim=True), -faces.image]

    faces = Painted()
    swapper: Any = SimpleNamespace(attributes=Greys())
    columns = attribute_neighbours(swapper, EvaluationPairs(faces, [(0, 6)], 1), torch.device("cpu"))
    middles = columns[22 + 66, [66, 132 + 66, 264 + 66], 0]
    assert middles.tolist() == [60, 50, 50]  # picture 6, and picture 5 at both levels
