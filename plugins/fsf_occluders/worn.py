"""Worn occluders for synthetic occlusion: glasses, masks, scarves, and hair in the face.

Each function returns a drawing in the frame of the aligned crop (`fsframework.faces.align.TEMPLATE`). `unit` is the
side of the crop in canvas pixels.
"""

import cv2
import numpy as np

from fsf_occluders.relief import Drawing, Relief
from fsf_occluders.textures import noise, random_colour, texture
from fsframework.faces.align import TEMPLATE

EYES = TEMPLATE[:2].mean(axis=0)
MOUTH = TEMPLATE[2:].mean(axis=0)


def glasses(rng: np.random.Generator, unit: int) -> Drawing:
    """Return glasses with clear lenses or sunglasses; the anchor is between the eyes."""
    y, x = (np.mgrid[:unit, :unit].astype(np.float32) + 0.5) / unit
    wide, tall, power = rng.uniform(0.088, 0.115), rng.uniform(0.05, 0.095), rng.uniform(2.0, 5.0)
    rim, drop, droop = rng.uniform(0.006, 0.026), rng.uniform(0.0, 0.025), rng.uniform(-0.15, 0.45)
    lens, frame = np.zeros((unit, unit), bool), np.zeros((unit, unit), np.uint8)
    for side, eye in zip((-1, 1), TEMPLATE[:2], strict=True):
        across, down = x - eye[0] - side * 0.008, y - eye[1] - drop
        across = across / (1 - 0.5 * droop * np.clip(down / tall, -1, 1))  # narrower below
        inner = np.abs(across / wide) ** power + np.abs(down / tall) ** power < 1
        outer = np.abs(across / (wide + rim)) ** power + np.abs(down / (tall + rim)) ** power < 1
        lens |= inner
        frame |= (outer & ~inner).astype(np.uint8)
        hinge = np.array([eye[0] + side * (wide + 0.01), eye[1] + drop - 0.5 * tall])
        ear = np.array([0.504 + side * 0.29, hinge[1] + rng.uniform(-0.02, 0.02)])
        _line(frame, hinge, ear, max(rim, 0.01))
    _line(
        frame,
        np.array([TEMPLATE[0, 0] + wide - 0.012, EYES[1]]),
        np.array([TEMPLATE[1, 0] - wide + 0.012, EYES[1]]),
        max(rim, 0.01),
    )
    frame &= (~lens).astype(np.uint8)
    relief = Relief(unit, unit)
    metal = rng.random() < 0.4
    paint = random_colour(rng) * rng.uniform(0.1, 0.9) + (0.3 if metal else 0.0)
    relief.plate(frame > 0, 0.0, max(rim / 2, 0.003) * unit, np.clip(paint, 0, 1), 1.0 if metal else 0.5)
    colour = relief.shade(rng, 0.03 * unit)
    dark = rng.random() < 0.6
    tint = random_colour(rng) * (rng.uniform(0.0, 0.35) if dark else 0.8)
    slope = np.clip((y - EYES[1]) / tall * rng.uniform(0, 0.5), -0.4, 0.4)[..., None]
    glare = np.clip(noise(rng, unit, unit, 5, 2) * rng.uniform(0, 1.5) - 0.25, 0, 0.6)[..., None]
    glass = np.clip(tint + 0.3 * slope + glare, 0, 1)
    opaque = rng.uniform(0.75, 1.0) if dark else rng.uniform(0.03, 0.25)
    alpha = np.where(lens, np.clip(opaque + glare[..., 0], 0, 1), 0) + frame
    return Drawing(
        np.where(lens[..., None], glass, colour).astype(np.float32), alpha.astype(np.float32), _pixel(EYES, unit)
    )


def mask(rng: np.random.Generator, unit: int) -> Drawing:
    """Return a mask with its strings, or a scarf; the anchor is between nose and mouth."""
    high = round(1.2 * unit)
    y, x = (np.mgrid[:high, :unit].astype(np.float32) + 0.5) / unit
    across = (x - 0.504) / 0.3
    dome = 0.22 * np.sqrt(np.clip(1 - across**2, 0.02, 1)) - 0.25 * (y - 0.7) ** 2
    wrinkles = noise(rng, high, unit, 4, 4)
    relief = Relief(high, unit)
    if rng.random() < 0.4:
        top, sag = rng.uniform(0.55, 0.72), rng.uniform(-0.02, 0.08)
        out = rng.uniform(0.3, 0.4)
        half = np.array([[0, top], [0.09, top + 0.4 * sag], [out, top + sag], [0.42, 1.4], [0, 1.4]])
        lean = rng.uniform(-0.25, 0.25)
        folds = 0.02 * wrinkles + 0.012 * np.sin((y + lean * across**2) * rng.uniform(40, 90))
        cloth = cv2.resize(texture(rng, 160), (unit, high), interpolation=cv2.INTER_LINEAR)
    else:
        top, low, out = rng.uniform(0.535, 0.59), rng.uniform(0.88, 0.95), rng.uniform(0.2, 0.245)
        side = top + rng.uniform(0.02, 0.07)
        half = np.array([[0, top], [0.09, top + 0.01], [out, side], [out - 0.015, 0.78], [0.13, low - 0.02], [0, low]])
        pleats = (rng.random() < 0.6) * 0.006 * ((y - 0.06 * across**2) * 12 % 1) * (np.abs(y - 0.73) < 0.12)
        folds = pleats + 0.006 * wrinkles
        cloth = _mask_cloth(rng, high, unit)
        relief.plate(_strings(rng, (high, unit), out, (side + 0.01, 0.78)), 0.0, 0.004 * unit, np.full(3, 0.9), 0.0)
    relief.plate(_mirrored(half, (high, unit)), (dome + folds).astype(np.float32) * unit, 0.008 * unit, cloth, 0.05)
    colour = relief.shade(rng, 0.05 * unit, softness=0.03)
    return Drawing(colour, relief.solid.astype(np.float32), _pixel(MOUTH, unit))


