"""Objects for synthetic occlusion: abstract objects, microphones, cups and phones, often held by a hand.

Each function returns the drawing of one upright object. `unit` is the side of an aligned crop in canvas pixels.
"""

from itertools import pairwise

import numpy as np

from fsf_occluders.hands import add_grip, add_hand
from fsf_occluders.relief import Drawing, Relief, rotation
from fsf_occluders.textures import noise, random_colour, texture

FORMS = ["box", "box", "ellipsoid", "cylinder", "rounded", "dome"]
TEXTURE = 160  # side of a texture in pixels


def hand(rng: np.random.Generator, unit: int) -> Drawing:
    """Return a hand with its forearm; the anchor is between palm and fingers."""
    height, width, length = round(1.5 * unit), round(0.9 * unit), 0.62 * unit
    relief = Relief(height, width)
    add_hand(relief, rng, (0.5 * width, 0.85 * unit), length)
    colour = relief.shade(rng, 0.11 * length, softness=0.14)
    return Drawing(colour, relief.solid.astype(np.float32), (0.5 * width, 0.85 * unit - 0.52 * length))


def thing(rng: np.random.Generator, unit: int) -> Drawing:
    """Return an abstract object of one to four solids, rods and plates, each with a random material."""
    side = round(0.9 * unit)
    relief, middle = Relief(side, side), 0.5 * side
    tilt = rotation(tuple(rng.uniform(-60, 60, 3)))
    if rng.random() < 0.25:
        relief.plate(
            _outline(rng, side, 0.34 * unit), 0.0, rng.uniform(0.01, 0.12) * unit, _cloth(rng, side), rng.random()
        )
    else:
        half = tuple(rng.uniform(0.06, 0.27, 3) * unit)
        relief.convex((middle, middle, 0.0), half, tilt, texture(rng, TEXTURE), str(rng.choice(FORMS)), rng.random())
    for _ in range(rng.integers(0, 4)):
        x, y = middle + rng.uniform(-0.22, 0.22, 2) * unit
        depth = float(rng.uniform(-0.15, 0.15) * unit)
        if rng.random() < 0.35:
            end = middle + rng.uniform(-0.32, 0.32, 2) * unit
            radii = tuple(rng.uniform(0.008, 0.05, 2) * unit)
            relief.cone((x, y, depth), np.array([*end, -depth]), radii, random_colour(rng), rng.random())
        else:
            half = tuple(rng.uniform(0.02, 0.16, 3) * unit)
            turn = tilt if rng.random() < 0.6 else rotation(tuple(rng.uniform(-90, 90, 3)))
            relief.convex((x, y, depth), half, turn, texture(rng, TEXTURE), str(rng.choice(FORMS)), rng.random())
    colour = relief.shade(rng, 0.08 * unit)
    return Drawing(colour, relief.solid.astype(np.float32), (middle, middle))


def _outline(rng: np.random.Generator, side: int, radius: float) -> np.ndarray:
    """Return a mask (side, side) bool of a random blob, star or polygon around the canvas's centre."""
    y, x = np.mgrid[:side, :side] - 0.5 * side
    around, away = np.arctan2(y, x * rng.uniform(0.6, 1.6)), np.hypot(x, y)
    if rng.random() < 0.5:
        waves = np.arange(2, 7)
        sizes, phases = rng.normal(0, 0.25, 5) / waves**0.7, rng.uniform(0, 2 * np.pi, 5)
        limit = 0.7 + sum(
            size * np.cos(wave * around + phase) for wave, size, phase in zip(waves, sizes, phases, strict=True)
        )
    else:
        corners = rng.integers(3, 9)
        sector = (around + rng.uniform(0, 2 * np.pi)) % (2 * np.pi / corners) - np.pi / corners
        limit = 0.8 * (np.cos(np.pi / corners) / np.cos(sector)) ** rng.choice([1.0, 1.0, -2.0])
    return away < np.clip(limit, 0.2, 1.1) * radius


def _cloth(rng: np.random.Generator, side: int) -> np.ndarray:
    cloth = texture(rng, TEXTURE)
    repeats = side // TEXTURE + 1
    return np.tile(cloth, (repeats, repeats, 1))[:side, :side]


def microphone(rng: np.random.Generator, unit: int) -> Drawing:
    """Return a microphone on a stick or in a hand; the anchor is the centre of its head."""
    height, width = round(1.3 * unit), round(0.9 * unit)
    relief, x, radius = Relief(height, width), 0.5 * width, rng.uniform(0.055, 0.11) * unit
    y, stick, dark = 0.2 * unit, rng.uniform(0.3, 0.6) * radius, rng.uniform(0.03, 0.3, 3) ** np.array([1.2, 1.0, 0.9])
    head = _mesh(rng) if rng.random() < 0.5 else _foam(rng)
    relief.cone(
        (x, y, -0.2 * radius),
        (x, height + unit, -0.2 * radius),
        (stick * 1.2, stick),
        dark.astype(np.float32),
        rng.random(),
    )
    long = (radius, radius * rng.uniform(1.0, 1.5), radius)
    relief.convex((x, y, 0.0), long, rotation((0, 20, 0)), head, "ellipsoid", 0.3)
    band = np.broadcast_to(random_colour(rng), (TEXTURE, TEXTURE, 3)).astype(np.float32).copy()
    relief.convex((x, y + long[1], 0.0), (stick * 1.4, 0.25 * radius, stick * 1.4), np.eye(3), band, "cylinder", 0.8)
    if rng.random() < 0.6:
        add_grip(relief, rng, (x, y + long[1] + rng.uniform(0.22, 0.4) * unit), stick, 0.58 * unit)
    colour = relief.shade(rng, 0.07 * unit, softness=0.06)
    return Drawing(colour, relief.solid.astype(np.float32), (x, y))


