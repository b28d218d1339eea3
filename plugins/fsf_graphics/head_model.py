"""A deformable head of 68 landmarks in three dimensions, and how it is fitted to landmarks in a picture.

The model is linear: mean + sum of coefficients times modes, in units of the distance of the outer eye corners, x to the
viewer's right, y down, z away. The camera is orthographic with one scale (weak perspective). `fsf_graphics.learn_head`
made the numbers by structure from motion over the landmarks of LFW's training people, in crops of 64 px: of 1042 faces
left out, 1.4 % of the eye corners' distance is not explained by 20 modes, 5.8 % by the mean alone. Depth is known
worst, as photographs show few profiles.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

FILE = Path(__file__).with_name("head_model.npz")
INNER = slice(17, 68)  # the landmarks that are not the outline
ROUNDS = 8  # of pose, then coefficients; changes are then below a hundredth of a pixel
RIDGE = 0.5  # weight of the coefficients' spread against landmarks' noise
NOISE = 0.02  # standard deviation of a landmark, in units of the model


@dataclass(frozen=True)
class HeadModel:
    """Mean (68, 3), modes (K, 68, 3) and each coefficient's standard deviation (K,)."""

    mean: np.ndarray
    modes: np.ndarray
    spread: np.ndarray

    def shape(self, coefficients: np.ndarray) -> np.ndarray:
        """The head (68, 3) of coefficients (K,)."""
        return self.mean + np.tensordot(coefficients, self.modes, axes=1)


@dataclass(frozen=True)
class Fit:
    """A head in a picture: points (68, 3) of the model's shape, and how they get into it."""

    shape: np.ndarray  # (68, 3) before turning
    matrix: np.ndarray  # (3, 3), scale times rotation
    shift: np.ndarray  # (2,) pixels
    coefficients: np.ndarray  # (K,)

    def project(self, points: np.ndarray) -> np.ndarray:
        """Points (N, 3) of the model's space in the picture: x, y in pixels, and depth in pixels, (N, 3)."""
        placed = points @ self.matrix.T
        placed[:, :2] += self.shift
        return placed


@cache
def shipped() -> HeadModel:
    """The model that comes with the plugin."""
    with np.load(FILE, allow_pickle=False) as held:
        return HeadModel(*(held[name].astype(np.float64) for name in ("mean", "modes", "spread")))


def fit(model: HeadModel, landmarks: np.ndarray) -> Fit:
    """The head that explains landmarks (68, 2) in pixels best: pose by least squares, coefficients by ridge."""
    coefficients = np.zeros(len(model.modes))
    for _ in range(ROUNDS):
        shape = model.shape(coefficients)
        matrix, shift = pose(shape, landmarks)
        coefficients = deformation(model, matrix, landmarks - shift)
    shape = model.shape(coefficients)
    matrix, shift = pose(shape, landmarks)
    return Fit(shape, matrix, shift, coefficients)


def pose(shape: np.ndarray, landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scale times rotation (3, 3) and shift (2,) that take a shape (68, 3) nearest to landmarks (68, 2).

    The best affine camera is made a scaled rotation by its singular values. The outline has no part: in a turned head
    its landmarks lie on other points of the skin.
    """
    shape, landmarks = shape[INNER], landmarks[INNER]
    centre, goal = shape.mean(axis=0), landmarks.mean(axis=0)
    camera = np.linalg.lstsq(shape - centre, landmarks - goal, rcond=None)[0].T  # (2, 3)
    u, values, v = np.linalg.svd(camera, full_matrices=False)
    rows = u @ v
    matrix = values.mean() * np.vstack([rows, np.cross(rows[0], rows[1])])
    return matrix, goal - matrix[:2] @ centre


def deformation(model: HeadModel, matrix: np.ndarray, landmarks: np.ndarray, ridge: float = RIDGE) -> np.ndarray:
    """Coefficients (K,) that explain landmarks (68, 2), shifted to the model's origin, seen by a matrix (3, 3)."""
    scale = np.linalg.norm(matrix[0])
    seen = (model.modes @ matrix[:2].T / scale).reshape(len(model.modes), -1).T  # (136, K)
    rest = (landmarks / scale - model.mean @ matrix[:2].T / scale).ravel()
    weights = ridge * (NOISE / model.spread) ** 2 * len(rest) / len(model.modes)
    return np.linalg.solve(seen.T @ seen + np.diag(weights), seen.T @ rest)
