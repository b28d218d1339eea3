"""Dense surface of a whole head with skull and neck, interpolated from the 68 landmarks of the head model.

The surface is a radial distance for every direction from an inner point. An ellipsoid (skull) and a cylinder (neck)
approximate it. Splines of the cubed distance correct it so that it interpolates the mean head's landmarks. For
another head, the displacements of its landmarks deform the surface, interpolated by splines of the plain distance;
anchors on skull and neck stay fixed. The surface is thus linear in the landmarks, and smooth between them: it has no
ears, nostrils or teeth.

Vertices are a grid over (v, u). Rows go from the top of the head to the neck; columns from the back over the viewer's
left, the face and the right to the back. `grid(side)` samples the same surface for any side; texels of a texture
(side, side) are its vertices. Units and axes are those of `head_model`.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from fsf_graphics.head_model import shipped

CENTRE = np.array([0.0, 0.05, 0.75])  # origin of the radial distances
SKULL = np.array([0.0, -0.36, 0.95]), np.array([0.89, 1.10, 1.08])  # an ellipsoid's centre and half axes
NECK = np.array([0.0, 0.0, 1.05]), np.array([0.56, 1.0, 0.62])  # a cylinder's axis and half axes
ROUND = 0.12  # width of the smooth union of skull and neck, in units of the model
LOW, HIGH = -84.0, 90.0  # degrees of elevation of the last and the first row
NARROW = 0.4  # angle per column at the front, relative to uniform columns; wider at the back
SMOOTH = 1e-4  # regularisation of the correction at the landmarks


@dataclass(frozen=True)
class Grid:
    """Vertices of the surface on a grid of directions."""

    mean: np.ndarray  # (side^2, 3) of the mean head
    weights: np.ndarray  # (side^2, 68) of each landmark's displacement
    triangles: np.ndarray  # (T, 3) vertex indices, consistently oriented

    def vertices(self, shape: np.ndarray) -> np.ndarray:
        """Return the vertices (side^2, 3) for landmarks (68, 3)."""
        moved: np.ndarray = self.mean + self.weights @ (shape - shipped().mean)
        return moved


def directions(side: int) -> np.ndarray:
    """Return unit vectors (side^2, 3) from the centre to the grid's vertices."""
    u, v = np.meshgrid(np.linspace(-1, 1, side), np.linspace(0, 1, side))
    across = np.pi * (NARROW * u + (1 - NARROW) * u**3).ravel()  # 0 in front
    up = np.radians(HIGH + (LOW - HIGH) * v).ravel()
    return np.stack([np.sin(across) * np.cos(up), -np.sin(up), -np.cos(across) * np.cos(up)], axis=1)


@cache
def grid(side: int) -> Grid:
    """Return the surface on a grid of side x side vertices."""
    rays, mean = directions(side), shipped().mean
    offsets = mean - CENTRE
    length = np.linalg.norm(offsets, axis=1)
    fixed = _fixed_directions()
    centres = np.concatenate([offsets / length[:, None], fixed])
    residuals = np.concatenate([length / rough(offsets / length[:, None]) - 1, np.zeros(len(fixed))])
    correction = _splines(rays, centres, 3, SMOOTH) @ residuals
    surface = CENTRE + rays * (rough(rays) * (1 + correction))[:, None]
    anchors = CENTRE + fixed * rough(fixed)[:, None]
    weights = _splines(surface, np.concatenate([mean, anchors]), 1, 0)[:, : len(mean)]
    return Grid(surface, weights, _triangles(side))


def rough(towards: np.ndarray) -> np.ndarray:
    """Return the distance (N,) from the centre to the union of skull and neck in directions (N, 3)."""
    (skull, skull_axes), (neck, neck_axes) = SKULL, NECK
    first = _exit_distance(towards / skull_axes, (CENTRE - skull) / skull_axes)
    flat = np.array([1.0, 0.0, 1.0])
    second = _exit_distance(towards * flat / neck_axes, (CENTRE - neck) * flat / neck_axes)
    down = np.clip(1.5 * towards[:, 1], 0, 1)  # the neck extends downwards only
    second = np.minimum(second, 4) * down**2 * (3 - 2 * down)
    larger: np.ndarray = ROUND * np.logaddexp(first / ROUND, second / ROUND)
    return larger


def _exit_distance(towards: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Return the distance (N,) at which rays (N, 3) from an inner point leave the unit sphere."""
    a, b, c = (towards**2).sum(axis=1), towards @ start, start @ start - 1
    a = np.maximum(a, 1e-9)
    ahead: np.ndarray = (-b + np.sqrt(b**2 - a * c)) / a
    return ahead


def _fixed_directions() -> np.ndarray:
    """Return directions (N, 3) of anchors that landmarks do not move: back and top of the skull, and the neck."""
    around = [(angle, up) for up in (-40, -10, 20, 50) for angle in (100, 125, 150, 180)]
    above = [(angle, 62) for angle in (0, 50)]
    below = [(angle, -72) for angle in (0, 45, 90, 135, 180)] + [(70, -50)]
    half = np.radians(np.array([*around, *above, *below, (0, 88)], dtype=float))
    both = np.concatenate([half, half[half[:, 0] > 0] * [-1, 1]])
    across, up = both[:, 0], both[:, 1]
    return np.stack([np.sin(across) * np.cos(up), -np.sin(up), -np.cos(across) * np.cos(up)], axis=1)


def _splines(points: np.ndarray, centres: np.ndarray, power: int, smooth: float) -> np.ndarray:
    """Return weights (N, M) that interpolate values at centres (M, 3) at points (N, 3); exact for linear functions."""

    def kernel(sites: np.ndarray) -> np.ndarray:
        return np.linalg.norm(sites[:, None] - centres[None], axis=2) ** power

    count = len(centres)
    linear = np.column_stack([np.ones(count), centres])
    system = np.block([[kernel(centres) + smooth * np.eye(count), linear], [linear.T, np.zeros((4, 4))]])
    inverse = np.linalg.solve(system, np.eye(count + 4)[:, :count])  # (M + 4, M)
    return np.column_stack([kernel(points), np.ones(len(points)), points]) @ inverse


def _triangles(side: int) -> np.ndarray:
    """Return the grid's triangles (2 (side - 1)^2, 3), two per cell."""
    index = np.arange(side * side).reshape(side, side)
    a, b, c, d = (part.ravel() for part in (index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]))
    return np.concatenate([np.stack([a, b, c], axis=1), np.stack([b, d, c], axis=1)])


def normals(vertices: np.ndarray, side: int) -> np.ndarray:
    """Return outward unit normals (side^2, 3) of a grid's vertices (side^2, 3); x is right, y down, z away."""
    surface = vertices.reshape(side, side, 3)
    across = np.empty_like(surface)
    across[:, 1:-1] = surface[:, 2:] - surface[:, :-2]
    across[:, [0, -1]] = (surface[:, 1] - surface[:, -2])[:, None]  # the first and last column coincide
    down = np.empty_like(surface)
    down[1:-1] = surface[2:] - surface[:-2]
    down[0], down[-1] = surface[1] - surface[0], surface[-1] - surface[-2]
    result = np.cross(down, across)
    result[0] = result[1].mean(axis=0)  # the first row is a single point
    flat = result.reshape(-1, 3)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12)
