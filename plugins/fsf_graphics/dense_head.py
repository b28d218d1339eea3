"""A whole head, skull and neck too, through the 68 landmarks of the head model.

Seen from a point inside, the surface is a distance for every direction. A skull (an ellipsoid) and a neck (a cylinder)
give it roughly; the mean head's landmarks correct it, smoothly and without deviation (splines of the cubed distance).
Another head moves this surface by the displacements of its landmarks, interpolated likewise by the plain distance,
while points on the skull and the neck stay. So the whole is linear in the landmarks, and between them it is only
smooth: there are no ears, nostrils or teeth.

Vertices are a grid over (v, u), rows from the top of the head down to the neck, columns from the back over the viewer's
left, face and right to the back again. `grid(side)` with another side gives the same surface, coarser or finer: a
texture of (side, side) has its texels there. Units and axes are those of `head_model`.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from fsf_graphics.head_model import shipped

CENTRE = np.array([0.0, 0.05, 0.75])  # from which the surface is seen
SKULL = np.array([0.0, -0.36, 0.95]), np.array([0.89, 1.10, 1.08])  # an ellipsoid's centre and half axes
NECK = np.array([0.0, 0.0, 1.05]), np.array([0.56, 1.0, 0.62])  # a cylinder's axis and half axes
ROUND = 0.12  # how softly skull and neck meet, in units of the model
LOW, HIGH = -84.0, 90.0  # degrees of elevation of the last and the first row
NARROW = 0.4  # the columns' angle over their number, in front; behind they lie wider apart
SMOOTH = 1e-4  # of the correction at the landmarks


@dataclass(frozen=True)
class Grid:
    """The surface at a grid of places."""

    mean: np.ndarray  # (side^2, 3) of the mean head
    weights: np.ndarray  # (side^2, 68) of each landmark's displacement
    triangles: np.ndarray  # (T, 3), the same way round

    def vertices(self, shape: np.ndarray) -> np.ndarray:
        """The surface (side^2, 3) of a shape (68, 3)."""
        moved: np.ndarray = self.mean + self.weights @ (shape - shipped().mean)
        return moved


def directions(side: int) -> np.ndarray:
    """Unit vectors (side^2, 3) from the centre to the places of the grid."""
    u, v = np.meshgrid(np.linspace(-1, 1, side), np.linspace(0, 1, side))
    across = np.pi * (NARROW * u + (1 - NARROW) * u**3).ravel()  # 0 in front
    up = np.radians(HIGH + (LOW - HIGH) * v).ravel()
    return np.stack([np.sin(across) * np.cos(up), -np.sin(up), -np.cos(across) * np.cos(up)], axis=1)


@cache
def grid(side: int) -> Grid:
    """The surface at side x side places."""
    towards, mean = directions(side), shipped().mean
    known = mean - CENTRE
    length = np.linalg.norm(known, axis=1)
    still = _still()
    centres = np.concatenate([known / length[:, None], still])
    wanted = np.concatenate([length / rough(known / length[:, None]) - 1, np.zeros(len(still))])
    correction = _splines(towards, centres, 3, SMOOTH) @ wanted
    surface = CENTRE + towards * (rough(towards) * (1 + correction))[:, None]
    anchors = CENTRE + still * rough(still)[:, None]
    weights = _splines(surface, np.concatenate([mean, anchors]), 1, 0)[:, : len(mean)]
    return Grid(surface, weights, _triangles(side))


def rough(towards: np.ndarray) -> np.ndarray:
    """Distance (N,) from the centre to skull and neck in directions (N, 3)."""
    (skull, skull_axes), (neck, neck_axes) = SKULL, NECK
    first = _reach(towards / skull_axes, (CENTRE - skull) / skull_axes)
    flat = np.array([1.0, 0.0, 1.0])
    second = _reach(towards * flat / neck_axes, (CENTRE - neck) * flat / neck_axes)
    down = np.clip(1.5 * towards[:, 1], 0, 1)  # it goes down only
    second = np.minimum(second, 4) * down**2 * (3 - 2 * down)
    larger: np.ndarray = ROUND * np.logaddexp(first / ROUND, second / ROUND)
    return larger


def _reach(towards: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Where rays (N, 3) from a point inside leave the unit sphere."""
    a, b, c = (towards**2).sum(axis=1), towards @ start, start @ start - 1
    a = np.maximum(a, 1e-9)
    ahead: np.ndarray = (-b + np.sqrt(b**2 - a * c)) / a
    return ahead


def _still() -> np.ndarray:
    """Directions (N, 3) in which landmarks move nothing: the skull behind and above, and the neck."""
    around = [(angle, up) for up in (-40, -10, 20, 50) for angle in (100, 125, 150, 180)]
    above = [(angle, 62) for angle in (0, 50)]
    below = [(angle, -72) for angle in (0, 45, 90, 135, 180)] + [(70, -50)]
    half = np.radians(np.array([*around, *above, *below, (0, 88)], dtype=float))
    both = np.concatenate([half, half[half[:, 0] > 0] * [-1, 1]])
    across, up = both[:, 0], both[:, 1]
    return np.stack([np.sin(across) * np.cos(up), -np.sin(up), -np.cos(across) * np.cos(up)], axis=1)


def _splines(places: np.ndarray, centres: np.ndarray, power: int, smooth: float) -> np.ndarray:
    """Weights (N, M) by which values at centres (M, 3) are interpolated at places (N, 3), exact for linear ones."""

    def kernel(points: np.ndarray) -> np.ndarray:
        return np.linalg.norm(points[:, None] - centres[None], axis=2) ** power

    count = len(centres)
    linear = np.column_stack([np.ones(count), centres])
    system = np.block([[kernel(centres) + smooth * np.eye(count), linear], [linear.T, np.zeros((4, 4))]])
    inverse = np.linalg.solve(system, np.eye(count + 4)[:, :count])  # (M + 4, M)
    return np.column_stack([kernel(places), np.ones(len(places)), places]) @ inverse


def _triangles(side: int) -> np.ndarray:
    """Two triangles (2 (side - 1)^2, 3) for each square of the grid."""
    place = np.arange(side * side).reshape(side, side)
    a, b, c, d = (part.ravel() for part in (place[:-1, :-1], place[:-1, 1:], place[1:, :-1], place[1:, 1:]))
    return np.concatenate([np.stack([a, b, c], axis=1), np.stack([b, d, c], axis=1)])


def normals(vertices: np.ndarray, side: int) -> np.ndarray:
    """Unit normals (side^2, 3), outwards, of a grid's vertices (side^2, 3) in a space with x right, y down, z away."""
    surface = vertices.reshape(side, side, 3)
    across = np.empty_like(surface)
    across[:, 1:-1] = surface[:, 2:] - surface[:, :-2]
    across[:, [0, -1]] = (surface[:, 1] - surface[:, -2])[:, None]  # the first and the last column are one
    down = np.empty_like(surface)
    down[1:-1] = surface[2:] - surface[:-2]
    down[0], down[-1] = surface[1] - surface[0], surface[-1] - surface[-2]
    found = np.cross(down, across)
    found[0] = found[1].mean(axis=0)  # the top of the head is one point
    flat = found.reshape(-1, 3)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12)
