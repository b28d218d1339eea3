"""Drawn occluders: what they look like, where they lie, and how they are laid over a face."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import skimage.data
from fsf_occluders.composite import (
    KINDS,
    LARGEST,
    Occluder,
    composite,
    draw_occluder,
    face_region,
    match_colours,
    place,
    trimmed,
)

from fsframework.faces.align import invert, template, transform

SIZE = 64


@pytest.fixture(scope="module")
def face() -> np.ndarray:
    """The astronaut's head (64, 64, 3)."""
    return np.ascontiguousarray(skimage.data.astronaut()[20:212:3, 128:320:3])


def square(side: int = 20, alpha: int = 255) -> np.ndarray:
    """A picture whose middle is a red square with this alpha."""
    rgba = np.zeros((side, side, 4), np.uint8)
    rgba[5:-5, 5:-5] = (200, 10, 10, alpha)
    return rgba


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_always_draws_the_same(kind: str) -> None:
    first, again, other = (draw_occluder(kind, np.random.default_rng(seed), SIZE) for seed in (3, 3, 4))
    assert np.array_equal(first.rgba, again.rgba)
    assert np.array_equal(first.anchor, again.anchor)
    assert first.rgba.shape != other.rgba.shape or not np.array_equal(first.rgba, other.rgba)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_covers_a_fair_part_of_the_face(kind: str) -> None:
    covered = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        occluder = draw_occluder(kind, rng, SIZE)
        matrix = place(occluder, KINDS[kind][1], template(SIZE), SIZE, rng)
        if matrix is not None:
            _, alpha = composite(np.zeros((SIZE, SIZE, 3), np.uint8), occluder.rgba, matrix)
            covered.append((alpha > 0.5)[face_region(SIZE)].mean())
    assert len(covered) >= 6
    assert min(covered) >= KINDS[kind][1].least * 0.9
    assert max(covered) <= LARGEST * 1.02


@pytest.mark.parametrize("kind", KINDS)
def test_edges_are_smooth_and_surfaces_shaded(kind: str) -> None:
    occluder = draw_occluder(kind, np.random.default_rng(1), SIZE)
    alpha = occluder.rgba[..., 3]
    assert ((alpha > 20) & (alpha < 235)).sum() > 20
    assert occluder.rgba[alpha > 200][:, :3].std(axis=0).max() > 3


def test_drawing_is_the_same_thing_at_every_size() -> None:
    small, large = (draw_occluder("hand", np.random.default_rng(5), size) for size in (64, 128))
    shares = [np.array(one.rgba.shape[:2]) / size for one, size in ((small, 64), (large, 128))]
    assert np.allclose(shares[0], shares[1], atol=0.04)


def test_the_mask_is_where_the_picture_changed(face: np.ndarray) -> None:
    image, alpha = composite(face, square(), np.array([[1.0, 0, 20], [0, 1.0, 20]]))
    changed = (image != face).any(axis=2)
    assert np.array_equal(changed, alpha > 0)
    assert np.array_equal(np.argwhere(changed).min(axis=0), [25, 25])
    assert np.array_equal(np.argwhere(changed).max(axis=0), [34, 34])
    assert (image[25:35, 25:35] == (200, 10, 10)).all()


def test_transparent_colours_do_not_leak(face: np.ndarray) -> None:
    bright, black = square(), square()
    bright[bright[..., 3] == 0, :3] = 255
    turn = np.array([[0.8, -0.5, 25.0], [0.5, 0.8, 10.0]])
    assert np.array_equal(composite(face, bright, turn)[0], composite(face, black, turn)[0])


def test_half_transparent_pixels_mix(face: np.ndarray) -> None:
    image, alpha = composite(face, square(alpha=128), np.array([[1.0, 0, 20], [0, 1.0, 20]]))
    expected = 128 / 255 * np.array([200, 10, 10]) + (1 - 128 / 255) * face[30, 30]
    assert np.abs(image[30, 30] - expected).max() <= 1.5
    assert alpha[30, 30] == pytest.approx(128 / 255)


def test_a_shadow_only_darkens(face: np.ndarray) -> None:
    matrix = np.array([[1.0, 0, 20], [0, 1.0, 20]])
    plain, alpha = composite(face, square(), matrix)
    shaded, same = composite(face, square(), matrix, shadow=0.4)
    assert np.array_equal(alpha, same)
    assert (shaded <= plain).all() and (shaded < plain).any()
    assert (shaded[alpha == 1] == plain[alpha == 1]).all()


def test_colours_move_part_of_the_way(face: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    rgba = np.dstack([rng.integers(0, 60, (30, 30, 3)), np.full((30, 30), 255)]).astype(np.uint8)
    rgba[..., 2] += 150
    near, far = face[20:57, 16:48].mean(axis=(0, 1)), rgba[..., :3].mean(axis=(0, 1))
    distances = [
        np.abs(match_colours(rgba, face, share, share)[..., :3].mean(axis=(0, 1)) - near).mean()
        for share in (0.0, 0.5, 1.0)
    ]
    assert distances[0] == pytest.approx(np.abs(far - near).mean(), abs=3)
    assert distances[2] < distances[1] < distances[0]
    assert distances[2] < 25


def test_on_a_grey_picture_occluders_are_grey(face: np.ndarray) -> None:
    grey = np.repeat(face.mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8)
    colours = match_colours(square(), grey, 0.3, 0.0)[8, 8, :3].astype(int)
    assert np.ptp(colours) <= 4


def test_a_place_follows_the_landmarks() -> None:
    occluder = draw_occluder("glasses", np.random.default_rng(0), SIZE)
    turned = transform(template(SIZE), np.array([[0.8, -0.3, 15.0], [0.3, 0.8, -2.0]]))
    matrix = place(occluder, KINDS["glasses"][1], turned, SIZE, np.random.default_rng(0))
    assert matrix is not None
    found = transform(occluder.anchor[None], matrix)[0]
    assert np.abs(found - turned[:2].mean(axis=0)).max() < 2
    back = transform(found[None], invert(matrix))[0]
    assert np.allclose(back, occluder.anchor)


def test_unknown_landmarks_stand_where_the_template_has_them() -> None:
    occluder = draw_occluder("glasses", np.random.default_rng(0), SIZE)
    places = [
        place(occluder, KINDS["glasses"][1], landmarks, SIZE, np.random.default_rng(0))
        for landmarks in (np.full((5, 2), np.nan), template(SIZE))
    ]
    assert places[0] is not None and places[1] is not None
    assert np.allclose(places[0], places[1])


def test_what_can_cover_nothing_finds_no_place() -> None:
    faint = np.zeros((4, 4, 4), np.uint8)
    faint[1, 1, 3] = 255
    spread = KINDS["hand"][1]
    assert place(Occluder(faint, np.ones(2)), spread, template(SIZE), SIZE, np.random.default_rng(0)) is None


def test_trimming_keeps_the_anchor_on_its_pixel(expect_error: Callable[..., Any]) -> None:
    rgba = square()
    rgba[9, 12] = (1, 2, 3, 255)
    part = trimmed(rgba, np.array([12.0, 9.0]))
    assert part.rgba.shape == (10, 10, 4)
    x, y = part.anchor.astype(int)
    assert tuple(part.rgba[y, x]) == (1, 2, 3, 255)
    with expect_error(kind=ValueError):
        trimmed(square(alpha=40))
