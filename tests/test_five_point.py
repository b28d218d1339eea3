"""68 landmarks from the detector's five."""

import numpy as np
import pytest
import torch
from fsf_detectors.five_point import FivePointLandmarks
from fsf_detectors.learn_five_point import mirror_order, overlaps, regression
from fsf_graphics.head_model import shipped
from fsf_graphics.learn_head import MIRROR

from fsframework.core.part import part
from fsframework.core.types import FaceBatch
from fsframework.data.samples import SIZE, FewFaces
from fsframework.faces.align import TEMPLATE, template


@pytest.fixture(scope="module")
def estimator() -> FivePointLandmarks:
    built: FivePointLandmarks = part("estimators", "five-point-landmarks").build()
    built.load()
    return built


def batch(five: np.ndarray, size: int) -> FaceBatch:
    return FaceBatch.of(torch.zeros(len(five), 3, size, size), torch.from_numpy(five).float())


def test_hulls_overlap_with_those_of_dlibs_landmarks(estimator: FivePointLandmarks) -> None:
    """The portrait in several poses of the crop; on LFW's held-out people the mean is 0.91."""
    faces = FewFaces(SIZE)
    finder = part("estimators", "dlib-landmarks").build()
    finder.load()
    samples = [faces[index] for index in range(len(faces))]
    found = estimator(batch(np.stack([sample.landmarks for sample in samples]), SIZE)).double().numpy()
    values = overlaps(found, np.stack([finder.landmarks(sample.image) for sample in samples]), SIZE)
    assert len(values) > 3 and values.min() > 0.8, values


def test_landmarks_scale_with_the_crop_and_mirror_with_the_face(estimator: FivePointLandmarks) -> None:
    five = template(64) + np.random.default_rng(0).normal(0, 1.5, (3, 5, 2))
    small, large = (estimator(batch((five + 0.5) * factor - 0.5, 64 * factor)) for factor in (1, 4))
    torch.testing.assert_close((small + 0.5) * 4, large + 0.5)
    mirrored = estimator(batch((five * [-1, 1] + [63, 0])[:, [1, 0, 2, 4, 3]], 64)).numpy()
    np.testing.assert_allclose(mirrored[:, MIRROR] * [-1, 1] + [63, 0], small.numpy(), atol=1e-3)


def test_a_turned_head_moves_the_outline(estimator: FivePointLandmarks) -> None:
    """A nose to the viewer's right leaves more cheek on the left."""
    turned = template(128).copy()
    turned[2, 0] += 6
    front, side = estimator(batch(np.stack([template(128), turned]), 128)).numpy()
    widths = [(points[30, 0] - points[2, 0], points[14, 0] - points[30, 0]) for points in (front, side)]
    assert widths[1][0] > widths[0][0] + 3 and widths[1][1] < widths[0][1] - 3


def test_unknown_landmarks_stay_unknown(estimator: FivePointLandmarks) -> None:
    five = np.stack([template(64), np.full((5, 2), np.nan)])
    found = estimator(batch(five, 64))
    assert found[0].isfinite().all() and found[1].isnan().all()


def test_regression_finds_a_known_symmetric_map() -> None:
    rng = np.random.default_rng(1)
    mean = shipped().mean[:, :2] * 0.3 + [0.5, 0.6]
    five = TEMPLATE + rng.normal(0, 0.02, (500, 5, 2))
    shift = (five - TEMPLATE).mean(axis=1, keepdims=True) * 0.7
    landmarks = mean + shift + 0.2 * (five[:, 2:3] - TEMPLATE[2])
    found, slopes = regression(five, landmarks)
    made = found + ((five - TEMPLATE).reshape(500, 10) @ slopes).reshape(500, 68, 2)
    assert np.abs(made - landmarks).max() < 0.01  # the template is a little off the middle, and the ridge
    np.testing.assert_array_equal(mirror_order(landmarks), MIRROR)


def test_landmarks_without_symmetry_are_refused() -> None:
    with pytest.raises(ValueError, match="not symmetric"):
        mirror_order(np.random.default_rng(0).random((1, 68, 2)))
