"""Statistical model of skin, head shapes and expressions, for sampling people who do not exist.

Skin is a symmetric texture on the grid of `dense_head`, as it appears under uniform light of 1. The model is linear:
mean + sum of coefficients times modes, with standard normal coefficients. Shapes and expressions are likewise linear,
in coefficients of `head_model`. `fsf_graphics.learn_skin` describes and computes the statistics. Hair is a colour with
streaks.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np

FILE = Path(__file__).with_name("skin_model.npz")
SIDE = 128  # texels of a texture in both directions
GAMMA = 2.2  # approximate gamma of sRGB
MOST = 2.5  # maximum absolute coefficient, in standard deviations
# Hairline and jaw as v, from the top of the head down, at distances |u| from the middle of the face.
HAIRLINE = ([0.0, 0.3, 0.5, 0.62, 0.68, 0.70, 0.80, 1.0], [0.105, 0.115, 0.15, 0.22, 0.30, 0.38, 0.42, 0.72])
JAW = ([0.0, 0.3, 0.5, 0.6, 0.68, 0.7], [0.815, 0.80, 0.745, 0.67, 0.55, 0.2])
SOFT = 0.03  # width of the transition between skin and hair


@dataclass(frozen=True)
class SkinModel:
    """Skin textures, and covariance factors of shapes and expressions."""

    mean: np.ndarray  # (SIDE, SIDE / 2, 3) sRGB, 0..255: the half on the viewer's left
    modes: np.ndarray  # (K, SIDE, SIDE / 2, 3) sRGB
    people: np.ndarray  # (20, 20) maps standard normal vectors to shape coefficients of a person
    expressions: np.ndarray  # (20, 20) the same for the offsets of an expression

    def texture(self, numbers: np.ndarray) -> np.ndarray:
        """Return the texture (SIDE, SIDE, 3) for coefficients (K,), linear RGB, 0..1."""
        half = self.mean + np.tensordot(numbers, self.modes, axes=1)
        whole = np.concatenate([half, half[:, ::-1]], axis=1)
        light: np.ndarray = (whole.clip(0, 255) / 255) ** GAMMA
        return light


@cache
def shipped() -> SkinModel:
    """Return the model in the package."""
    with np.load(FILE, allow_pickle=False) as file:
        modes = file["modes"] * file["scales"].astype(np.float64)[:, None, None, None]
        return SkinModel(file["mean"].astype(np.float64), modes, *(file[name] for name in ("people", "expressions")))


def draw(rng: np.random.Generator, count: int) -> np.ndarray:
    """Return standard normal numbers (count,), clipped to MOST standard deviations."""
    return rng.standard_normal(count).clip(-MOST, MOST)


@cache
def skin() -> np.ndarray:
    """Return the fraction of skin in each texel (SIDE, SIDE), 0..1; the rest is hair."""
    u, v = _coordinates()
    return ((v - np.interp(u, *HAIRLINE)) / SOFT + 0.5).clip(0, 1)


@cache
def face() -> np.ndarray:
    """Return the fraction of face in each texel (SIDE, SIDE), 0..1: skin between hairline, ears and jaw."""
    u, v = _coordinates()
    return skin() * ((np.interp(u, *JAW) - v) / SOFT + 0.5).clip(0, 1)


@cache
def streaks() -> np.ndarray:
    """Return the brightness of hair (SIDE, SIDE, 1), around 1."""
    noise = np.random.default_rng(0).standard_normal((8, SIDE)).astype(np.float32)
    return np.exp(0.25 * cv2.resize(noise, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC))[..., None]


def _coordinates() -> tuple[np.ndarray, np.ndarray]:
    """Return |u| and v of every texel, (SIDE, SIDE) each."""
    u, v = np.meshgrid(np.linspace(-1, 1, SIDE), np.linspace(0, 1, SIDE))
    return np.abs(u), v
