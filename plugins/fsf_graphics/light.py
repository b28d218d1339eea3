"""Lighting by spherical harmonics of order 2.

Ramamoorthi and Hanrahan, "An Efficient Representation for Irradiance Environment Maps", SIGGRAPH 2001.

Light is distant and surfaces are Lambertian: the irradiance depends on the normal alone. Nine coefficients per channel
approximate it within a few percent. There are no cast shadows. Directions are unit vectors with x to the viewer's
right, y down, z away: (0, 0, -1) points to the viewer.
"""

import numpy as np

# Coefficients of the Lambertian kernel per order, divided by pi, so that uniform light of 1 yields 1 on a white surface
# (their equation 8: pi, 2 pi / 3 and pi / 4).
KEPT = np.array([1, *[2 / 3] * 3, *[1 / 4] * 5])


def harmonics(directions: np.ndarray) -> np.ndarray:
    """Return the nine real spherical harmonics (N, 9) of orders 0 to 2 at unit directions (N, 3)."""
    x, y, z = directions.T
    constant = np.full_like(x, 0.5 / np.sqrt(np.pi))
    first = np.sqrt(3 / (4 * np.pi)) * np.stack([y, z, x])
    second = np.sqrt(15 / (4 * np.pi)) * np.stack([x * y, y * z, x * z, (x**2 - y**2) / 2])
    last = np.sqrt(5 / (16 * np.pi)) * (3 * z**2 - 1)
    return np.stack([constant, *first, *second, last], axis=1)


def sky(colour: np.ndarray) -> np.ndarray:
    """Return the radiance (9, 3) of uniform light under which a white surface has a colour (3,)."""
    radiance = np.zeros((9, 3))
    radiance[0] = np.sqrt(4 * np.pi) * colour
    return radiance


def lamp(direction: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Return the radiance (9, 3) of a distant lamp in a unit direction (3,); a white surface facing it has `colour`."""
    return np.pi * harmonics(direction[None]).T * colour


def brightness(normals: np.ndarray, radiance: np.ndarray) -> np.ndarray:
    """Return the colours (N, 3) of a white Lambertian surface with unit normals (N, 3), at least 0."""
    return np.maximum(harmonics(normals) @ (KEPT[:, None] * radiance), 0)
