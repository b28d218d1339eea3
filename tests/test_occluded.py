"""The data sets `occluded` and `hard-examples`."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
from fsf_faceshifter.hard_examples import HardExamples
from fsf_occluders.composite import KINDS, LARGEST, face_region
from fsf_occluders.dataset import Occluded
from fsf_occluders.sources import Cutouts, Drawn
from PIL import Image
from pydantic import ValidationError
from torch import nn

from fsframework.core.components import ComponentOptions, Dataset
from fsframework.core.part import Part
from fsframework.core.types import Sample, SwapBatch, SwapResult
from fsframework.faces.align import template

SIZE = 64


@cache
def head() -> np.ndarray:
    return skimage.data.astronaut()[20:212:3, 128:320:3]


class Heads(Dataset):
    """The astronaut's head in different light."""

    name = "heads"
    count = 70

    def load(self) -> None:
        self.loaded = True

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        light = 1 - 37 * index % 70 / 200
        return Sample((head() * light).astype(np.uint8), f"head/{index}", f"p{index % 5}", template(SIZE))

    def prepare(self, swapper: Any) -> dict[str, np.ndarray]:
        return {"seen": np.arange(3)}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        self.restored = state


@dataclass(frozen=True)
class HeadsPart(Part):
    """Names `Heads`, which no plugin registers."""

    kind: str = "datasets"
    name: str = "heads"
    options: Any = None

    def build(self, *args: Any) -> Any:
        return Heads(ComponentOptions(), *args)


def occluded(split: str = "train", **options: Any) -> Occluded:
    dataset = Occluded(Occluded.Options(data=HeadsPart(), **options), SIZE, None, split)
    dataset.load()
    return dataset


def hardest(**options: Any) -> HardExamples:
    dataset = HardExamples(HardExamples.Options(data=HeadsPart(), **options), SIZE, None, "train")
    dataset.load()
    return dataset


def same(first: Sample, second: Sample) -> bool:
    if first.valid_mask is None or second.valid_mask is None:
        return first.valid_mask is second.valid_mask and np.array_equal(first.image, second.image)
    return np.array_equal(first.image, second.image) and np.array_equal(first.valid_mask, second.valid_mask)


def test_sources_stay_clean() -> None:
    dataset = occluded(share=1.0)
    assert dataset[3].valid_mask is None
    assert np.array_equal(dataset[3].image, dataset.inner[3].image)
    assert len(dataset) == 70
    assert dataset.names() == dataset.inner.names()
    assert dataset.people() == dataset.inner.people()


def test_randomness_comes_from_the_generator_alone() -> None:
    first, second = occluded(), occluded()
    for index in range(20, 30):
        second.target(index, np.random.default_rng(0))  # another history, another order in the pool
    results = [[data.target(index, np.random.default_rng(index)) for index in range(12)] for data in (first, second)]
    assert all(same(one, other) for one, other in zip(*results, strict=True))
    assert not same(first.target(0, np.random.default_rng(0)), first.target(0, np.random.default_rng(99)))


def test_splits_draw_different_occluders() -> None:
    train, test = (occluded(split, share=1.0).target(0, np.random.default_rng(1)) for split in ("train", "test"))
    assert not same(train, test)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_share_of_covered_targets(share: float) -> None:
    dataset, rng = occluded(share=share, pool=40), np.random.default_rng(2)
    samples = [dataset.target(index % 70, rng) for index in range(150)]
    assert np.mean([sample.valid_mask is not None for sample in samples]) == pytest.approx(
        share, abs=0.1 * (0 < share < 1)
    )


def test_known_is_where_the_occluder_lies() -> None:
    dataset = occluded(share=1.0, both=0.0, pool=40)
    for index in range(30):
        sample, clean = dataset.target(index, np.random.default_rng(index)), dataset[index]
        assert (
            sample.valid_mask is not None
            and sample.valid_mask.dtype == bool
            and sample.valid_mask.shape == (SIZE, SIZE)
        )
        change = np.abs(sample.image.astype(int) - clean.image).mean(axis=2)
        assert 0.01 <= sample.valid_mask[face_region(SIZE)].mean() <= LARGEST
        assert change[sample.valid_mask].mean() > 8 * change[~sample.valid_mask].mean()
        assert (sample.name, sample.person) == (clean.name, clean.person)


