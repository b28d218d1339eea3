"""Renderer of shaded shapes for synthetic occluders, based on a height map in frontal view.

A `Relief` holds the height of the nearest surface for every pixel. Round cones and convex solids are added with a depth
test, and a single light shades the result. Lengths are canvas pixels, x to the right, y down, z towards the viewer;
colours are sRGB, 0..1.
"""

from dataclasses import dataclass

import cv2
import numpy as np

FAR = np.float32(-1e4)  # height of empty pixels

Point = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Drawing:
    """Image of an occluder with transparency."""

    colour: np.ndarray  # (H, W, 3) float32 0..1
    alpha: np.ndarray  # (H, W) float32 0..1
    anchor: tuple[float, float]  # (x, y) of the pixel that is placed on the face


def rotation(degrees: tuple[float, float, float]) -> np.ndarray:
    """Return the rotation matrix (3, 3) about x, then y, then z."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


class Relief:
    """Canvas of heights, colours and gloss.

    Parameters
    ----------
    height, width:
        Sides of the canvas in pixels.
    """

    def __init__(self, height: int, width: int) -> None:
        self.z = np.full((height, width), FAR, np.float32)
        self.colour = np.zeros((height, width, 3), np.float32)
        self.gloss = np.zeros((height, width), np.float32)

    @property
    def solid(self) -> np.ndarray:
        """Mask (height, width) bool of non-empty pixels."""
        return self.z > FAR / 2

    def _window(self, low: np.ndarray, high: np.ndarray) -> tuple[slice, slice] | None:
        """Return the slices of the canvas that contain a box with (x, y) corners, or None if it is outside."""
        height, width = self.z.shape
        left, top = np.maximum(np.floor(low[:2]), 0).astype(int)
        right, bottom = np.minimum(np.ceil(high[:2]) + 1, [width, height]).astype(int)
        return (slice(top, bottom), slice(left, right)) if right > left and bottom > top else None

    def _merge(
        self, window: tuple[slice, slice], z: np.ndarray, colour: np.ndarray, gloss: float, blend: float
    ) -> None:
        """Merge a surface by a depth test; surfaces whose heights differ by less than `blend` are blended smoothly."""
        old = self.z[window]
        share = (z > old).astype(np.float32)
        top = np.maximum(z, old)
        if blend > 0:
            near = np.clip(1 - np.abs(z - old) / blend, 0, 1) * (np.minimum(z, old) > FAR / 2)
            top = top + near**2 * blend / 4
            share = share + near * (0.5 - share)
        self.z[window] = top
        self.colour[window] += share[..., None] * (colour - self.colour[window])
        self.gloss[window] += share * (gloss - self.gloss[window])

    def cone(
        self,
        start: Point | np.ndarray,
        end: Point | np.ndarray,
        radii: tuple[float, float],
        colour: np.ndarray,
        gloss: float = 0.1,
        blend: float = 0.0,
        nail: bool = False,
    ) -> None:
        """Add a round cone: a limb from `start` to `end` with linearly changing radius.

        Parameters
        ----------
        colour:
            (3,), or (height, width, 3) for the whole canvas.
        blend:
            Width in pixels of the smooth blend with existing surfaces.
        nail:
            Whether to draw a finger nail at the end.
        """
        a, b = np.asarray(start, np.float32), np.asarray(end, np.float32)
        widest = max(radii)
        window = self._window(np.minimum(a, b) - widest, np.maximum(a, b) + widest)
        if window is None:
            return
        y, x = np.ogrid[window]
        px, py = (x - a[0]).astype(np.float32), (y - a[1]).astype(np.float32)
        along = (b - a)[:2]
        length = float(np.hypot(*along)) + 1e-6
        reach = (px * along[0] + py * along[1]) / length
        t = np.clip(reach / length, 0, 1)
        aside = (px * along[1] - py * along[0]) / length
        radius = radii[0] + (radii[1] - radii[0]) * t
        rest = radius**2 - aside**2 - (reach - t * length) ** 2
        z = np.where(rest > 0, a[2] + (b[2] - a[2]) * t + np.sqrt(np.maximum(rest, 0)), FAR)
        paint = colour[window] if colour.ndim == 3 else np.broadcast_to(colour, (*z.shape, 3))
        if nail:
            far = (reach - 0.72 * length - 0.15 * radii[1]) / (0.95 * radii[1])
            plate = np.clip(4 * (1 - far**4 - (aside / (0.68 * radii[1])) ** 4), 0, 1)[..., None]
            paint = paint + plate * (0.35 * (np.array([1.0, 0.86, 0.82], np.float32) - paint))
        self._merge(window, z.astype(np.float32), paint, gloss, blend)

    def convex(
        self,
        centre: Point,
        half: tuple[float, float, float],
        turn: np.ndarray,
        skin: np.ndarray,
        form: str = "box",
        gloss: float = 0.3,
    ) -> None:
        """Add a convex solid covered with a texture.

        Parameters
        ----------
        half:
            Half of the extent along the object's axes.
        turn:
            (3, 3) rotation from object to canvas axes.
        skin:
            (side, side, 3) texture, wrapped around the solid.
        form:
            "box", "ellipsoid", "cylinder" (along the object's y), "rounded" (a box without corners) or "dome".
        """
        middle, extent = np.asarray(centre, np.float32), np.asarray(half, np.float32)
        window = self._window(middle - np.linalg.norm(extent), middle + np.linalg.norm(extent))
        if window is None:
            return
        y, x = np.mgrid[window].astype(np.float32)
        inverse = turn.T.astype(np.float32)
        origin = np.stack([x - middle[0], y - middle[1], np.zeros_like(x)], axis=-1) @ inverse.T / extent
        ray = inverse[:, 2] / extent  # object coordinates in units of `half`, along the line of sight
        low, high = np.full_like(x, -1e9), np.full_like(x, 1e9)
        slabs = {"box": (0, 1, 2), "ellipsoid": (), "cylinder": (1,), "rounded": (0, 1, 2), "dome": (1,)}[form]
        balls = {
            "box": (),
            "ellipsoid": (1, 1, 1),
            "cylinder": (1, 0, 1),
            "rounded": (0.6, 0.6, 0.6),
            "dome": (1, 0.5, 1),
        }[form]
        for axis in slabs:
            step = ray[axis] if abs(ray[axis]) > 1e-6 else 1e-6
            ends = np.stack([(-1 - origin[..., axis]) / step, (1 - origin[..., axis]) / step])
            low, high = np.maximum(low, ends.min(axis=0)), np.minimum(high, ends.max(axis=0))
        if balls:
            weight = np.asarray(balls, np.float32)
            p, q, r = (weight * ray**2).sum(), (origin * ray) @ weight, origin**2 @ weight - 1
            inner = q**2 - p * r
            root = np.sqrt(np.maximum(inner, 0))
            low = np.where(inner > 0, np.maximum(low, (-q - root) / p), 1e9)
            high = np.minimum(high, (-q + root) / p)
        inside = high > low
        top = np.where(inside, high, 0)
        local = (origin + top[..., None] * ray) * extent
        scale = len(skin) / (2.4 * float(extent.max()))
        u, v = ((local[..., axis] + 0.6 * local[..., 2]) * scale + len(skin) / 2 for axis in (0, 1))
        paint = cv2.remap(skin, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        self._merge(window, np.where(inside, middle[2] + top, FAR).astype(np.float32), paint, gloss, 0.0)

    def plate(self, mask: np.ndarray, base: np.ndarray | float, edge: float, colour: np.ndarray, gloss: float) -> None:
        """Add a flat plate with rounded rim, given by its mask.

        Parameters
        ----------
        mask:
            (height, width) bool.
        base:
            Height; an array for folds.
        edge:
            Radius of the rim in pixels.
        colour:
            (3,) or (height, width, 3).
        """
        inward = np.minimum(cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5), edge)
        z = np.where(mask, base + np.sqrt(np.maximum(edge**2 - (edge - inward) ** 2, 0)), FAR).astype(np.float32)
        paint = np.broadcast_to(colour, (*z.shape, 3))
        self._merge((slice(None), slice(None)), z, paint, gloss, 0.0)

    def shade(self, rng: np.random.Generator, scale: float, softness: float = 0.02) -> np.ndarray:
        """Return the shaded image (height, width, 3) float32 0..1.

        Parameters
        ----------
        scale:
            Typical thickness in pixels, the range of ambient occlusion and shadows.
        softness:
            Smoothing of slopes, in units of `scale`, which hides seams between limbs.
        """
        solid = self.solid
        z = np.where(solid, self.z, 0.0).astype(np.float32)
        nx, ny = (-_smooth(_slope(self.z, solid, axis), solid, softness * scale) for axis in (1, 0))
        size = np.sqrt(nx**2 + ny**2 + 1)
        side, above, front = rng.uniform(-0.9, 0.9), rng.uniform(0.2, 1.0), rng.uniform(0.6, 1.4)
        light = np.array([side, -above, front]) / np.linalg.norm([side, above, front])
        diffuse = (nx * light[0] + ny * light[1] + light[2]) / size
        wrap = rng.uniform(0.2, 0.7)  # wrapped diffuse shading
        diffuse = np.clip((diffuse + wrap) / (1 + wrap), 0, 1) * _shadow(self.z, light, scale, rng.uniform(0.3, 0.8))
        weight = cv2.GaussianBlur(solid.astype(np.float32), (0, 0), 0.5 * scale)
        around = cv2.GaussianBlur(z, (0, 0), 0.5 * scale) / np.maximum(weight, 1e-3)
        crevice = np.exp(-0.9 * np.clip((around - z) / scale, 0, 2))
        ambient = rng.uniform(0.3, 0.6) * (0.85 - 0.15 * ny / size)
        half = light + np.array([0, 0, 1])
        half = half / np.linalg.norm(half)
        shine = np.clip((nx * half[0] + ny * half[1] + half[2]) / size, 0, 1) ** 24
        lit = crevice * (ambient + (1.12 - ambient) * diffuse)
        return np.clip(self.colour * lit[..., None] + (0.5 * self.gloss * shine * crevice)[..., None], 0, 1)


def _slope(z: np.ndarray, solid: np.ndarray, axis: int) -> np.ndarray:
    """Return the smaller of the differences to both neighbours, which avoids false slopes at depth discontinuities."""
    ahead = np.diff(z, axis=axis, append=z.take([-1], axis=axis))
    behind = np.diff(z, axis=axis, prepend=z.take([0], axis=axis))
    gentle = np.where(np.abs(ahead) < np.abs(behind), ahead, behind)
    return np.where(solid, np.clip(gentle, -4, 4), 0).astype(np.float32)


def _smooth(values: np.ndarray, solid: np.ndarray, sigma: float) -> np.ndarray:
    weight = cv2.GaussianBlur(solid.astype(np.float32), (0, 0), max(sigma, 0.3))
    return cv2.GaussianBlur(values, (0, 0), max(sigma, 0.3)) / np.maximum(weight, 1e-3)


def _shadow(z: np.ndarray, light: np.ndarray, scale: float, depth: float) -> np.ndarray:
    """Return the shadow factor (height, width) float32, from 1 - depth to 1."""
    blocked = np.zeros_like(z)
    for reach in (0.3, 0.6, 1.0, 1.6):
        move = np.array([[1, 0, -light[0] * reach * scale], [0, 1, -light[1] * reach * scale]])
        occluder = cv2.warpAffine(z, move, z.shape[::-1], flags=cv2.INTER_NEAREST, borderValue=float(FAR))
        blocked = np.maximum(blocked, np.clip((occluder - z - light[2] * reach * scale) / (0.25 * scale), 0, 1))
    return 1 - depth * cv2.GaussianBlur(blocked, (0, 0), 0.12 * scale)
