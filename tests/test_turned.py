"""Faces turned by any angle."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from skimage import data
from swapping import FAST_MODEL

from fsframework.core.components import ComponentOptions, Detector
from fsframework.core.part import part
from fsframework.core.types import Face
from fsframework.data.extract import extract
from fsframework.data.extract_faces import ExtractOptions
from fsframework.faces.align import TEMPLATE, transform
from fsframework.faces.select import largest
from fsframework.faces.turned import find_at_any_angle, is_doubtful, misfit, roll, shift
from fsframework.inference.face_swapper import FaceSwapper
from fsframework.media.image_io import read_image, write_image


class Counting(Detector):
    """Count the frames that another detector searches."""

    certain_score = 0.9985

    def __init__(self, detector: Detector) -> None:
        super().__init__(ComponentOptions())
        self.detector = detector
        self.frames = 0

    def forward(self, frames: list[np.ndarray]) -> list[list[Face]]:
        self.frames += len(frames)
        return self.detector(frames)


class Mirage(Detector):
    """Find a face in frames of one size alone."""

    certain_score = 0.9985

    def __init__(self, size: tuple[int, int], face: Face) -> None:
        super().__init__(ComponentOptions())
        self.size, self.face = size, face

    def forward(self, frames: list[np.ndarray]) -> list[list[Face]]:
        return [[self.face] if frame.shape[:2] == self.size else [] for frame in frames]


@pytest.fixture(scope="module")
def mtcnn() -> Detector:
    detector: Detector = part("detectors", "mtcnn").build()
    detector.load()
    return detector


@pytest.fixture(scope="module")
def face_swapper() -> FaceSwapper:
    return FaceSwapper(FAST_MODEL)


def portrait() -> np.ndarray:
    """Return a picture of one face, (H, W, 3) uint8."""
    return np.ascontiguousarray(data.astronaut()[:256, 96:352])


def turned(frame: np.ndarray, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Return a frame turned counter-clockwise by OpenCV on a larger grey one, and the matrix of the turn."""
    height, width = frame.shape[:2]
    side = int(np.hypot(height, width)) + 1
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, 1)
    matrix[:, 2] += [(side - width) / 2, (side - height) / 2]
    return cv2.warpAffine(frame, matrix, (side, side), flags=cv2.INTER_CUBIC, borderValue=(90, 90, 90)), matrix


def made(angle: float, score: float = 1.0) -> Face:
    """Return a face whose landmarks are the template, turned clockwise by an angle."""
    turn = np.radians(angle)
    points = (TEMPLATE - 0.5) @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    return Face(np.array([40.0, 40, 60, 60]), 50 + 40 * points, score)


@pytest.mark.parametrize("angle", range(30, 360, 30))
def test_a_turned_face_is_where_the_upright_one_is(mtcnn: Detector, angle: int) -> None:
    (upright,) = mtcnn([portrait()])[0]
    frame, matrix = turned(portrait(), angle)
    found = find_at_any_angle(mtcnn, frame)
    expected = Face(upright.box, transform(upright.landmarks, matrix), 1.0)
    assert shift(largest(found.faces), expected) < 0.1
    assert abs((roll(largest(found.faces)) - roll(upright) + angle + 180) % 360 - 180) < 6
    left, top, right, bottom = largest(found.faces).box
    x, y = expected.landmarks[2]
    assert left < x < right and top < y < bottom


def test_a_certain_face_costs_no_further_search(mtcnn: Detector) -> None:
    counting = Counting(mtcnn)
    (face,) = find_at_any_angle(counting, portrait()).faces
    (expected,) = mtcnn([portrait()])[0]
    assert counting.frames == 1
    assert (face.box == expected.box).all() and (face.landmarks == expected.landmarks).all()


@pytest.mark.parametrize("angle", [40, 90, 140])
def test_a_turned_face_is_found_beside_an_upright_one(mtcnn: Detector, angle: int) -> None:
    other, matrix = turned(portrait(), angle)
    (upright,) = mtcnn([portrait()])[0]
    left = np.full((len(other), 256, 3), 90, np.uint8)
    left[:256] = portrait()
    faces = find_at_any_angle(mtcnn, np.concatenate([left, other], axis=1)).faces
    expected = Face(upright.box, transform(upright.landmarks, matrix) + np.array([256, 0]), 1.0)
    assert len(faces) == 2
    assert min(shift(face, upright) for face in faces) < 0.05
    assert min(shift(face, expected) for face in faces) < 0.1


