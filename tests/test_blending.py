"""Masks and blending: where the face is taken from, and that nothing else changes."""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from fsf_blending.blend import Blend
from fsf_blending.hull_mask import HullMask
from torch import Tensor

from fsframework.core.components import ComponentOptions, Estimator, Generator, IdentityEncoder
from fsframework.core.part import Part, part
from fsframework.core.swapper import Swapper
from fsframework.core.types import FaceBatch, SwapBatch, SwapResult
from fsframework.faces.align import align
from fsframework.faces.color_transfer import poisson_blend, reinhard_transfer
from fsframework.media.tensor import to_images, to_tensor

SIZE = 64
SWAPPER = Swapper(IdentityEncoder(ComponentOptions()), generator=Generator(ComponentOptions(), SIZE, 8, []))


class Composing(Generator):
    """A generator whose mask the swapper applies."""

    composes = True


@pytest.fixture(scope="module")
def head() -> np.ndarray:
    """The astronaut's aligned crop."""
    detector = part("detectors", "mtcnn").build()
    detector.load()
    frame = skimage.data.astronaut()
    return align(frame, detector([frame])[0][0], SIZE).image


@pytest.fixture(scope="module")
def hull() -> HullMask:
    built: HullMask = part("estimators", "hull-mask").build()
    built.load()
    return built


def blend(mask: str | None = "hull-mask", **options: Any) -> Blend:
    named = None if mask is None else {"use": mask}
    built: Blend = part("refiners", "blend", mask=named, **options).build(SIZE)
    built.load()
    return built


def painted(image: Tensor, target: np.ndarray, mask: Tensor | None = None) -> tuple[SwapResult, SwapBatch, Swapper]:
    faces = FaceBatch.of(to_tensor(target[None]))
    result = SwapResult(image, image, torch.zeros(1, 8), mask=mask)
    return result, SwapBatch.of(faces, faces), SWAPPER


def test_the_hull_holds_the_face_and_some_forehead(hull: HullMask, head: np.ndarray) -> None:
    faces = FaceBatch.of(to_tensor(head[None]))
    points = hull.landmarks(faces)[0].numpy()
    mask = hull(faces)[0, 0].numpy()
    assert mask.shape == (SIZE, SIZE) and mask.min() >= 0 and mask.max() <= 1
    inner = points[27:68].round().astype(int)  # nose, eyes, lips
    assert mask[inner[:, 1], inner[:, 0]].min() > 0.8
    brow = int(points[17:27, 1].min())
    assert mask[brow - 4, int(points[27, 0])] > 0.5 > mask[4, 4]
    without: HullMask = part("estimators", "hull-mask", forehead=0, soft=0).build()
    without.load()
    assert without(faces).sum() < mask.sum()
    assert set(np.unique(without(faces).numpy())) <= set(np.linspace(0, 1, 256, dtype=np.float32)) | {0.0, 1.0}


def test_shrinking_cuts_the_border_off(head: np.ndarray) -> None:
    areas = []
    for shrink in (0.0, 0.05):
        built: HullMask = part("estimators", "hull-mask", shrink=shrink, soft=0).build()
        built.load()
        areas.append(float(built(FaceBatch.of(to_tensor(head[None]))).sum()))
    assert 0.5 < areas[1] / areas[0] < 0.85


def test_the_hull_of_landmarks_by_hand() -> None:
    built = HullMask(HullMask.Options(soft=0, forehead=0))
    points = np.tile([[20.0, 20.0]], (68, 1))
    points[:4] = [[20, 20], [40, 20], [40, 50], [20, 50]]
    mask = built.mask(points, SIZE)
    assert mask[35, 30] == 1 and mask[35, 20] == 1 and mask[35, 44] == 0 and mask[15, 30] == 0
    assert np.isnan(built.mask(points * np.nan, SIZE)).all()


def test_only_landmarks_make_a_hull(expect_error: Callable[..., Any]) -> None:
    with expect_error("landmarks: ", ValueError):
        part("estimators", "hull-mask", landmarks={"use": "pnp"}).build()
    with expect_error("mask: ", ValueError):
        part("refiners", "blend", mask={"use": "dlib-landmarks"}).build(SIZE)


def test_the_target_stays_outside_the_mask(hull: HullMask, head: np.ndarray) -> None:
    target = to_tensor(head[None])
    image = blend()(*painted(-target, head))
    mask = hull(FaceBatch.of(target))
    torch.testing.assert_close(image, mask * -target + (1 - mask) * target)
    outside = (mask == 0).expand_as(image)
    assert torch.equal(image[outside], target[outside]) and outside.float().mean() > 0.3


def test_the_generators_own_mask_passes_gradients(head: np.ndarray) -> None:
    image = torch.zeros(1, 3, SIZE, SIZE, requires_grad=True)
    mask = torch.full((1, 1, SIZE, SIZE), 0.25, requires_grad=True)
    made = blend(None)(*painted(image, head, mask))
    torch.testing.assert_close(made, 0.75 * to_tensor(head[None]))
    made.sum().backward()
    assert image.grad is not None and mask.grad is not None
    torch.testing.assert_close(image.grad, torch.full_like(image, 0.25))
    assert mask.grad.abs().sum() > 0


