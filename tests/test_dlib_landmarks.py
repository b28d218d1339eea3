"""dlib's 68 landmarks on aligned crops."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
from fsf_detectors import dlib_landmarks

from fsframework.core.components import Estimator
from fsframework.core.part import part
from fsframework.core.types import FaceBatch
from fsframework.faces.align import align, transform
from fsframework.media.tensor import to_tensor


@pytest.fixture(scope="module")
def landmarks() -> Estimator:
    built: Estimator = part("estimators", "dlib-landmarks").build()
    built.load()
    return built


@pytest.mark.parametrize("size", [64, 128, 256])
def test_they_lie_where_mtcnn_finds_eyes_nose_and_mouth(landmarks: Estimator, size: int) -> None:
    detector = part("detectors", "mtcnn").build()
    detector.load()
    frame = skimage.data.astronaut()
    crop = align(frame, detector([frame])[0][0], size)
    five = transform(crop.face.landmarks, crop.matrix)
    points = landmarks(FaceBatch.of(to_tensor(crop.image[None])))[0].numpy()
    assert points.shape == (68, 2)
    own = np.array([points[36:42].mean(axis=0), points[42:48].mean(axis=0), points[30], points[48], points[54]])
    assert np.linalg.norm(own - five, axis=1).max() < 0.05 * size


def test_a_picture_twice_as_large_has_them_at_twice_the_place(landmarks: Estimator) -> None:
    frame = skimage.data.astronaut()[10:202, 130:322]
    small, large = frame[::3, ::3], np.repeat(np.repeat(frame[::3, ::3], 4, axis=0), 4, axis=1)
    one, other = (landmarks(FaceBatch.of(to_tensor(image[None].copy())))[0].numpy() for image in (small, large))
    assert np.abs((other + 0.5) / 4 - 0.5 - one).mean() < 1


def test_without_dlib_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, expect_error: Callable[..., Any]
) -> None:
    monkeypatch.setitem(sys.modules, "dlib", None)
    with expect_error("dlib-landmarks"):
        part("estimators", "dlib-landmarks").build().load()


def test_a_changed_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expect_error: Callable[..., Any]
) -> None:
    file = tmp_path / dlib_landmarks.FILE
    file.write_bytes(b"not a predictor")
    monkeypatch.setattr(dlib_landmarks, "package_file", lambda *_: file)
    with expect_error(dlib_landmarks.FILE):
        part("estimators", "dlib-landmarks").build().load()
