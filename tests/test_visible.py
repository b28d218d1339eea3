"""Faces that the frame cuts: how much is visible, what is left alone, and what is never shown."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from swapping import FAST_MODEL
from synthetic_video import make_video

from fsframework.core.components import ComponentOptions, Detector
from fsframework.core.part import part
from fsframework.core.types import Face
from fsframework.data.extract import extract
from fsframework.data.extract_faces import ExtractOptions
from fsframework.data.samples import portrait, portrait_face, somebody
from fsframework.faces.align import TEMPLATE, align
from fsframework.faces.paste import soft_mask
from fsframework.faces.track import THUMBNAIL, Track
from fsframework.faces.visible import MIN_VISIBLE, enough_visible, visible_share, without_cut, without_hidden
from fsframework.inference.assignment import FaceAssignment
from fsframework.inference.face_swapper import FaceSwapper
from fsframework.inference.video import painted, plan
from fsframework.inference.video_faces import FoundFaces
from fsframework.media.image_io import write_image
from fsframework.media.video_io import probe, read


@pytest.fixture(scope="module")
def face_swapper() -> FaceSwapper:
    return FaceSwapper(FAST_MODEL, "cpu")


class Fixed(Detector):
    """Find given faces in each frame."""

    name = "fixed"

    def __init__(self, faces: list[Face]) -> None:
        super().__init__(ComponentOptions())
        self.faces = faces

    def forward(self, frames: list[np.ndarray]) -> list[list[Face]]:
        return [self.faces for _ in frames]


def face_of(share: float) -> tuple[Face, tuple[int, int]]:
    """Return a face whose crop is the square (0, 0, 100, 100), and a frame that ends where a share of it is visible."""
    points = TEMPLATE * 100 - 0.5
    inside = np.cumsum((soft_mask(1000) >= 0.5).sum(axis=0))
    width = int(np.searchsorted(inside, share * inside[-1])) // 10
    return Face(np.array([30.0, 30, 70, 90]), points, 1.0), (width, 200)


def cut_portrait(share: float) -> np.ndarray:
    """Return a picture of the portrait, cut at the right so that a share of the face is visible."""
    face, frame = portrait_face(), portrait()
    widths = range(1, frame.shape[1] + 1)
    shares = [visible_share(face, (width, frame.shape[0])) for width in widths]
    return np.ascontiguousarray(frame[:, : int(np.searchsorted(shares, share)) + 1])


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_the_visible_share_is_that_of_the_mask(share: float) -> None:
    face, size = face_of(share)
    assert visible_share(face, size) == pytest.approx(share, abs=0.03)
    assert visible_share(Face(face.box, face.landmarks[:, ::-1], 1.0), size[::-1]) > 0


def test_whole_and_absent_faces() -> None:
    face, _ = face_of(1.0)
    assert visible_share(face, (100, 100)) == 1
    assert visible_share(Face(face.box, face.landmarks + 500, 1.0), (100, 100)) == 0
    assert visible_share(Face(face.box, np.ones((5, 2)), 1.0), (100, 100)) == 0
    assert without_cut([face], (100, 100)) == ([face], [])
    assert without_cut([face], (40, 100)) == ([], [face])


def test_faces_at_the_limit_do_not_flicker() -> None:
    face, _ = face_of(1.0)
    _, (width, height) = face_of(MIN_VISIBLE)
    wobble = [Face(face.box, face.landmarks + np.array([0.4 * (-1) ** number, 0]), 1.0) for number in range(20)]
    shown = enough_visible(wobble, (width, height))
    assert np.count_nonzero(np.diff(shown.astype(int))) <= 1
    path = [
        Face(face.box, face.landmarks + np.array([number, 0]), 1.0) for number in (0, 20, 40, 60, 80, 60, 40, 20, 0)
    ]
    assert enough_visible(path, (100, 200)).tolist() == [True, True, True, False, False, False, True, True, True]


def test_colours_are_matched_to_what_the_frame_shows(face_swapper: FaceSwapper) -> None:
    """The repeated pixels beside the frame are of no face: what they are changes nothing."""
    frame, face = cut_portrait(0.75), portrait_face()
    crop = align(frame, face, face_swapper.size)
    assert crop.inside is not None and 0.5 < crop.inside.mean() < 1
    assert align(portrait(), face, 32).inside is None
    whole = cv2.copyMakeBorder(frame, 0, 0, 0, 200, cv2.BORDER_REPLICATE)
    known = align(whole, face, face_swapper.size)
    assert known.inside is None and np.array_equal(known.image, crop.image)
    source = face_swapper.source(somebody(), "source")
    ((_, image, mask),) = face_swapper.crops(frame, [(face, source)])
    ((_, other, _),) = face_swapper.crops(whole, [(face, source)])
    edge = (mask > 0.05) & (mask < 0.95) & crop.inside
    shift = np.median(crop.image[edge].astype(int) - image[edge], axis=0)
    assert np.abs(shift).max() <= 1  # matched where the frame ends the mask, too
    assert np.abs(image.astype(int) - other).max() > 0


def test_a_swap_ends_at_the_frame(face_swapper: FaceSwapper) -> None:
    frame = cut_portrait(0.75)
    result = face_swapper.swap_faces(frame, [(portrait_face(), face_swapper.source(somebody(), "source"))])
    assert result.shape == frame.shape
    changed = np.abs(result.astype(int) - frame).max(axis=2) > 0
    assert changed[:, -1].any() and not changed[:, 0].any()


def test_a_face_that_is_mostly_outside_is_left_alone(
    face_swapper: FaceSwapper,
    monkeypatch: pytest.MonkeyPatch,
    expect_error: Callable[..., Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    small, whole = cut_portrait(0.5), portrait_face()
    monkeypatch.setattr(face_swapper, "detector", Fixed([whole]))
    with expect_error("cut.png"):
        face_swapper.find(small, "cut.png")
    beside = Face(whole.box - 60, whole.landmarks - np.array([60, 0]), 1.0)
    monkeypatch.setattr(face_swapper, "detector", Fixed([whole, beside]))
    assert face_swapper.find(small, "cut.png") == [beside]
    assert capsys.readouterr().err == "note: cut.png: 1 face is left out, as the frame shows less than 60 % of it\n"


def leaving(count: int = 30) -> list[np.ndarray]:
    """Return frames in which the portrait leaves to the left."""
    wide = cv2.copyMakeBorder(portrait()[:260, 90:350], 0, 0, 60, 400, cv2.BORDER_CONSTANT, value=(90, 90, 90))
    return [np.ascontiguousarray(wide[:, 8 * number :][:, :360]) for number in range(count)]


def test_a_face_that_leaves_a_film_is_left_alone_when_it_is_mostly_outside(
    face_swapper: FaceSwapper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    video = probe(make_video(tmp_path / "leaving.mp4", leaving()))
    face = portrait_face()
    shifts = [np.array([8 * number + 30, 0]) for number in range(30)]
    faces = [[Face(face.box - np.tile(shift, 2), face.landmarks - shift, 1.0)] for shift in shifts]
    small = [[np.zeros((THUMBNAIL, THUMBNAIL), np.uint8)] for _ in faces]
    found = FoundFaces(faces, small, [False] * 30)
    monkeypatch.setattr("fsframework.inference.video.found_faces", lambda *arguments: found)
    tracks, sources = plan(face_swapper, FaceAssignment("largest", face_swapper.source(somebody(), "")), video, None)
    ((index, _),) = sources.items()
    track = tracks[index]
    assert track.cut_frames() and track.cut_frames()[0] > 5
    frames = list(painted(face_swapper, video, tracks, sources, 0, 30))
    changed = [bool((a != b).any()) for a, b in zip(frames, read(video), strict=True)]
    assert changed == [track.is_shown(number) for number in range(30)]
    first = track.cut_frames()[0] + 1
    said = f"faces are left alone where the frame shows less than 60 % of them, from frame {first} on"
    assert said in capsys.readouterr().err


def crossing(scores: list[float], count: int = 40) -> tuple[list[np.ndarray], list[list[Face]]]:
    """Return frames of two portraits that cross, and their faces; `scores` of the one behind in the middle frames."""
    face = portrait_face()
    frame = np.zeros((480, 640, 3), np.uint8)
    faces = []
    for number in range(count):
        shift = np.array([8.0 * (number - count // 2), 0])
        front = Face(face.box + np.tile(shift, 2), face.landmarks + shift, 1.0)
        middle = number - (count - len(scores)) // 2
        score = scores[middle] if 0 <= middle < len(scores) else 1.0
        behind = Face(face.box - np.tile(shift, 2), face.landmarks - shift, score)
        faces.append([front, behind] if score else [front])
    return [frame] * count, faces


@pytest.mark.parametrize(("score", "count"), [(0.9, 8), (0.0, 2)])  # doubtful, or missing and interpolated
def test_a_face_behind_another_is_left_alone(
    face_swapper: FaceSwapper,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    score: float,
    count: int,
) -> None:
    frames, faces = crossing([score] * count)
    video = probe(make_video(tmp_path / "crossing.mp4", frames))
    small = [[np.zeros((THUMBNAIL, THUMBNAIL), np.uint8)] * len(each) for each in faces]
    found = FoundFaces(faces, small, [False] * len(faces))
    monkeypatch.setattr("fsframework.inference.video.found_faces", lambda *arguments: found)
    tracks, sources = plan(face_swapper, FaceAssignment("all", face_swapper.source(somebody(), "")), video, None)
    assert sorted(sources) == [0, 1]
    hidden = [sorted(set(range(40)) - set(track.shown_frames())) for track in tracks]
    first = 20 - count // 2
    assert sorted(hidden) == [[], list(range(first, first + count))]
    assert f"faces are left alone where others hide them, from frame {first + 1} on" in capsys.readouterr().err


def test_faces_beside_each_other_are_not_hidden() -> None:
    box, points = np.array([[0.0, 0, 80, 100]]), np.ones((1, 5, 2))
    front = Track(3, box, points, np.array([1.0]))
    for left, score, is_shown in ((70, 0.9, False), (70, 0.999, True), (85, 0.9, True), (-70, 0.9, False)):
        one = Track(3, box + np.array([left, 0, left, 0]), points, np.array([score]))
        assert [each.is_shown(3) for each in without_hidden([front, one], 0.9985)] == [True, is_shown]
    later = Track(4, box, points, np.array([0.9]))
    assert [each.shown_frames() for each in without_hidden([front, later], 0.9985)] == [[3], [4]]


def test_extract_counts_faces_that_the_frame_cuts(tmp_path: Path, errors: Callable[[], list[str]]) -> None:
    encoder = part("identity-encoders", "dlib-resnet").build()
    encoder.load()
    (tmp_path / "in").mkdir()
    write_image(tmp_path / "in" / "cut.png", cut_portrait(0.5), synthetic=False)
    write_image(tmp_path / "in" / "whole.png", portrait(), synthetic=False)
    result = extract([tmp_path / "in"], tmp_path / "out", ExtractOptions(size=64), Fixed([portrait_face()]), encoder)
    assert result.faces == 1
    assert "note: 1 face is left out, as the frame shows less than 60 % of it" in errors()
