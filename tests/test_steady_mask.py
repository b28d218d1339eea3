"""Masks of a track are smoothed over time, and nothing that moves leaves a trace."""

import numpy as np
import pytest
from skimage import data

from fsframework.faces.steady_mask import LEAD, MEMORY, MaskSmoother, lead_frames

SIZE, RATE = 64, 25.0


def head() -> np.ndarray:
    picture: np.ndarray = data.astronaut()[20:212:3, 128:320:3]
    return picture


def test_noise_of_masks_is_averaged_where_the_crop_stands_still() -> None:
    rng, smoother = np.random.default_rng(0), MaskSmoother(RATE)
    masks = [np.clip(0.5 + 0.2 * rng.standard_normal((SIZE, SIZE)), 0, 1) for _ in range(60)]
    smoothed = [smoother(head(), mask) for mask in masks]
    np.testing.assert_array_equal(smoothed[0], masks[0].astype(np.float32))
    decay = np.exp(-1 / (MEMORY * RATE))
    expected = masks[0]
    for mask in masks[1:]:
        expected = decay * expected + (1 - decay) * mask
    np.testing.assert_allclose(smoothed[-1], expected, atol=1e-5)

    def flicker(each: list[np.ndarray]) -> float:
        return float(np.abs(np.diff(np.stack(each[20:]), axis=0)).mean())

    assert flicker(smoothed) < 0.4 * flicker(masks)


def test_noise_of_a_camera_is_no_motion() -> None:
    rng, smoother = np.random.default_rng(0), MaskSmoother(RATE)
    smoother(head(), np.ones((SIZE, SIZE)))
    noisy = np.clip(head() + rng.normal(0, 5, head().shape), 0, 255).astype(np.uint8)
    decay = np.exp(-1 / (MEMORY * RATE))
    assert smoother(noisy, np.zeros((SIZE, SIZE))).mean() == pytest.approx(decay, abs=0.1)


def test_what_comes_or_goes_leaves_no_trace() -> None:
    smoother = MaskSmoother(RATE)
    bare, hand = np.ones((SIZE, SIZE), np.float32), np.ones((SIZE, SIZE), np.float32)
    covered = head().copy()
    covered[20:50, 20:50] = [200, 40, 60]
    hand[20:50, 20:50] = 0
    for _ in range(5):
        smoother(head(), bare)
    assert smoother(covered, hand)[24:46, 24:46].max() < 0.05
    for _ in range(5):
        smoother(covered, hand)
    assert smoother(head(), bare)[24:46, 24:46].min() > 0.95


@pytest.mark.parametrize("rate", [1.0, 24.0, 60.0])
def test_frames_before_the_lead_do_not_matter(rate: float) -> None:
    count = lead_frames(rate)
    assert LEAD * rate <= count < LEAD * rate + 1
    one, other = MaskSmoother(rate), MaskSmoother(rate)
    one(head(), np.zeros((SIZE, SIZE)))
    for _ in range(count):
        last = one(head(), np.ones((SIZE, SIZE)))
        whole = other(head(), np.ones((SIZE, SIZE)))
    assert np.abs(last - whole).max() < 0.01