def _mirrored(half: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return a mask `shape` bool of a rounded area, given by the right half of its outline (N, 2), x from the nose."""
    contour = np.concatenate([half, half[::-1] * [-1, 1]]) + np.array([0.504, 0.0])
    area = np.zeros(shape, np.uint8)
    cv2.fillPoly(area, [np.rint(contour * shape[1]).astype(np.int32)], 1)
    return cv2.GaussianBlur(area.astype(np.float32), (0, 0), 0.02 * shape[1]) > 0.5


def _strings(rng: np.random.Generator, shape: tuple[int, int], out: float, heights: tuple[float, float]) -> np.ndarray:
    """Return a mask `shape` bool of a face mask's strings, from its corners to the ears."""
    canvas = np.zeros(shape, np.uint8)
    for side in (-1, 1):
        ear = np.array([0.504 + side * 0.31, rng.uniform(0.48, 0.56)])
        for height in heights:
            _line(canvas, np.array([0.504 + side * (out - 0.02), height]), ear, 0.008)
    return canvas > 0


def _mask_cloth(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    if rng.random() < 0.3:
        return cv2.resize(texture(rng, 160), (width, height), interpolation=cv2.INTER_LINEAR)
    plain = np.array([[0.65, 0.8, 0.9], [0.93, 0.94, 0.95], [0.1, 0.1, 0.11], random_colour(rng)], np.float32)
    return np.broadcast_to(plain[rng.integers(4)], (height, width, 3))


def hair(rng: np.random.Generator, unit: int) -> Drawing:
    """Return locks that fall from the forehead over a part of the face; the anchor is at their roots."""
    height, width = round(1.1 * unit), unit
    picture, cover = np.zeros((height, width, 3), np.float32), np.zeros((height, width), np.float32)
    tones = np.array(
        [[0.10, 0.08, 0.07], [0.22, 0.15, 0.10], [0.36, 0.24, 0.15], [0.62, 0.48, 0.30], [0.55, 0.53, 0.50]]
    )
    base = tones[rng.integers(len(tones))] * rng.uniform(0.7, 1.2)
    fall, begin = rng.uniform(-0.28, 0.28), 0.5 + rng.uniform(-0.15, 0.15)  # the same for all locks
    shine, band = rng.uniform(0.1, 0.5), rng.uniform(0.2, 0.6)
    for _ in range(rng.integers(1, 5)):
        root = np.array([begin + rng.normal(0, 0.07), 0.1])
        tip = root + np.array([fall + rng.normal(0, 0.06), rng.uniform(0.25, 0.7)])
        bend = root + np.array([rng.uniform(0.2, 1.1) * (tip - root)[0], 0.5 * (tip - root)[1]])
        curl = rng.normal(0, 0.015)
        for _ in range(rng.integers(60, 160)):
            aside = rng.normal(0, 0.028)
            ends = [root + np.array([aside, 0]), bend + np.array([aside + curl, 0]), tip + np.array([0.4 * aside, 0])]
            _strand(picture, cover, rng, ends, base, (shine, band))
    return Drawing(picture, np.clip(cover, 0, 1), (0.5 * unit, 0.12 * unit))


def _strand(  # one hair, or a few stuck together
    picture: np.ndarray,
    cover: np.ndarray,
    rng: np.random.Generator,
    ends: list[np.ndarray],
    base: np.ndarray,
    gleam: tuple[float, float],
) -> None:
    unit, t = picture.shape[1], np.linspace(0, 1, 12)[:, None]
    first, second, third = (end + rng.normal(0, [0.004, 0.02]) for end in ends)
    path = (1 - t) ** 2 * first + 2 * t * (1 - t) * second + t**2 * third
    points = np.rint(path * unit * 16).astype(np.int32)
    thick, light = max(round(0.005 * unit * rng.uniform(0.5, 1.3)), 1), rng.uniform(0.8, 1.15)
    cv2.polylines(cover, [points], False, 1.0, thick, cv2.LINE_AA, 4)
    glow = light * (0.75 + gleam[0] * np.exp(-(((t - gleam[1]) / 0.15) ** 2)) + 0.15 * t)
    for start, end, shade in zip(points[:-1], points[1:], np.clip(base * glow, 0, 1), strict=False):
        cv2.line(picture, start, end, shade.tolist(), thick + 1, cv2.LINE_AA, 4)


def _line(canvas: np.ndarray, start: np.ndarray, end: np.ndarray, thick: float) -> None:
    """Draw a line on the canvas, in units of its side."""
    unit = canvas.shape[1]
    ends = [np.rint(point * unit).astype(int).tolist() for point in (start, end)]
    cv2.line(canvas, ends[0], ends[1], 1, max(round(thick * unit), 1))


def _pixel(point: np.ndarray, unit: int) -> tuple[float, float]:
    return float(point[0] * unit - 0.5), float(point[1] * unit - 0.5)
