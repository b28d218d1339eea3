"""Whole-head crops and the way back."""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from skimage import data
from skimage.transform import SimilarityTransform
from torch import Tensor
from torch.nn import functional

from fsframework.core.types import Face
from fsframework.faces.align import (
    _resample,
    align,
    crop_box,
    crop_side,
    fit_similarity,
    invert,
    resampling_matrix,
    template,
    transform,
    warp,
)
from fsframework.faces.paste import paste, paste_into, soft_mask

LANDMARKS = np.array([[205.0, 101.7], [246.8, 103.7], [224.7, 129.0], [201.7, 139.2], [245.3, 141.9]])


def similarity(scale: float, degrees: float, shift: tuple[float, float]) -> np.ndarray:
    angle = np.deg2rad(degrees)
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.column_stack([linear, shift])


def about(scale: float, degrees: float, centre: tuple[float, float], size: int) -> np.ndarray:
    """The similarity that shows a point of the frame in the middle of the crop."""
    matrix = similarity(scale, degrees, (0, 0))
    matrix[:, 2] = (size - 1) / 2 - matrix[:, :2] @ np.array(centre)
    return matrix


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    return data.astronaut()


@pytest.mark.parametrize("size", [1, 64, 300])
def test_crop_side_is_the_size_by_the_scale(size: int) -> None:
    fitted = SimilarityTransform.from_estimate(LANDMARKS, template(size))
    side = crop_side(Face(np.zeros(4), LANDMARKS, 1.0))
    assert side == pytest.approx(size / fitted.scale) and 100 < side < 250


def test_fit_similarity_finds_a_known_matrix() -> None:
    matrix = similarity(0.37, 28, (-12.5, 80.25))
    np.testing.assert_allclose(fit_similarity(LANDMARKS, transform(LANDMARKS, matrix)), matrix, atol=1e-9)


def test_fit_similarity_equals_least_squares_and_umeyama() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        points, goals = rng.normal(size=(5, 2)) * 40, rng.normal(size=(5, 2)) * 9
        (x, y), one, zero = points.T, np.ones(5), np.zeros(5)
        system = np.concatenate([np.stack([x, -y, one, zero], 1), np.stack([y, x, zero, one], 1)])
        a, b, right, down = np.linalg.lstsq(system, goals.T.ravel(), rcond=None)[0]
        found = fit_similarity(points, goals)
        np.testing.assert_allclose(found, [[a, -b, right], [b, a, down]], atol=1e-9)
    noisy = template(64) + rng.normal(size=(5, 2))
    expected = SimilarityTransform.from_estimate(LANDMARKS, noisy).params[:2]  # Umeyama's closed form
    np.testing.assert_allclose(fit_similarity(LANDMARKS, noisy), expected, atol=1e-9)


def test_fit_similarity_never_mirrors() -> None:
    mirrored = LANDMARKS * [-1, 1]
    assert np.linalg.det(fit_similarity(LANDMARKS, mirrored)[:, :2]) > 0


def test_fit_similarity_refuses_one_point(expect_error: Callable[..., Any]) -> None:
    with expect_error("the points", kind=ValueError):
        fit_similarity(np.ones((5, 2)), template(64))


def test_invert_goes_back() -> None:
    matrix = similarity(2.3, -50, (7, -9))
    np.testing.assert_allclose(transform(transform(LANDMARKS, matrix), invert(matrix)), LANDMARKS, atol=1e-9)


@pytest.mark.parametrize("size", [48, 64, 128])
def test_align_puts_the_landmarks_on_the_template(size: int) -> None:
    landmarks = transform(template(64), similarity(1.9, 20, (90, 30)))
    frame = np.full((256, 256, 3), 20, np.uint8)
    for x, y in landmarks:
        cv2.circle(frame, (round(x), round(y)), 3, (255, 255, 255), cv2.FILLED)
    face = Face(box=np.array([60, 30, 200, 200]), landmarks=landmarks, score=1.0)
    crop = align(frame, face, size)
    assert crop.image.shape == (size, size, 3) and crop.image.dtype == np.uint8 and crop.face is face
    np.testing.assert_allclose(transform(landmarks, crop.matrix), template(size), atol=1e-6)
    count, _, _, centres = cv2.connectedComponentsWithStats((crop.image[..., 0] > 110).astype(np.uint8))
    assert count == 6
    found = centres[1:][np.lexsort((centres[1:, 0], centres[1:, 1].round(-1)))]
    goals = template(size)[np.lexsort((template(size)[:, 0], template(size)[:, 1].round(-1)))]
    assert np.abs(found - goals).max() < 1.0


def test_warp_with_the_identity_changes_nothing(astronaut: np.ndarray) -> None:
    assert (warp(astronaut, np.eye(2, 3), 512) == astronaut).all()


def test_warp_moves_by_whole_pixels_and_repeats_the_edge(astronaut: np.ndarray) -> None:
    crop = warp(astronaut, similarity(1, 0, (5, -3)), 64)
    assert (crop[:, 5:] == astronaut[3:67, :59]).all()
    assert (crop[:, :5] == astronaut[3:67, :1]).all()