def test_geometry_of_known_faces() -> None:
    assert [round(roll(made(angle)), 6) for angle in (0, 30, -90, 170)] == [0, 30, -90, 170]
    assert misfit(made(70)) < 1e-9
    moved = made(0)
    moved.landmarks[2, 1] += 20  # two eye distances of 9.68 px
    assert misfit(moved) > 0.5
    assert not is_doubtful(made(5), 0.998)
    assert is_doubtful(made(5, 0.9), 0.998)
    assert is_doubtful(made(40), 0.998)
    assert is_doubtful(moved, 0.998)
    coincident = Face(np.array([0.0, 0, 9, 9]), np.ones((5, 2)), 1.0)
    assert is_doubtful(coincident, 0.0)


@pytest.mark.parametrize("face", [made(0, 0.9), made(80)])
def test_a_face_that_turned_copies_do_not_show_is_refused(
    face_swapper: FaceSwapper, face: Face, expect_error: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = np.full((100, 100, 3), 90, np.uint8)
    mirage = Mirage((100, 100), face)
    # A quarter turn of the frame has its size, so there the face is found elsewhere, and its level copy is empty.
    monkeypatch.setattr(face_swapper, "detector", mirage)
    with expect_error("side.png"):
        face_swapper.find(frame, "side.png")


class Beside(Mirage):
    """Find a certain face, and beside it the other."""

    def forward(self, frames: list[np.ndarray]) -> list[list[Face]]:
        certain = made(0)
        certain.landmarks[:] += 100
        certain.box[:] += 100
        return [[certain, *faces] if faces else [] for faces in super().forward(frames)]


def test_doubtful_faces_beside_a_certain_one_are_counted(
    face_swapper: FaceSwapper,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    check_message: Callable[..., None],
) -> None:
    frame = np.full((240, 250, 3), 90, np.uint8)
    monkeypatch.setattr(face_swapper, "detector", Beside((240, 250), made(0, 0.9)))
    assert [face.score for face in face_swapper.find(frame, "group.png")] == [1.0]
    check_message(capsys.readouterr().err)
    notes: list[str] = []
    assert len(face_swapper.find(frame, "group.png", notes)) == 1 and not capsys.readouterr().err
    check_message(notes[0])


def test_the_server_counts_doubtful_faces(
    face_swapper: FaceSwapper, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("fastapi")
    from fsframework.web.serve.queue import Limits
    from fsframework.web.serve.schemas import SwapRequest
    from fsframework.web.serve.swaps import Work

    work = Work(face_swapper, Limits())
    write_image(tmp_path / "source.png", portrait(), synthetic=False)
    (tmp_path / "source.png").rename(tmp_path / "source")
    assert work.faces(tmp_path / "source").note is None
    source = face_swapper.source(portrait(), "source")
    monkeypatch.setattr(face_swapper, "source", lambda *_: source)
    monkeypatch.setattr(face_swapper, "detector", Beside((240, 250), made(0, 0.9)))
    write_image(tmp_path / "target.png", np.full((240, 250, 3), 90, np.uint8), synthetic=False)
    (tmp_path / "target.png").rename(tmp_path / "target")
    notes = [work.faces(tmp_path / "target").note]
    notes.append(work.swap(tmp_path, SwapRequest()).notes[0])
    assert notes == ["1 doubtful face is left out, as turned copies show none there"] * 2


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_the_swap_of_a_lying_head_is_the_upright_swap_turned(face_swapper: FaceSwapper, quarters: int) -> None:
    source = face_swapper.source(data.astronaut(), "source")
    upright = face_swapper.swap_into(source, portrait(), "upright").astype(int)
    lying = face_swapper.swap_into(source, np.ascontiguousarray(np.rot90(portrait(), quarters)), "lying")
    back = np.rot90(lying, -quarters).astype(int)
    change = np.abs(upright - portrait())
    inside = change.max(axis=2) > 0
    assert np.abs(back - upright)[inside].mean() < 0.6 * change[inside].mean()
    assert (np.abs(back - upright)[~inside].max(axis=-1) > 8).mean() < 0.01  # nothing is painted elsewhere


def test_extract_writes_a_lying_head_upright(mtcnn: Detector, tmp_path: Path) -> None:
    encoder = part("identity-encoders", "dlib-resnet").build()
    encoder.load()
    crops = []
    for name, frame in {"upright": portrait(), "lying": np.ascontiguousarray(np.rot90(portrait()))}.items():
        (tmp_path / name).mkdir()
        write_image(tmp_path / name / "a.png", frame, synthetic=False)
        assert (
            extract([tmp_path / name], tmp_path / f"{name}-faces", ExtractOptions(size=64), mtcnn, encoder).faces == 1
        )
        (file,) = (tmp_path / f"{name}-faces").rglob("*.png")
        crops.append(read_image(file).astype(int))
    assert np.abs(crops[0] - crops[1]).mean() < 12
