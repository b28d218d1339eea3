"""Light by spherical harmonics of the second order (Ramamoorthi and Hanrahan, "An Efficient Representation for
Irradiance Environment Maps", SIGGRAPH 2001).

Light comes from far away and surfaces are matt (Lambert's law): how bright a white surface is depends on its normal
only, and nine numbers a colour tell it within a few percent. Nothing casts a shadow. Directions are unit vectors with x
to the viewer's right, y down, z away: (0, 0, -1) looks at the viewer.
"""

import numpy as np

# What a matt surface leaves of each order, over pi, so that light of 1 from everywhere makes a white surface 1 (their
# equation 8: pi, 2 pi / 3 and pi / 4).
KEPT = np.array([1, *[2 / 3] * 3, *[1 / 4] * 5])


def harmonics(directions: np.ndarray) -> np.ndarray:
    """The nine real harmonics (N, 9) at unit directions (N, 3): one of order 0, three of order 1, five of order 2."""
    x, y, z = directions.T
    constant = np.full_like(x, 0.5 / np.sqrt(np.pi))
    first = np.sqrt(3 / (4 * np.pi)) * np.stack([y, z, x])
    second = np.sqrt(15 / (4 * np.pi)) * np.stack([x * y, y * z, x * z, (x**2 - y**2) / 2])
    last = np.sqrt(5 / (16 * np.pi)) * (3 * z**2 - 1)
    return np.stack([constant, *first, *second, last], axis=1)


def sky(colour: np.ndarray) -> np.ndarray:
    """The radiance (9, 3) of light from everywhere that makes a white surface a colour (3,)."""
    radiance = np.zeros((9, 3))
    radiance[0] = np.sqrt(4 * np.pi) * colour
    return radiance


def lamp(direction: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """The radiance (9, 3) of a far lamp in a unit direction (3,) that makes a white surface facing it a colour (3,)."""
    return np.pi * harmonics(direction[None]).T * colour


def brightness(normals: np.ndarray, radiance: np.ndarray) -> np.ndarray:
    """Colours (N, 3) of a white matt surface with unit normals (N, 3), not below 0."""
    return np.maximum(harmonics(normals) @ (KEPT[:, None] * radiance), 0)
