"""Interpolated frames of a track are painted only where the face is seen."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from films import make_film
from skimage import data

from fsframework.core.types import Face, FaceBatch
from fsframework.faces.gaps import frames_of_gaps, gaps, without_unseen
from fsframework.faces.track import Track, thumbnail, track
from fsframework.inference.assignment import FaceAssignment
from fsframework.inference.face_swapper import SourceIdentity
from fsframework.inference.video import plan
from fsframework.inference.video_faces import FoundFaces
from fsframework.media.video_io import probe

RATE = 25
COUNT = 20
GAP = range(7, 13)
STEP = 3  # pixels by which the head moves from frame to frame
BOX = np.array([60, 30, 140, 140], float)
POINTS = np.array([[78, 75], [117, 74], [98, 97], [82, 116], [115, 115]], float)  # of the portrait
ROOM = cv2.resize(data.coffee(), (320, 200))


def face_at(number: int) -> Face:
    shift = np.array([STEP * number, 0])
    return Face(BOX + np.tile(shift, 2), POINTS + shift, 0.99)


def frame_of(number: int, person: np.ndarray | None) -> np.ndarray:
    """Return a room (200, 320, 3) with a picture of a person, if any."""
    frame = ROOM.copy()
    if person is not None:
        frame[:, STEP * number : STEP * number + 200] = person
    return frame


def portrait() -> np.ndarray:
    return np.ascontiguousarray(data.astronaut()[:200, 125:325])


def blurred() -> np.ndarray:
    """Return the portrait, blurred by half a face's width."""
    return cv2.blur(portrait(), (41, 5))


def covered() -> np.ndarray:
    """Return the portrait behind a sheet of paper."""
    person = portrait()
    person[:, 40:160] = np.linspace(230, 180, 200)[:, None, None]
    return person


PEOPLE: list[tuple[np.ndarray | None, bool]] = [
    (portrait(), True),
    (blurred(), True),
    (np.clip(portrait() * 0.4, 0, 255).astype(np.uint8), True),
]
PEOPLE += [(covered(), False), (None, False)]
NAMES = ["not detected", "blurred", "dark", "covered", "absent"]


@pytest.mark.parametrize(("person", "is_seen"), PEOPLE, ids=NAMES)
def test_a_blink_of_the_detector_is_bridged_and_an_absent_face_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, person: np.ndarray | None, is_seen: bool
) -> None:
    frames = [frame_of(number, person if number in GAP else portrait()) for number in range(COUNT)]
    faces = [[] if number in GAP else [face_at(number)] for number in range(COUNT)]
    small = [[thumbnail(frame, face) for face in each] for frame, each in zip(frames, faces, strict=True)]
    found = FoundFaces(faces, small, [False] * COUNT)
    monkeypatch.setattr("fsframework.inference.video.found_faces", lambda *arguments: found)
    identity = SimpleNamespace(metric=False)
    swapper = SimpleNamespace(detector=SimpleNamespace(certain_score=1.0), swapper=SimpleNamespace(identity=identity))
    source = SourceIdentity(FaceBatch.of(torch.zeros(1, 3, 8, 8)), torch.zeros(1, 3))
    video = probe(make_film(tmp_path / "film.mp4", frames, audio=None))
    tracks, sources = plan(swapper, FaceAssignment("largest", source), video, None)  # type: ignore[arg-type]
    assert list(sources) == [0] and len(tracks) == 1
    expected = [number for number in range(COUNT) if is_seen or number not in GAP]
    assert tracks[0].shown_frames() == expected
    assert tracks[0].cut_frames() == []


def test_each_frame_of_a_gap_is_judged_alone() -> None:
    people = [portrait()] * COUNT
    people[9] = people[10] = covered()
    (one,) = track([[] if n in GAP else [face_at(n)] for n in range(COUNT)], [False] * COUNT, RATE)
    frames = ((number, frame_of(number, people[number])) for number in frames_of_gaps([one]))
    assert without_unseen({4: one}, frames)[4].unseen == {9, 10}


def of_scores(scores: Sequence[float], start: int = 0) -> Track:
    count = len(scores)
    return Track(start, np.tile(BOX, (count, 1)), np.tile(POINTS, (count, 1, 1)), np.array(scores, float))


def test_gaps_are_runs_of_interpolated_frames() -> None:
    one, other = of_scores([1, 0, 0, 1, 1, 0, 1], start=10), of_scores([1, 1])
    assert gaps(one) == [(11, 13), (15, 16)] and gaps(other) == []
    assert frames_of_gaps([one, other]) == [10, 11, 12, 13, 14, 15, 16]
    assert frames_of_gaps([other]) == []
    assert without_unseen({0: other}, iter([]))[0].unseen == frozenset()
