"""Who people are and what faces do, as statistics: sampled from them, heads show nobody who lives.

Skin is a texture on the grid of `dense_head`, symmetric, in the colours of a face under light of 1 from everywhere, and
linear: mean + sum of coefficients times modes, the coefficients normal with deviation 1. So are shapes of people and
expressions, in coefficients of `head_model`. `fsf_graphics.learn_skin` made the numbers and says how. Hair is nothing
but a colour with streaks.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np

FILE = Path(__file__).with_name("skin_model.npz")
SIDE = 128  # texels of a texture in both directions
GAMMA = 2.2  # a level of a picture is proportional to the light to the power of 1 / 2.2, about as sRGB has it
MOST = 2.5  # deviations that a coefficient is allowed
# Where hair begins and the face ends: v, from the top of the head down, at distances |u| from the middle of the face.
HAIRLINE = ([0.0, 0.3, 0.5, 0.62, 0.68, 0.70, 0.80, 1.0], [0.105, 0.115, 0.15, 0.22, 0.30, 0.38, 0.42, 0.72])
JAW = ([0.0, 0.3, 0.5, 0.6, 0.68, 0.7], [0.815, 0.80, 0.745, 0.67, 0.55, 0.2])
SOFT = 0.03  # width of the border of skin and hair


@dataclass(frozen=True)
class SkinModel:
    """Textures, and the scatter of shapes."""

    mean: np.ndarray  # (SIDE, SIDE / 2, 3) levels, 0..255: the half on the viewer's left
    modes: np.ndarray  # (K, SIDE, SIDE / 2, 3) levels
    people: np.ndarray  # (20, 20) shape coefficients of a person by standard normal numbers
    expressions: np.ndarray  # (20, 20) what an expression adds to them, likewise

    def texture(self, numbers: np.ndarray) -> np.ndarray:
        """The colours (SIDE, SIDE, 3) of a skin's numbers (K,), linear in light, 0..1."""
        half = self.mean + np.tensordot(numbers, self.modes, axes=1)
        whole = np.concatenate([half, half[:, ::-1]], axis=1)
        light: np.ndarray = (whole.clip(0, 255) / 255) ** GAMMA
        return light


@cache
def shipped() -> SkinModel:
    """The model that comes with the plugin."""
    with np.load(FILE, allow_pickle=False) as held:
        modes = held["modes"] * held["scales"].astype(np.float64)[:, None, None, None]
        return SkinModel(held["mean"].astype(np.float64), modes, *(held[name] for name in ("people", "expressions")))


def draw(rng: np.random.Generator, count: int) -> np.ndarray:
    """Standard normal numbers (count,) without those that are too far out."""
    return rng.standard_normal(count).clip(-MOST, MOST)


@cache
def skin() -> np.ndarray:
    """How much of each texel (SIDE, SIDE) is skin, 0..1; the rest is hair."""
    u, v = _places()
    return ((v - np.interp(u, *HAIRLINE)) / SOFT + 0.5).clip(0, 1)


@cache
def face() -> np.ndarray:
    """How much of each texel (SIDE, SIDE) belongs to the face, 0..1: skin between hairline, ears and jaw."""
    u, v = _places()
    return skin() * ((np.interp(u, *JAW) - v) / SOFT + 0.5).clip(0, 1)


@cache
def streaks() -> np.ndarray:
    """How bright hair is (SIDE, SIDE, 1), about 1."""
    noise = np.random.default_rng(0).standard_normal((8, SIDE)).astype(np.float32)
    return np.exp(0.25 * cv2.resize(noise, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC))[..., None]


def _places() -> tuple[np.ndarray, np.ndarray]:
    """|u| and v of every texel, (SIDE, SIDE) each."""
    u, v = np.meshgrid(np.linspace(-1, 1, SIDE), np.linspace(0, 1, SIDE))
    return np.abs(u), v