def _mesh(rng: np.random.Generator) -> np.ndarray:
    """Return a texture of fine wire mesh, (SKIN, SKIN, 3) float32 0..1."""
    wires = np.add.outer(np.arange(TEXTURE), np.arange(TEXTURE)) // 4 % 2 * 0.35 + 0.25
    grey = np.clip(wires * rng.uniform(0.5, 2.0), 0, 1).astype(np.float32)
    return np.dstack([grey, grey, grey])


def _foam(rng: np.random.Generator) -> np.ndarray:
    """Return a texture of coloured foam, (SKIN, SKIN, 3) float32 0..1."""
    grain = 1 + 0.5 * noise(rng, TEXTURE, TEXTURE, 40, 2)[..., None]
    return np.clip(random_colour(rng) * rng.uniform(0.15, 1) * grain, 0, 1).astype(np.float32)


def cup(rng: np.random.Generator, unit: int) -> Drawing:
    """Return a cup, can, bottle or bowl, usually in a hand; the anchor is near its rim."""
    height, width = round(1.4 * unit), round(1.2 * unit)
    relief, x, y = Relief(height, width), 0.5 * width, 0.42 * unit
    radius, tall = rng.uniform(0.09, 0.16) * unit, rng.uniform(0.11, 0.24) * unit
    turn, skin = rotation((rng.uniform(-35, 20), 0, 0)), texture(rng, TEXTURE)
    relief.convex(
        (x, y, 0.0), (radius, tall, radius), turn, skin, str(rng.choice(["cylinder", "cylinder", "dome"])), rng.random()
    )
    if rng.random() < 0.3:
        neck = 0.4 * radius
        relief.convex((x, y - 1.2 * tall, 0.0), (neck, 0.4 * tall, neck), turn, skin, "cylinder", rng.random())
    if rng.random() < 0.4:
        side, thick, colour = rng.choice([-1.0, 1.0]), 0.13 * radius, skin[0, 0]
        angles = np.linspace(-1.4, 1.4, 9)
        loop = np.stack(
            [x + side * (0.9 + 0.55 * np.cos(angles)) * radius, y + 0.6 * tall * np.sin(angles), 0 * angles], axis=1
        )
        for start, end in pairwise(loop):
            relief.cone(start, end, (thick, thick), colour, 0.5, blend=thick)
    if rng.random() < 0.7:
        add_grip(relief, rng, (x, y + rng.uniform(-0.1, 0.4) * tall), radius, rng.uniform(0.5, 0.62) * unit)
    colour = relief.shade(rng, 0.07 * unit, softness=0.06)
    return Drawing(colour, relief.solid.astype(np.float32), (x, y - 0.8 * tall))


def phone(rng: np.random.Generator, unit: int) -> Drawing:
    """Return a phone, book or sheet, usually in a hand; the anchor is its centre."""
    height, width = round(1.4 * unit), round(1.2 * unit)
    relief, x, y = Relief(height, width), 0.5 * width, 0.45 * unit
    half = (rng.uniform(0.11, 0.16) * unit, rng.uniform(0.2, 0.3) * unit, rng.uniform(0.006, 0.03) * unit)
    turn = rotation((rng.uniform(-30, 30), rng.uniform(-45, 45), 0))
    relief.convex((x, y, 0.0), half, turn, texture(rng, TEXTURE), "box", rng.random())
    if rng.random() < 0.6:
        lens = np.zeros((TEXTURE, TEXTURE, 3), np.float32) + rng.uniform(0.02, 0.15)
        for row in range(rng.integers(1, 4)):
            x_own, y_own = -0.6 * half[0], (-0.8 + 0.22 * row) * half[1]
            spot = np.array([x, y, 0]) + turn @ np.array([x_own, y_own, half[2]])
            relief.convex(tuple(spot), (0.02 * unit, 0.02 * unit, 0.012 * unit), turn, lens, "ellipsoid", 1.0)
    if rng.random() < 0.75:
        thick = half[0] * abs(turn[0, 0])
        add_grip(relief, rng, (x, y + rng.uniform(0.0, 0.6) * half[1]), thick, rng.uniform(0.5, 0.62) * unit)
    colour = relief.shade(rng, 0.06 * unit, softness=0.06)
    return Drawing(colour, relief.solid.astype(np.float32), (x, y))