def test_two_occluders_leave_enough_of_the_face() -> None:
    one, two = (occluded(share=1.0, both=both, pool=40) for both in (0.0, 1.0))
    covered = []
    for dataset in (one, two):
        samples = [dataset.target(index, np.random.default_rng(index)) for index in range(40)]
        covered.append(
            [sample.valid_mask[face_region(SIZE)].mean() for sample in samples if sample.valid_mask is not None]
        )
    assert np.mean(covered[1]) > 1.15 * np.mean(covered[0])
    assert max(covered[1]) <= LARGEST


def test_the_mix_says_which_kinds_come() -> None:
    dataset, rng = occluded(share=1.0, mix={"glasses": 3, "cup": 1, "hand": 0}, pool=20), np.random.default_rng(0)
    for index in range(60):
        dataset.target(index, rng)
    assert isinstance(dataset.source, Drawn)
    kinds = [kind for kind, _ in dataset.source.kept]
    assert set(kinds) == {"glasses", "cup"}
    assert kinds.count("cup") <= 5 < kinds.count("glasses")
    assert set(occluded().options.mix) == set(KINDS)


@pytest.mark.parametrize("mix", [{"hand": 0}, {}, {"hand": -1}, {"elbow": 1}])
def test_a_senseless_mix_is_refused(mix: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        occluded(mix=mix)


def test_preparation_reaches_the_inner_data_set() -> None:
    dataset = occluded()
    assert np.array_equal(dataset.prepare(None)["seen"], np.arange(3))  # type: ignore[arg-type]
    dataset.restore({"seen": np.ones(1)})
    assert dataset.inner.restored == {"seen": np.ones(1)}  # type: ignore[attr-defined]


def cutout(path: Path, colour: tuple[int, int, int]) -> None:
    rgba = np.zeros((90, 120, 4), np.uint8)
    rgba[20:80, 30:100] = (*colour, 255)
    Image.fromarray(rgba).save(path)


def test_a_folder_of_cutouts(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    cutout(tmp_path / "a.png", (0, 255, 0))
    cutout(tmp_path / "deep" / "b.webp", (0, 255, 0))
    (tmp_path / "notes.txt").write_text("no picture")
    dataset = occluded(share=1.0, folder=tmp_path)
    assert isinstance(dataset.source, Cutouts)
    assert [occluder.rgba.shape for occluder in dataset.source.kept] == [(34, 40, 4)] * 2
    for index in range(10):
        sample, clean = dataset.target(index, np.random.default_rng(index)), dataset[index]
        assert sample.valid_mask is not None
        more = (sample.image.astype(int) - clean.image)[sample.valid_mask].mean(axis=0)
        assert more[1] > more[0] + 20 and more[1] > more[2] + 20  # green


def test_of_many_cutouts_some_are_taken_evenly(tmp_path: Path) -> None:
    for number in range(9):
        cutout(tmp_path / f"{number}.png", (28 * number, 0, 0))
    source = occluded(folder=tmp_path, pool=3).source
    assert isinstance(source, Cutouts)
    assert [occluder.rgba[9, 9, 0] for occluder in source.kept] == [0, 112, 224]


def broken(path: Path) -> None:
    cutout(path, (9, 9, 9))
    path.write_bytes(path.read_bytes()[:120])


def opaque(path: Path) -> None:
    Image.new("RGB", (8, 8)).save(path)


def empty(path: Path) -> None:
    Image.new("RGBA", (8, 8)).save(path)


def text(path: Path) -> None:
    path.write_text("not a picture")


@pytest.mark.parametrize("spoil", [broken, text, opaque, empty])
def test_a_bad_cutout_is_named(tmp_path: Path, spoil: Any, expect_error: Callable[..., Any]) -> None:
    cutout(tmp_path / "a.png", (0, 255, 0))
    spoil(tmp_path / "b.png")
    reasons = {}
    try:
        with Image.open(tmp_path / "b.png") as picture:
            picture.load()
    except OSError as error:
        reasons[str(error).replace(str(tmp_path), "TMP")] = "REASON"  # Pillow's words change with its version
    with expect_error("b.png: ", hide=reasons) as caught:
        occluded(folder=tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}/b.png: ") and bool(reasons) == (spoil in (broken, text))


def test_a_cutout_that_is_too_large_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expect_error: Callable[..., Any]
) -> None:
    monkeypatch.setattr("fsf_occluders.sources.MAX_PIXELS", 1000)
    cutout(tmp_path / "a.png", (0, 255, 0))
    with expect_error("a.png: "):
        occluded(folder=tmp_path)


def test_a_folder_without_pictures_is_refused(tmp_path: Path, expect_error: Callable[..., Any]) -> None:
    with expect_error(f"{tmp_path.name}: "):
        occluded(folder=tmp_path)
    with expect_error("missing: "):
        occluded(folder=tmp_path / "missing")


class Darkener(nn.Module):
    """Stands for a swapper: the error that it makes is written in the picture, large in dark and in bright ones."""

    def __init__(self) -> None:
        super().__init__()
        self.part = nn.BatchNorm2d(3)
        self.frozen = nn.Dropout()
        self.batches: list[int] = []

    def coarse(self, batch: SwapBatch) -> SwapResult:
        assert not torch.is_grad_enabled() and not any(module.training for module in self.modules())
        assert batch.source.image is batch.target.image
        self.batches.append(len(batch.source.image))
        level = batch.target.image.mean(dim=(1, 2, 3), keepdim=True)
        image = batch.target.image + (level + 0.25).abs()
        return SwapResult(image=image, coarse=image, z_id=level)


def errors(dataset: Dataset) -> np.ndarray:
    levels = np.array([dataset[index].image.mean() for index in range(len(dataset))]) / 127.5 - 1
    return np.abs(levels + 0.25)


def test_the_hardest_are_really_the_hardest() -> None:
    dataset, swapper = hardest(share=0.1), Darkener()
    swapper.frozen.eval()
    assert len(dataset) == 70
    state = dataset.prepare(swapper)  # type: ignore[arg-type]
    expected = errors(dataset.inner)
    assert np.allclose(state["error"], expected, atol=1e-5) and state["error"].dtype == np.float32
    assert state["index"].dtype == np.int64
    assert set(state["index"]) == set(np.argsort(expected)[-7:])
    assert not np.array_equal(state["index"], np.arange(7)) and not np.array_equal(state["index"], np.arange(63, 70))
    assert len(dataset) == 7
    assert dataset.names() == [f"head/{place}" for place in state["index"]] == [dataset[i].name for i in range(7)]
    assert dataset.people() == [dataset[i].person for i in range(7)]
    assert dataset.target(2, np.random.default_rng(0)).name == dataset[2].name
    assert sum(swapper.batches) == 70 and max(swapper.batches) > 1
    assert swapper.training and swapper.part.training and not swapper.frozen.training


def test_restoring_equals_preparing(expect_error: Callable[..., Any]) -> None:
    prepared, restored = hardest(share=0.2), hardest(share=0.2)
    state = prepared.prepare(Darkener())  # type: ignore[arg-type]
    restored.restore(state)
    assert restored.names() == prepared.names() and len(restored) == 14
    assert np.array_equal(restored.inner.restored["seen"], np.arange(3))  # type: ignore[attr-defined]
    state["error"] = state["error"][:-1]
    with expect_error(kind=ValueError):
        restored.restore(state)


@pytest.mark.parametrize(("count", "kept"), [(70, 2), (2, 2), (1, 1)])
def test_two_faces_stay_where_there_are_two(monkeypatch: pytest.MonkeyPatch, count: int, kept: int) -> None:
    monkeypatch.setattr(Heads, "count", count)
    dataset = hardest(share=0.001)
    dataset.prepare(Darkener())  # type: ignore[arg-type]
    assert len(dataset) == kept
