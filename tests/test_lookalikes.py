"""Several faces at once that match one reference person: twins, mirrors, photographs on a wall."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from swapping import FAST_MODEL
from synthetic_video import make_video

from fsframework.data.samples import portrait, portrait_face, somebody
from fsframework.inference.assignment import FaceAssignment, IdentityMapping
from fsframework.inference.face_swapper import FaceSwapper
from fsframework.inference.video import plan
from fsframework.media.video_io import probe

HEAD = np.ascontiguousarray(portrait()[:260, 90:350])


@pytest.fixture(scope="module")
def face_swapper() -> FaceSwapper:
    return FaceSwapper(FAST_MODEL, "cpu")


@pytest.fixture
def reference(face_swapper: FaceSwapper) -> FaceAssignment:
    """Return the assignment of somebody's face to the portrait's person."""
    z_id = face_swapper.embed(portrait(), [portrait_face()])
    return FaceAssignment(
        people=[IdentityMapping(z_id, face_swapper.source(somebody(), "source"), 0.5, "reference.png")]
    )


@pytest.mark.parametrize("second", [HEAD, HEAD[:, ::-1]], ids=["twins", "mirror"])
def test_one_of_two_is_swapped_in_a_picture_and_said(
    face_swapper: FaceSwapper,
    reference: FaceAssignment,
    second: np.ndarray,
    capsys: pytest.CaptureFixture[str],
    check_message: Callable[..., None],
) -> None:
    frame = np.ascontiguousarray(np.concatenate([HEAD, second], axis=1))
    swaps = reference.of_faces(face_swapper, frame, face_swapper.find(frame, "two.png"), "two.png")
    assert len(swaps) == 1
    check_message(capsys.readouterr().err)
    frame = np.concatenate([HEAD, np.full_like(HEAD, 90)], axis=1)
    assert len(reference.of_faces(face_swapper, frame, face_swapper.find(frame, "one.png"), "one.png")) == 1
    assert not capsys.readouterr().err


def test_one_of_two_is_swapped_in_a_film_and_said(
    face_swapper: FaceSwapper, reference: FaceAssignment, tmp_path: Path, errors: Callable[[], list[str]]
) -> None:
    """A person moves in front of their photograph on the wall."""
    frames = []
    for number in range(20):
        frame = np.full((300, 640, 3), 90, np.uint8)
        frame[10:270, 20:280] = HEAD
        frame[20:280, 330 + number : 590 + number] = HEAD
        frames.append(frame)
    video = probe(make_video(tmp_path / "wall.mp4", frames, sound=False))
    tracks, sources = plan(face_swapper, reference, video, None)
    assert len(tracks) == 2 and len(sources) == 1
    said = "several faces at once match reference.png; only the most similar is swapped"
    assert errors() == [f"note: {tmp_path / 'wall.mp4'}: {said}"]
