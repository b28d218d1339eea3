"""Triangle mesh over a head's landmarks, and its rendering with another image's texture."""

from functools import cache

import cv2
import numpy as np

from fsf_graphics.head_model import Fit, shipped

BROWS = tuple(range(17, 27))
CHIN, BRIDGE = 8, 27
FOREHEAD = 0.25  # height of the forehead above the brows, in units of the distance from bridge to chin
BACK = 0.25  # recession of the forehead's upper edge, in units of its height
FACING = 0.15  # minimum cosine of normal and view direction of visible triangles
FINE = 4  # fractional bits of pixel coordinates


def with_forehead(shape: np.ndarray) -> np.ndarray:
    """Return a shape (68, 3) with ten additional points above the brows: (78, 3)."""
    up = FOREHEAD * (shape[BRIDGE] - shape[CHIN])
    up = up + np.array([0, 0, BACK * np.linalg.norm(up)])
    return np.concatenate([shape, shape[list(BROWS)] + up])


@cache
def triangles() -> np.ndarray:
    """Return the Delaunay triangles (T, 3) of the 78 points of the mean head in frontal view.

    Their orientation is consistent, so that normals distinguish front and back.
    """
    flat = with_forehead(shipped().mean)[:, :2]
    low, high = flat.min(axis=0) - 1, flat.max(axis=0) + 1
    scaled = ((flat - low) / (high - low) * 1000).astype(np.float32)
    division = cv2.Subdiv2D((0, 0, 1001, 1001))
    numbers = {division.insert((float(x), float(y))): index for index, (x, y) in enumerate(scaled)}
    points = np.array(list(scaled))
    result = []
    for corners in np.asarray(division.getTriangleList()).reshape(-1, 3, 2):
        distances = np.linalg.norm(points[None] - corners[:, None], axis=2)
        if distances.min(axis=1).max() < 0.01:  # without triangles at the corners that OpenCV adds
            result.append(distances.argmin(axis=1))
    assert len(numbers) == len(flat)
    a, b, c = (flat[np.array(result)[:, corner]] for corner in range(3))
    turned = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0] < 0
    ordered = [row[::-1] if flip else row for row, flip in zip(result, turned, strict=True)]
    return np.array(ordered)


def facing(points: np.ndarray) -> np.ndarray:
    """Return the cosine (T,) between each triangle's normal and the view direction, for points (78, 3) in an image."""
    a, b, c = (points[triangles()[:, corner]] for corner in range(3))
    normals = np.cross(b - a, c - a)
    return normals[:, 2] / np.maximum(np.linalg.norm(normals, axis=1), 1e-9)


def surface(fit: Fit, shape: np.ndarray | None = None) -> np.ndarray:
    """Return the points (78, 3) of a fitted head in its image, or of another shape (68, 3) in the same pose."""
    return fit.project(with_forehead(fit.shape if shape is None else shape))


def render(texture: np.ndarray, source: np.ndarray, target: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Render a head with another image's texture.

    Parameters
    ----------
    texture:
        (H, W, 3) uint8, the image that provides the texture.
    source:
        (78, 3) points in the texture.
    target:
        (78, 3) points in the rendered image.
    size:
        Side of the rendered image in pixels.

    Returns
    -------
    The image (size, size, 3) uint8, and a mask (size, size) bool of rendered pixels. Triangles that face away in either
    image are omitted.
    """
    visible = (facing(source) > 0) & (facing(target) > FACING)
    order = np.flatnonzero(visible)
    order = order[np.argsort(-target[triangles()[order], 2].mean(axis=1))]  # from far to near
    owner = np.full((size, size), -1, dtype=np.int32)
    corners = np.rint(target[:, :2] * 2**FINE).astype(np.int32)
    for triangle in order:
        cv2.fillConvexPoly(owner, corners[triangles()[triangle]], int(triangle), shift=FINE)
    y, x = np.nonzero(owner >= 0)
    if not len(x):
        return np.zeros((size, size, 3), np.uint8), owner >= 0
    maps = affine_maps(target[:, :2], source[:, :2])[owner[y, x]]  # (N, 2, 3)
    coordinates = np.einsum("nij,nj->ni", maps, np.stack([x, y, np.ones_like(x)], axis=1)).astype(np.float32)
    lookup = np.zeros((size, size, 2), np.float32)
    lookup[y, x] = coordinates
    image = cv2.remap(texture, lookup[..., 0], lookup[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    image[owner < 0] = 0
    return image, owner >= 0


def affine_maps(points: np.ndarray, goals: np.ndarray) -> np.ndarray:
    """Return each triangle's affine map (T, 2, 3) from its corners in `points` (78, 2) to those in `goals` (78, 2)."""
    corners = np.concatenate([points[triangles()], np.ones((len(triangles()), 3, 1))], axis=2)  # (T, 3, 3)
    flat = np.abs(np.linalg.det(corners)) < 1e-9  # a triangle in edge-on view, which covers no pixel
    corners[flat] = np.eye(3)
    return np.linalg.solve(corners, goals[triangles()]).transpose(0, 2, 1)