def test_both_masks_are_multiplied(hull: HullMask, head: np.ndarray) -> None:
    target, half = to_tensor(head[None]), torch.full((1, 1, SIZE, SIZE), 0.5)
    made = blend()(*painted(-target, head, half))
    mask = 0.5 * hull(FaceBatch.of(target))
    torch.testing.assert_close(made, mask * -target + (1 - mask) * target)


def test_without_any_mask_it_says_what_to_do(head: np.ndarray, expect_error: Callable[..., Any]) -> None:
    with expect_error(kind=ValueError):
        blend(None)(*painted(to_tensor(head[None]), head))


def test_a_mask_that_is_applied_already_is_not_applied_again(
    hull: HullMask, head: np.ndarray, expect_error: Callable[..., Any]
) -> None:
    target, half = to_tensor(head[None]), torch.full((1, 1, SIZE, SIZE), 0.5)
    result, batch, _ = painted(-target, head, half)
    swapper = Swapper(SWAPPER.identity, generator=Composing(ComponentOptions(), SIZE, 8, []))
    mask = hull(FaceBatch.of(target))
    torch.testing.assert_close(blend()(result, batch, swapper), mask * -target + (1 - mask) * target)
    with expect_error(kind=ValueError):
        blend(None)(result, batch, swapper)


class Blind(Estimator):
    """Finds no mask."""

    name = "blind"
    quantity = "mask"

    def forward(self, faces: FaceBatch) -> Tensor:
        return torch.full_like(faces.image[:, :1], torch.nan)


def test_where_no_face_is_found_the_target_is_returned(head: np.ndarray) -> None:
    built = blend(None)
    built.mask = Blind(ComponentOptions())
    made = built(*painted(torch.zeros(1, 3, SIZE, SIZE), head))
    torch.testing.assert_close(made, to_tensor(head[None]))


def test_colours_are_matched_inside_the_mask(hull: HullMask, head: np.ndarray) -> None:
    dark = (head * 0.4).astype(np.uint8)
    mask = hull(FaceBatch.of(to_tensor(head[None])))[0, 0].numpy()
    matched = reinhard_transfer(dark, head, mask)
    inside = mask > 0.5
    for channel in range(3):
        assert abs(matched[inside][:, channel].mean() - head[inside][:, channel].mean()) < 3
    assert abs(dark[inside].mean() - head[inside].mean()) > 30
    made = to_images(blend(colour="mean-std")(*painted(to_tensor(dark[None]), head)))[0]
    assert np.abs(made.astype(int) - head)[inside].mean() < 6
    np.testing.assert_array_equal(reinhard_transfer(dark, head, np.zeros_like(mask)), dark)


def test_poisson_takes_gradients_and_keeps_the_place(head: np.ndarray) -> None:
    mask = np.zeros((SIZE, SIZE), np.float32)
    mask[20:50, 17:48] = 1
    lighter = np.clip(head.astype(int) + 40, 0, 255).astype(np.uint8)
    shifted = np.clip(head.astype(int), 0, 215)
    made = poisson_blend((shifted + 40).astype(np.uint8), shifted.astype(np.uint8), mask)
    assert np.abs(made.astype(int) - shifted).max() <= 4  # the same gradients, so the same picture: nothing moved
    np.testing.assert_array_equal(made[mask == 0], shifted[mask == 0])
    whole = poisson_blend(lighter, head, np.ones((SIZE, SIZE), np.float32))
    np.testing.assert_array_equal(whole[0], head[0])
    np.testing.assert_array_equal(poisson_blend(lighter, head, mask * 0), head)


@pytest.mark.parametrize("colour", ["none", "mean-std"])
@pytest.mark.parametrize("poisson", [False, True])
def test_outside_the_mask_every_mode_keeps_the_target_to_the_bit(
    hull: HullMask, head: np.ndarray, colour: str, poisson: bool
) -> None:
    target = to_tensor(head[None])
    outside = (hull(FaceBatch.of(target)) == 0).expand_as(target)
    made = blend(colour=colour, poisson=poisson)(*painted(-target, head))
    assert torch.equal(made[outside], target[outside])
    assert (made - target)[~outside].abs().mean() > 0.01


@pytest.mark.parametrize("seed", range(4))
def test_poisson_changes_nothing_beside_a_mask_of_any_form(seed: int) -> None:
    random = np.random.default_rng(seed)
    image, target = random.integers(0, 256, (2, SIZE, SIZE, 3), dtype=np.uint8)
    mask = (cv2.GaussianBlur(random.random((SIZE, SIZE)), (0, 0), 4) > 0.5).astype(np.float32)
    given = mask.copy()
    made = poisson_blend(image, target, mask)
    np.testing.assert_array_equal(mask, given)
    np.testing.assert_array_equal(made[mask == 0], target[mask == 0])
    assert np.abs(made.astype(int) - target)[mask == 1].mean() > 5


def test_refiners_build_and_run_on_the_meta_device() -> None:
    with torch.device("meta"):
        built = Blend(Blend.Options(mask=Part("estimators", "hull-mask", HullMask.Options())), SIZE)
        faces = FaceBatch.of(torch.empty(2, 3, SIZE, SIZE))
        image = torch.empty(2, 3, SIZE, SIZE)
        made = built(SwapResult(image, image, torch.empty(2, 8)), SwapBatch.of(faces, faces), SWAPPER)
    assert made.shape == image.shape and made.is_meta