@pytest.mark.parametrize("factor", [2, 3, 8])
def test_warp_averages_where_it_shrinks(astronaut: np.ndarray, factor: int) -> None:
    size = 512 // factor
    matrix = np.array([[1 / factor, 0, (1 / factor - 1) / 2], [0, 1 / factor, (1 / factor - 1) / 2]])
    blocks = astronaut[: size * factor, : size * factor].reshape(size, factor, size, factor, 3).astype(float)
    assert np.abs(warp(astronaut, matrix, size) - blocks.mean(axis=(1, 3))).max() <= 1


@pytest.mark.parametrize("degrees", [0, 30])
@pytest.mark.parametrize("scale", [0.7, 0.51, 0.3, 0.13, 0.03])
def test_warp_shrinks_without_aliasing(scale: float, degrees: float) -> None:
    """A fine grating that the crop cannot hold becomes grey; a coarse one stays."""
    size, side = 32, 1400
    x = np.arange(side)
    matrix = about(scale, degrees, (side / 2, side / 2), size)
    contrast = []
    for cycles_per_crop_pixel in (0.7, 0.25):
        wave = 127.5 + 100 * np.cos(2 * np.pi * cycles_per_crop_pixel * scale * x)
        frame = np.broadcast_to(np.rint(wave).astype(np.uint8)[None, :, None], (side, side, 3))
        contrast.append(warp(np.ascontiguousarray(frame), matrix, size).std() / (100 / np.sqrt(2)))
    # Means over a pixel's width leave sinc(0.7) = 0.37 and sinc(0.25) = 0.90.
    assert contrast[0] < 0.45 and contrast[1] > 0.75


@pytest.mark.parametrize("scale", [0.2, 0.45, 1.0, 2.5])
@pytest.mark.parametrize("degrees", [0, -17])
def test_align_and_paste_change_almost_nothing(astronaut: np.ndarray, scale: float, degrees: float) -> None:
    """Of a frame without detail that is finer than the crop's pixels."""
    size, matrix = 128, about(scale, degrees, (224, 120), 128)
    frame = cv2.GaussianBlur(astronaut, (0, 0), 4 / min(scale, 1))
    change = np.abs(paste(frame, warp(frame, matrix, size), matrix, soft_mask(size)).astype(int) - frame)
    inside = paste(np.zeros_like(frame), np.full((size, size, 3), 255, np.uint8), matrix, soft_mask(size)) > 0
    assert change[~inside].max() == 0
    assert np.quantile(change[inside], 0.99) < 2 and change.max() <= 2


@pytest.mark.parametrize("scale", [0.2, 1.0, 2.5])
def test_paste_touches_only_the_mask(astronaut: np.ndarray, scale: float) -> None:
    size = 64
    matrix = about(scale, 25, (224, 120), size)
    before = astronaut.copy()
    after = paste(astronaut, np.zeros((size, size, 3), np.uint8), matrix, soft_mask(size))
    y, x = np.mgrid[:512, :512]
    where = transform(np.stack([x.ravel(), y.ravel()], 1).astype(float), matrix)
    x_in_crop, y_in_crop = where.T.reshape(2, 512, 512).astype(np.float32)
    mask = cv2.remap(soft_mask(size), x_in_crop, y_in_crop, cv2.INTER_LINEAR)
    outside = cv2.dilate(mask, np.ones((3, 3))) == 0
    assert (astronaut == before).all()  # the frame itself is left alone
    assert (after[outside] == astronaut[outside]).all()
    assert after[cv2.erode(mask, np.ones((3, 3))) == 1].max() == 0
    assert np.abs(after - (1 - mask[..., None]) * astronaut).mean() < 0.5


def test_paste_averages_where_it_shrinks() -> None:
    """A chequered crop of which several pixels fall on one of the frame becomes grey."""
    size = 240
    crop = np.repeat((np.indices((size, size)).sum(0) % 2 * 255).astype(np.uint8)[..., None], 3, axis=2)
    after = paste(np.zeros((60, 60, 3), np.uint8), crop, about(4.0, 10, (30, 30), size), np.ones((size, size)))
    assert np.abs(after[15:45, 15:45].astype(int) - 127).max() < 12


@pytest.mark.parametrize(
    ("centre", "seen"),
    [((0, 0), True), ((511, 300), True), ((250, 530), True), ((2000, 2000), False), ((-900, 100), False)],
)
def test_paste_at_and_beyond_the_frame(astronaut: np.ndarray, centre: tuple[float, float], seen: bool) -> None:
    matrix = about(0.5, 15, centre, 64)
    crop = warp(astronaut, matrix, 64)
    assert crop.shape == (64, 64, 3)
    after = paste(astronaut, 255 - crop, matrix, soft_mask(64))
    assert after.shape == astronaut.shape and (after != astronaut).any() == seen


