"""Triangle rasteriser with a depth buffer and barycentric coordinates."""

import numpy as np


def rasterize(points: np.ndarray, triangles: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Compute the nearest triangle in each pixel of a square image.

    Parameters
    ----------
    points:
        (V, 3) x, y in pixels, where (0, 0) is the centre of the first pixel, and depth, larger farther away.
    triangles:
        (T, 3) indices in `points`. Triangles that are anticlockwise in the image face away, and are culled.
    size:
        Side of the image in pixels.

    Returns
    -------
    The index of the triangle (size, size) int64, -1 for none, and barycentric coordinates (size, size, 3).
    """
    corners = points[triangles]
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    area = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
    seen = np.flatnonzero(area > 1e-9)
    corners, area = corners[seen], area[seen, None]  # (T, 3, 3), (T, 1)
    low = np.ceil(corners[:, :, :2].min(axis=1)).clip(0, size).astype(np.int64)  # the first pixel inside
    high = np.floor(corners[:, :, :2].max(axis=1)).clip(-1, size - 1).astype(np.int64) + 1
    extent = (high - low).clip(min=0)
    # Each corner's weight is linear in the pixel: a x + b y + c.
    after, before = np.roll(corners, -1, axis=1), np.roll(corners, -2, axis=1)
    across = (after[..., 1] - before[..., 1]) / area  # (T, 3)
    down = (before[..., 0] - after[..., 0]) / area
    start = (after[..., 0] * before[..., 1] - after[..., 1] * before[..., 0]) / area
    # All pixels of all triangles' bounding boxes, concatenated.
    counts = extent.prod(axis=1)
    owner = np.repeat(np.arange(len(seen)), counts)
    number = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    row, column = np.divmod(number, extent[owner, 0])
    x, y = column + low[owner, 0], row + low[owner, 1]
    weights = across[owner] * x[:, None] + down[owner] * y[:, None] + start[owner]  # (N, 3)
    inside = weights.min(axis=1) >= -1e-9
    owner, x, y, weights = owner[inside], x[inside], y[inside], weights[inside]
    depth = np.einsum("nk,nk->n", weights, corners[owner, :, 2])
    order = np.argsort(-depth, kind="stable")  # from far to near: the nearest is written last
    nearest = np.full((size, size), -1, dtype=np.int64)
    barycentric = np.zeros((size, size, 3))
    nearest[y[order], x[order]] = seen[owner[order]]
    barycentric[y[order], x[order]] = weights[order]
    return nearest, barycentric
