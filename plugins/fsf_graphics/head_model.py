"""Deformable 3D model of 68 landmarks, and its fit to 2D landmarks.

The model is linear: mean + sum of coefficients times modes. The unit is the distance of the outer eye corners; x is to
the viewer's right, y down, z away. The camera is weak-perspective (scaled orthographic).

`fsf_graphics.learn_head` learned it by structure from motion from the landmarks of LFW's training people, in crops of
64 px. On 1042 held-out faces, the residual is 1.4 % of the eye corners' distance with 20 modes, and 5.8 % with the mean
alone. Depth is the least accurate coordinate, because photographs show few profiles.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

FILE = Path(__file__).with_name("head_model.npz")
INNER = slice(17, 68)  # landmarks without the face's outline
ROUNDS = 8  # alternations of pose and coefficients; converges to 0.01 pixels
RIDGE = 0.5  # weight of the coefficients' prior relative to the landmarks' noise
NOISE = 0.02  # standard deviation of a landmark, in units of the model


@dataclass(frozen=True)
class HeadModel:
    """Linear shape model: mean (68, 3), modes (K, 68, 3), and the coefficients' standard deviations (K,)."""

    mean: np.ndarray
    modes: np.ndarray
    spread: np.ndarray

    def shape(self, coefficients: np.ndarray) -> np.ndarray:
        """Return the landmarks (68, 3) for coefficients (K,)."""
        return self.mean + np.tensordot(coefficients, self.modes, axes=1)


@dataclass(frozen=True)
class Fit:
    """Fit of the model to an image: shape, and projection to the image."""

    shape: np.ndarray  # (68, 3) before rotation
    matrix: np.ndarray  # (3, 3), scale times rotation
    shift: np.ndarray  # (2,) pixels
    coefficients: np.ndarray  # (K,)

    def project(self, points: np.ndarray) -> np.ndarray:
        """Return points (N, 3) of the model's space in image space: x, y and depth in pixels, (N, 3)."""
        placed = points @ self.matrix.T
        placed[:, :2] += self.shift
        return placed


@cache
def shipped() -> HeadModel:
    """Return the model in the package."""
    with np.load(FILE, allow_pickle=False) as file:
        return HeadModel(*(file[name].astype(np.float64) for name in ("mean", "modes", "spread")))


def fit(model: HeadModel, landmarks: np.ndarray) -> Fit:
    """Return the best fit to landmarks (68, 2) in pixels: pose by least squares, coefficients by ridge regression."""
    coefficients = np.zeros(len(model.modes))
    for _ in range(ROUNDS):
        shape = model.shape(coefficients)
        matrix, shift = pose(shape, landmarks)
        coefficients = deformation(model, matrix, landmarks - shift)
    shape = model.shape(coefficients)
    matrix, shift = pose(shape, landmarks)
    return Fit(shape, matrix, shift, coefficients)


def pose(shape: np.ndarray, landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return scale times rotation (3, 3) and shift (2,) that map a shape (68, 3) closest to landmarks (68, 2).

    The best affine camera is projected to a scaled rotation by its singular values. The outline is excluded, because
    its landmarks are on other points of the skin in a rotated head.
    """
    shape, landmarks = shape[INNER], landmarks[INNER]
    centre, goal = shape.mean(axis=0), landmarks.mean(axis=0)
    camera = np.linalg.lstsq(shape - centre, landmarks - goal, rcond=None)[0].T  # (2, 3)
    u, values, v = np.linalg.svd(camera, full_matrices=False)
    rows = u @ v
    matrix = values.mean() * np.vstack([rows, np.cross(rows[0], rows[1])])
    return matrix, goal - matrix[:2] @ centre


def deformation(model: HeadModel, matrix: np.ndarray, landmarks: np.ndarray, ridge: float = RIDGE) -> np.ndarray:
    """Return coefficients (K,) for landmarks (68, 2) relative to the model's origin, under a camera matrix (3, 3)."""
    scale = np.linalg.norm(matrix[0])
    design = (model.modes @ matrix[:2].T / scale).reshape(len(model.modes), -1).T  # (136, K)
    residuals = (landmarks / scale - model.mean @ matrix[:2].T / scale).ravel()
    weights = ridge * (NOISE / model.spread) ** 2 * len(residuals) / len(model.modes)
    return np.linalg.solve(design.T @ design + np.diag(weights), design.T @ residuals)
