"""Faces of videos: kept when the search is interrupted, and found anew where the file is of no use."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from films import make_film, pictures

from fsframework.core.components import ComponentOptions, Detector
from fsframework.core.types import Face
from fsframework.faces.detect_video import EVERY
from fsframework.inference import video_faces
from fsframework.inference.video_faces import FILE, FoundFaces, found_faces
from fsframework.media.video_io import Video, probe

COUNT = 53


class Bar(Detector):
    """Find one face in whole frames, at the place of their brightest column, and stop after some frames."""

    def __init__(self, stop: int | None = None) -> None:
        super().__init__(ComponentOptions())
        self.left = stop
        self.frames = 0

    def forward(self, frames: list[np.ndarray]) -> list[list[Face]]:
        return [self._found(frame) for frame in frames]

    def _found(self, frame: np.ndarray) -> list[Face]:
        if frame.shape[:2] != (48, 64):
            return []
        self.frames += 1
        if self.left is not None and self.frames > self.left:
            raise KeyboardInterrupt
        x = float(frame.astype(float).mean(axis=(0, 2)).argmax())
        box = np.array([x, 8, x + 20, 28])
        points = box[:2] + 20 * np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.33, 0.8], [0.67, 0.8]])
        return [Face(box, points, 0.9)]


@pytest.fixture
def film(tmp_path: Path) -> Video:
    return probe(make_film(tmp_path / "film.mp4", pictures(COUNT), audio=None))


def listed(found: FoundFaces) -> list[Any]:
    """Return the results of a search in a form that can be compared."""
    faces = [[(each.box.tolist(), each.landmarks.tolist(), each.score) for each in one] for one in found.detections]
    thumbnails = [[each.tolist() for each in one] for one in found.thumbnails]
    return [faces, thumbnails, found.cuts, found.state.frame, found.state.doubtful]


def test_an_interrupted_search_goes_on(film: Video, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_faces, "SAVE", 0.0)
    whole = found_faces(Bar(), film, None, "")
    assert [len(faces) for faces in whole.detections] == [1] * COUNT
    with pytest.raises(KeyboardInterrupt):
        found_faces(Bar(stop=45), film, tmp_path, "abc")
    begun = FoundFaces.read(tmp_path / FILE, video_faces.detector_key(Bar(), "abc"))
    assert begun is not None and len(begun.detections) == begun.state.frame == 2 * EVERY
    again = Bar()
    assert listed(found_faces(again, film, tmp_path, "abc")) == listed(whole)
    assert again.frames == COUNT - 1 - 2 * EVERY  # nothing before, and not again the frame that was searched whole
    kept = Bar(stop=0)
    assert listed(found_faces(kept, film, tmp_path, "abc")) == listed(whole)


@pytest.mark.parametrize("damage", ["text", "cut", "other", "shape"])
def test_faces_are_found_anew_where_the_file_is_of_no_use(
    film: Video, tmp_path: Path, damage: str, errors: Callable[[], list[str]], check_message: Callable[..., None]
) -> None:
    whole = listed(found_faces(Bar(), film, tmp_path, "abc"))
    errors()
    file = tmp_path / FILE
    if damage == "text":
        file.write_text("no archive")
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    elif damage == "shape":
        with np.load(file) as arrays:
            content = dict(arrays)
        np.savez(file, **{**content, "faces": content["faces"][:, :9]})
    assert listed(found_faces(Bar(), film, tmp_path, "of another" if damage == "other" else "abc")) == whole
    check_message("\n".join(errors()))


def test_the_key_depends_on_target_and_detector() -> None:
    class Option(ComponentOptions):
        width: int = 3

    one, other = Bar(), Bar()
    other.options = Option()
    keys = {
        video_faces.detector_key(one, "a"),
        video_faces.detector_key(one, "b"),
        video_faces.detector_key(other, "a"),
    }
    assert len(keys) == 3