def pasted_onto_a_copy(frame: np.ndarray, crop: np.ndarray, matrix: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Paste as the formula says: a weighted mean of two whole frames, where the crop's corners reach."""
    height, width = frame.shape[:2]
    size = len(crop)
    square = np.array([[0, 0], [size, 0], [0, size], [size, size]], dtype=np.float64)
    corners = transform(square, invert(matrix))
    left, top = np.maximum(np.floor(corners.min(axis=0)), 0).astype(int)
    right, bottom = np.minimum(np.ceil(corners.max(axis=0)) + 1, [width, height]).astype(int)
    if right <= left or bottom <= top:
        return frame.copy()
    back = invert(matrix)
    back[:, 2] -= [left, top]
    where = (slice(top, bottom), slice(left, right))
    shape = (int(right - left), int(bottom - top))
    alpha, colour = np.zeros((height, width, 1), np.float32), np.zeros(frame.shape, np.float32)
    alpha[where] = _resample(mask.astype(np.float32), back, shape, cv2.BORDER_CONSTANT).clip(0, 1)[..., None]
    colour[where] = _resample(crop, back, shape, cv2.BORDER_REPLICATE)
    return np.rint(alpha * colour + (1 - alpha) * frame).astype(np.uint8)


@pytest.mark.parametrize("seed", range(4))
def test_faces_that_overlap_are_pasted_into_one_copy_as_into_a_copy_each(seed: int) -> None:
    rng = np.random.default_rng(seed)
    frame = rng.integers(0, 256, (150, 200, 3), dtype=np.uint8)
    before = frame.copy()
    expected, result = frame, frame.copy()
    for number in range(6):
        size = int(rng.choice([32, 64]))
        centre = (float(rng.uniform(-30, 230)), float(rng.uniform(-30, 180)))
        matrix = about(float(rng.uniform(0.3, 3)), float(rng.uniform(0, 360)), centre, size)
        crop = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
        mask = soft_mask(size) if number % 2 else rng.random((size, size))
        alone = paste(result, crop, matrix, mask)
        expected = pasted_onto_a_copy(expected, crop, matrix, mask)
        paste_into(result, crop, matrix, mask)
        assert (alone == result).all()
        # OpenCV rounds coordinates to 1/32 pixel, which depends on the rectangle that is resampled.
        difference = np.abs(result.astype(int) - expected)
        assert difference.max() <= 8 and (difference > 0).mean() < 1e-3
        expected = result.copy()
    assert (result != before).any() and (frame == before).all()


@pytest.mark.parametrize("size", [32, 64, 256])
def test_soft_mask_covers_the_face_and_ends_inside(size: int) -> None:
    mask = soft_mask(size)
    assert mask.shape == (size, size) and mask.dtype == np.float32
    assert mask[0].max() == mask[-1].max() == mask[:, 0].max() == mask[:, -1].max() == 0
    assert mask.min() == 0 and mask.max() == 1
    columns, rows = np.rint(template(size)).astype(int).T
    assert mask[rows, columns].min() > 0.95
    assert np.abs(np.diff(mask, axis=1)).max() < 20 / size  # 1.5 / (0.25 * 0.33) = 18 at the steepest


@pytest.mark.parametrize("box", [(0.0, 0.0, 1.0), (0.2, 0.31, 0.5), (-0.2, 0.3, 0.9), (0.6, 0.6, 0.7)])
def test_crop_box_equals_grid_sample(box: tuple[float, float, float]) -> None:
    torch.manual_seed(0)
    images, (height, width) = torch.rand(2, 3, 20, 20), (30, 24)
    left, top, extent = box
    x = (left + (torch.arange(width) + 0.5) / width * extent) * 2 - 1
    y = (top + (torch.arange(height) + 0.5) / height * extent * height / width) * 2 - 1
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).expand(2, -1, -1, -1)
    expected = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    torch.testing.assert_close(crop_box(images, box, (height, width)), expected, atol=1e-5, rtol=0)
    drawn = torch.tensor(box).unbind()  # scalars on the images' device
    torch.testing.assert_close(crop_box(images, drawn, (height, width)), expected, atol=1e-5, rtol=0)
    small = crop_box(images, box, (7, 6))
    torch.testing.assert_close(crop_box(images, drawn, (7, 6)), small, atol=1e-5, rtol=0)


def test_crop_box_averages_where_it_shrinks() -> None:
    torch.manual_seed(0)
    images = torch.rand(2, 3, 40, 40)
    expected = functional.interpolate(images, size=(13, 13), mode="bilinear", antialias=True)
    inner = crop_box(images, (0.0, 0.0, 1.0), (13, 13))[..., 1:-1, 1:-1]
    torch.testing.assert_close(inner, expected[..., 1:-1, 1:-1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(6, 5), (3, 3)])
def test_crop_box_has_right_gradients(size: tuple[int, int]) -> None:
    torch.manual_seed(0)

    def crop(images: Tensor) -> Tensor:
        return crop_box(images, (0.1, 0.25, 0.6), size)

    assert torch.autograd.gradcheck(crop, (torch.rand(1, 2, 8, 8, dtype=torch.float64, requires_grad=True),))


def test_resampling_keeps_a_constant() -> None:
    sums = resampling_matrix(-3.0, 31.0, 17, 9).sum(dim=1)
    torch.testing.assert_close(sums, torch.ones(9))
