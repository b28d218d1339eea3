"""Faces turned by any angle."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from skimage import data
from swapping import FAST_MODEL
from synthetic_video import make_video

from fsframework.core.components import ComponentOptions, Detector
from fsframework.core.part import part
from fsframework.core.types import Face
from fsframework.data.extract import extract
from fsframework.data.extract_faces import ExtractOptions
from fsframework.faces.align import TEMPLATE, transform
from fsframework.faces.detect_video import Scan, SearchState, _is_expected, _places, find_faces
from fsframework.faces.select import largest
from fsframework.faces.track import track
from fsframework.faces.turned import find_at_any_angle, is_doubtful, misfit, roll, shift
from fsframework.inference.assignment import FaceAssignment
from fsframework.inference.face_swapper import FaceSwapper
from fsframework.inference.video import painted, plan
from fsframework.media.image_io import read_image, write_image
from fsframework.media.video_io import probe, read


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
    faces, (note,) = face_swapper.look(frame, "group.png")
    assert len(faces) == 1 and not capsys.readouterr().err
    check_message(note)


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
    assert work.faces(tmp_path / "source").notes == []
    source = face_swapper.source(portrait(), "source")
    monkeypatch.setattr(face_swapper, "source", lambda *_: source)
    monkeypatch.setattr(face_swapper, "detector", Beside((240, 250), made(0, 0.9)))
    write_image(tmp_path / "target.png", np.full((240, 250, 3), 90, np.uint8), synthetic=False)
    (tmp_path / "target.png").rename(tmp_path / "target")
    notes = [*work.faces(tmp_path / "target").notes, *work.swap(tmp_path, SwapRequest()).swapped.notes]
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


def lying_film(angles: Sequence[float], beside: bool = False) -> tuple[list[np.ndarray], list[Face]]:
    """Return the frames of a film of the portrait at these angles, and its face in each; `beside` adds an upright."""
    detector = part("detectors", "mtcnn").build()
    detector.load()
    (upright,) = detector([portrait()])[0]
    frames, faces = [], []
    for angle in angles:
        frame, matrix = turned(portrait(), angle)
        if beside:
            other = np.full((len(frame), 256, 3), 90, np.uint8)
            other[:256] = portrait()[:, ::-1]
            frame = np.concatenate([frame, other], axis=1)
        frames.append(frame)
        faces.append(Face(upright.box, transform(upright.landmarks, matrix), 1.0))
    return frames, faces


@pytest.mark.parametrize("angle", [90, 140, 180, 270])
def test_a_lying_head_in_a_film_is_found_in_each_frame(mtcnn: Detector, angle: int) -> None:
    frames, faces = lying_film([angle + 3 * np.sin(number) for number in range(20)])
    counting = Counting(mtcnn)
    found = list(find_faces(counting, iter(frames)))
    assert [len(each) for each in found] == [1] * 20
    assert max(shift(one, face) for (one,), face in zip(found, faces, strict=True)) < 0.15
    assert counting.frames < 20 + 35  # whole frames are turned once, then a window in each frame is enough


def test_a_head_that_lies_down_in_a_film_keeps_its_track(mtcnn: Detector) -> None:
    frames, faces = lying_film([90 * min(1, number / 30) for number in range(40)])
    found = list(find_faces(mtcnn, iter(frames)))
    tracks = track(found, [False] * 40, 25.0)
    assert [(each.start, each.stop) for each in tracks] == [(0, 40)]
    assert max(shift(tracks[0].face(number), faces[number]) for number in range(40)) < 0.2


def test_an_upright_film_costs_no_further_search(mtcnn: Detector) -> None:
    frames, _ = lying_film([0] * 40)
    counting = Counting(mtcnn)
    assert [len(each) for each in find_faces(counting, iter(frames))] == [1] * 40
    assert counting.frames == 40  # four whole frames, and a window in each of the others


def test_turned_copies_of_empty_frames_are_seldom_searched(mtcnn: Detector) -> None:
    counting = Counting(mtcnn)
    grey = [np.full((120, 160, 3), 90, np.uint8)] * 161
    state = SearchState()
    assert list(find_faces(counting, iter(grey), state)) == [[]] * 161
    assert counting.frames == 11 + 4 * 7  # of eleven whole frames, the first, third, seventh and eleventh are turned
    shots = [number in (40, 70) for number in range(161)]
    again = Counting(mtcnn)
    assert list(find_faces(again, iter(grey), SearchState(), shots)) == [[]] * 161
    # A new shot is turned at once: 0, 32, 48 (after 40), 80 (after 70), 112.
    assert again.frames == 11 + 5 * 7 and state.doubtful is None


class Seldom(Mirage):
    """Find a face in whole frames and in windows of a video, but in no turned copy."""

    def forward(self, frames: list[np.ndarray]) -> list[list[Face]]:
        window = Face(np.array([40.0, 40, 120, 120]), 20 + 120 * TEMPLATE, self.face.score)
        return [
            [self.face] if frame.shape[:2] == self.size else [window] if len(frame) == 160 else [] for frame in frames
        ]


def test_doubtful_faces_of_a_film_are_left_out_and_said(mtcnn: Detector) -> None:
    state = SearchState()
    frames = [np.full((100, 130, 3), 90, np.uint8)] * 30
    assert list(find_faces(Seldom((100, 130), made(0, 0.9)), iter(frames), state)) == [[]] * 30
    assert state.doubtful == 0
    assert [len(faces) for faces in find_faces(Seldom((100, 130), made(0)), iter(frames))] == [1] * 30


def dark(frame: np.ndarray, seed: int) -> np.ndarray:
    """Return a frame with 9 % of its light, and noise."""
    noise = np.random.default_rng(seed).normal(0, 4, frame.shape)
    return np.clip(np.rint(0.09 * frame.astype(float) + noise), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("angle", [0, 180])
def test_a_doubtful_face_in_the_dark_is_found_at_any_angle(mtcnn: Detector, angle: float) -> None:
    frames, faces = lying_film([angle] * 17)
    frames = [dark(frame, number) for number, frame in enumerate(frames)]
    state = SearchState()
    found = list(find_faces(mtcnn, iter(frames), state))
    detected = mtcnn(frames)  # upright
    assert sum(map(len, detected)) > 12 if angle == 0 else not any(detected)
    assert all(is_doubtful(face, mtcnn.certain_score) for each in detected for face in each)
    least = [1] * 17 if angle else [len(each) for each in detected]
    assert all(len(each) >= count for each, count in zip(found, least, strict=True))
    assert max(shift(one, face) for each, face in zip(found, faces, strict=True) for one in each) < 0.2
    assert state.doubtful is None


def test_a_doubtful_turned_face_is_not_expected_before_it_appears() -> None:
    empty, first, last = Scan([], []), Scan([made(88)], []), Scan([made(90)], [])
    (appears,), (stays,), (leaves,) = (_places(*pair) for pair in ((empty, last), (first, last), (first, empty)))
    doubtful, nearly = made(89, 0.93), made(89, 0.99)
    assert [_is_expected(place, doubtful, 0.5) for place in (appears, stays, leaves)] == [False, True, False]
    assert all(_is_expected(place, nearly, 0.5) for place in (appears, stays, leaves))
    upright = _places(empty, Scan([made(0)], []))
    assert [_is_expected(place, made(0, 0.8), 0.5) for place in upright] == [True]


@pytest.mark.parametrize("rotation", [0, 90])
def test_the_swap_of_a_lying_head_in_a_film_is_upright_in_its_frame(
    face_swapper: FaceSwapper, tmp_path: Path, rotation: int
) -> None:
    frames, faces = lying_film([90.0 + rotation] * 5)
    side = len(frames[0]) // 2 * 2
    video = probe(make_video(tmp_path / "lying.mp4", [frame[:side, :side] for frame in frames], sound=False))
    source = face_swapper.source(data.astronaut(), "source")
    tracks, sources = plan(face_swapper, FaceAssignment("largest", source), video, None)
    before = next(read(video)).astype(int)
    changed = np.abs(next(painted(face_swapper, video, tracks, sources, 0, 5)).astype(int) - before).max(axis=2) > 8
    rows, columns = np.nonzero(changed)
    centre = faces[0].landmarks.mean(axis=0)
    assert np.hypot(columns.mean() - centre[0], rows.mean() - centre[1]) < 20
    assert abs(roll(tracks[0].face(2)) + 90 + rotation) % 360 < 6


def test_a_head_that_turns_beside_an_upright_one_in_a_film_is_found(mtcnn: Detector) -> None:
    frames, faces = lying_film([0] * 10 + [90] * 20, beside=True)
    found = list(find_faces(mtcnn, iter(frames)))
    assert [len(each) for each in found] == [2] * 30
    assert max(min(shift(one, face) for one in each) for each, face in zip(found, faces, strict=True)) < 0.15
