"""The surface of a head between its landmarks, and a picture of it with another picture's texture."""

from functools import cache

import cv2
import numpy as np

from fsf_graphics.head_model import Fit, shipped

BROWS = tuple(range(17, 27))
CHIN, BRIDGE = 8, 27
FOREHEAD = 0.25  # its height above the brows, in units of the distance from bridge to chin
BACK = 0.25  # how far the forehead's upper edge recedes, in units of its height
FACING = 0.15  # cosine of the angle to the viewer below which a triangle is taken to be turned away
FINE = 4  # bits of a pixel's fraction


def with_forehead(shape: np.ndarray) -> np.ndarray:
    """A shape (68, 3) with ten points more, above the brows: (78, 3)."""
    up = FOREHEAD * (shape[BRIDGE] - shape[CHIN])
    up = up + np.array([0, 0, BACK * np.linalg.norm(up)])
    return np.concatenate([shape, shape[list(BROWS)] + up])


@cache
def triangles() -> np.ndarray:
    """Triangles (T, 3) between the 78 points, by Delaunay on the mean head seen from the front.

    All run the same way round, so that normals tell front from back.
    """
    flat = with_forehead(shipped().mean)[:, :2]
    low, high = flat.min(axis=0) - 1, flat.max(axis=0) + 1
    scaled = ((flat - low) / (high - low) * 1000).astype(np.float32)
    division = cv2.Subdiv2D((0, 0, 1001, 1001))
    numbers = {division.insert((float(x), float(y))): place for place, (x, y) in enumerate(scaled)}
    known = np.array(list(scaled))
    found = []
    for corners in np.asarray(division.getTriangleList()).reshape(-1, 3, 2):
        distances = np.linalg.norm(known[None] - corners[:, None], axis=2)
        if distances.min(axis=1).max() < 0.01:  # others have a corner of the frame that OpenCV adds
            found.append(distances.argmin(axis=1))
    assert len(numbers) == len(flat)
    a, b, c = (flat[np.array(found)[:, place]] for place in range(3))
    turned = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0] < 0
    ordered = [row[::-1] if flip else row for row, flip in zip(found, turned, strict=True)]
    return np.array(ordered)


def facing(points: np.ndarray) -> np.ndarray:
    """Cosine (T,) of each triangle's normal and the direction to the viewer; points (78, 3) in a picture."""
    a, b, c = (points[triangles()[:, place]] for place in range(3))
    normals = np.cross(b - a, c - a)
    return normals[:, 2] / np.maximum(np.linalg.norm(normals, axis=1), 1e-9)


def surface(fit: Fit, shape: np.ndarray | None = None) -> np.ndarray:
    """The points (78, 3) of a fitted head in its picture, or of another shape (68, 3) in the same pose."""
    return fit.project(with_forehead(fit.shape if shape is None else shape))


def render(texture: np.ndarray, source: np.ndarray, target: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """A head with another picture's skin.

    Parameters
    ----------
    texture:
        (H, W, 3) uint8, the picture that the skin is taken from.
    source:
        (78, 3) the points in it.
    target:
        (78, 3) the points in the picture that is made.
    size:
        Its side in pixels.

    Returns
    -------
    The picture (size, size, 3) uint8, and where something was painted (size, size) bool. Triangles that are turned away
    in either picture are left out.
    """
    seen = (facing(source) > 0) & (facing(target) > FACING)
    order = np.flatnonzero(seen)
    order = order[np.argsort(-target[triangles()[order], 2].mean(axis=1))]  # from far to near
    owner = np.full((size, size), -1, dtype=np.int32)
    corners = np.rint(target[:, :2] * 2**FINE).astype(np.int32)
    for triangle in order:
        cv2.fillConvexPoly(owner, corners[triangles()[triangle]], int(triangle), shift=FINE)
    y, x = np.nonzero(owner >= 0)
    if not len(x):
        return np.zeros((size, size, 3), np.uint8), owner >= 0
    maps = affine_maps(target[:, :2], source[:, :2])[owner[y, x]]  # (N, 2, 3)
    places = np.einsum("nij,nj->ni", maps, np.stack([x, y, np.ones_like(x)], axis=1)).astype(np.float32)
    where = np.zeros((size, size, 2), np.float32)
    where[y, x] = places
    painted = cv2.remap(texture, where[..., 0], where[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    painted[owner < 0] = 0
    return painted, owner >= 0


def affine_maps(points: np.ndarray, goals: np.ndarray) -> np.ndarray:
    """The affine map (T, 2, 3) of each triangle that takes its corners among points (78, 2) to those among goals."""
    corners = np.concatenate([points[triangles()], np.ones((len(triangles()), 3, 1))], axis=2)  # (T, 3, 3)
    flat = np.abs(np.linalg.det(corners)) < 1e-9  # a triangle seen from its side, which nothing is painted of
    corners[flat] = np.eye(3)
    return np.linalg.solve(corners, goals[triangles()]).transpose(0, 2, 1)
