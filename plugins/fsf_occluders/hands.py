"""Hands for synthetic occlusion: a posed 3D skeleton, rendered from the front and shaded.

Lengths are in units of the hand (wrist to the tip of the middle finger), x towards the little finger, y towards the
finger tips, z towards the viewer. Proportions are approximately those of an adult's hand.
"""

from collections.abc import Callable

import numpy as np

from fsf_occluders.relief import Relief, rotation
from fsf_occluders.textures import noise, random_colour, texture

Place = Callable[[np.ndarray], np.ndarray]  # from hand coordinates (3,) to the canvas
Bone = Callable[[np.ndarray, np.ndarray, tuple[float, float], float, bool], None]  # ends, radii, blend, nail

# Index, middle, ring and little finger: knuckle (x, y), three bone lengths, thickness, sideways angle in degrees.
FINGERS = (
    ((-0.140, 0.500), (0.220, 0.130, 0.095), 1.00, -9.0),
    ((-0.046, 0.525), (0.245, 0.150, 0.100), 1.04, -1.0),
    ((0.050, 0.510), (0.230, 0.140, 0.100), 0.98, 7.0),
    ((0.136, 0.460), (0.180, 0.105, 0.090), 0.86, 17.0),
)
BENDS = (70.0, 95.0, 60.0)  # degrees at the three joints of a closed finger
RADII = (0.056, 0.052, 0.047, 0.041)  # at the knuckle, the two joints and the tip
# Flexion of thumb, index, middle, ring and little finger: 0 open, 1 closed.
POSES = {
    "open": (0.0, 0.05, 0.05, 0.08, 0.1),
    "relaxed": (0.3, 0.2, 0.28, 0.34, 0.4),
    "fist": (0.9, 0.95, 0.97, 0.97, 0.95),
    "pointing": (0.7, 0.03, 0.85, 0.92, 0.92),
    "two": (0.8, 0.05, 0.05, 0.9, 0.9),
    "claw": (0.35, 0.5, 0.5, 0.52, 0.55),
    "pinch": (0.55, 0.5, 0.3, 0.25, 0.2),
}
TONES = np.array(  # sRGB of skin under uniform light, light to dark
    [
        [0.96, 0.82, 0.74],
        [0.90, 0.72, 0.60],
        [0.82, 0.62, 0.49],
        [0.68, 0.48, 0.36],
        [0.50, 0.34, 0.26],
        [0.34, 0.23, 0.18],
    ]
)


def skin(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Return a mottled skin texture (height, width, 3) float32 0..1 of random tone."""
    position = rng.uniform(0, len(TONES) - 1.001)
    low = int(position)
    tone = TONES[low] + (position - low) * (TONES[low + 1] - TONES[low])
    mottle = noise(rng, height, width, 6, 5)
    flush = noise(rng, height, width, 4, 2)
    colour = tone * (1 + 0.10 * mottle[..., None]) + flush[..., None] * np.array([0.05, -0.02, -0.02])
    return np.clip(colour, 0, 1).astype(np.float32)


def add_hand(relief: Relief, rng: np.random.Generator, wrist: tuple[float, float], length: float) -> None:
    """Draw one hand on a relief, fingers up, with the forearm or sleeve below.

    Parameters
    ----------
    wrist:
        (x, y) on the canvas.
    length:
        Pixels from the wrist to the tip of the middle finger.
    """
    palm = rng.random() < 0.4  # the palm faces the viewer, and fingers close towards the viewer
    closed = np.array(POSES[str(rng.choice(list(POSES)))]) + rng.normal(0, 0.06, 5)
    spread = rng.uniform(0.0, 1.5) * (1 - closed[1:].mean())
    side = 1.0 if rng.random() < 0.5 else -1.0
    tilt = (rng.uniform(-25, 25), rng.uniform(-40, 40), rng.uniform(-10, 10))
    turn = rotation(tilt)
    towards = 1.0 if palm else -1.0

    def canvas(point: np.ndarray) -> np.ndarray:
        x, y, z = turn @ (point * [side, 1.0, 1.0])
        return np.array([wrist[0] + x * length, wrist[1] - y * length, z * length])

    height, width = relief.z.shape
    colour = skin(rng, height, width)
    gloss, build = rng.uniform(0.05, 0.3), rng.uniform(0.9, 1.12)

    def bone(start: np.ndarray, end: np.ndarray, radii: tuple[float, float], blend: float, nail: bool) -> None:
        thick = (radii[0] * build * length, radii[1] * build * length)
        relief.cone(canvas(start), canvas(end), thick, colour, gloss, blend * length, nail)

    _forearm(relief, rng, canvas, colour, build * length)
    for (x, y), *_ in FINGERS:
        bone(np.array([x * 0.55, 0.02, 0.0]), np.array([x, y, 0.0]), (0.075, 0.058), 0.06, False)
    for ((x, y), bones, thickness, aside), close in zip(FINGERS, closed[1:], strict=True):
        _finger(bone, np.array([x, y, 0.0]), bones, thickness, aside * spread, close, towards, not palm)
    _thumb(bone, rng, closed[0], towards, not palm)


def _finger(
    bone: Bone,
    joint: np.ndarray,
    bones: tuple[float, float, float],
    thickness: float,
    aside: float,
    close: float,
    towards: float,
    nail: bool,
) -> None:
    bent, lean = 0.0, np.deg2rad(aside)
    for index, (bend, extent) in enumerate(zip(BENDS, bones, strict=True)):
        bent += np.deg2rad(bend * np.clip(close, -0.08, 1.05))
        forward = np.array([np.sin(lean) * np.cos(bent), np.cos(lean) * np.cos(bent), towards * np.sin(bent)])
        end = joint + extent * forward
        radii = (RADII[index] * thickness, RADII[index + 1] * thickness)
        bone(joint, end, radii, 0.05 if index == 0 else 0.03, nail and index == 2)
        joint = end


def _thumb(bone: Bone, rng: np.random.Generator, close: float, towards: float, nail: bool) -> None:
    out = np.deg2rad(rng.uniform(20, 55) * (1 - 0.7 * np.clip(close, 0, 1)))
    joint, lean, forward = np.array([-0.07, 0.07, 0.02 * towards]), out, towards * (0.15 + 0.5 * np.clip(close, 0, 1))
    for index, (extent, radii) in enumerate(((0.23, (0.085, 0.060)), (0.16, (0.058, 0.050)), (0.125, (0.050, 0.040)))):
        direction = np.array([-np.sin(lean), np.cos(lean), forward])
        end = joint + extent * direction / np.linalg.norm(direction)
        bone(joint, end, radii, 0.08 if index == 0 else 0.03, nail and index == 2)
        joint, lean = end, lean - np.deg2rad(12 + 45 * np.clip(close, 0, 1))


def _forearm(relief: Relief, rng: np.random.Generator, canvas: Place, colour: np.ndarray, length: float) -> None:
    lean = rng.uniform(-0.25, 0.25)
    ends = [np.array([x * 1.2 + lean * 1.5, -1.6, 0.0]) for x in (-0.055, 0.0, 0.055)]
    for x, end in zip((-0.055, 0.0, 0.055), ends, strict=True):
        relief.cone(
            canvas(np.array([x, 0.03, 0.0])), canvas(end), (0.078 * length, 0.15 * length), colour, 0.1, 0.12 * length
        )
    if rng.random() < 0.5:
        cuff = np.array([lean * 0.2, rng.uniform(-0.35, -0.08), 0.0])
        cloth = texture(rng, 128) if rng.random() < 0.4 else np.full((128, 128, 3), random_colour(rng))
        shape = relief.z.shape
        tiled = np.tile(cloth, (shape[0] // 128 + 1, shape[1] // 128 + 1, 1))[: shape[0], : shape[1]]
        folds = 1 + 0.25 * noise(rng, *shape, 8, 3)[..., None]
        end = np.array([lean * 1.5, -1.6, 0.0])
        relief.cone(canvas(cuff), canvas(end), (0.165 * length, 0.26 * length), np.clip(tiled * folds, 0, 1), 0.02)


def add_grip(
    relief: Relief, rng: np.random.Generator, centre: tuple[float, float], radius: float, length: float
) -> None:
    """Draw a hand around an upright object: four fingers in front, the back of the hand and the arm beside it.

    Parameters
    ----------
    centre:
        (x, y) of the centre of the grip on the canvas.
    radius:
        Half the thickness of the object, in pixels.
    length:
        Length of the hand in pixels.
    """
    colour, gloss, unit, (x, y) = skin(rng, *relief.z.shape), rng.uniform(0.05, 0.25), length, centre
    side = 1.0 if rng.random() < 0.5 else -1.0
    edge, drop = radius + 0.09 * unit, rng.uniform(0.02, 0.06) * unit
    rows = [y + (finger - 1.5) * 0.098 * unit for finger in range(4)]
    knuckles = [np.array([x + side * edge, row + drop, 0.35 * radius]) for row in rows]
    wrist = np.array([x + side * (edge + 0.16 * unit), y + 0.22 * unit, -0.3 * radius])
    for knuckle in knuckles:
        relief.cone(wrist, knuckle, (0.1 * unit, 0.06 * unit), colour, gloss, 0.05 * unit)
    for finger in reversed(range(4)):
        reach, thick = FINGERS[finger][1][0] * unit * rng.uniform(0.85, 1.1), FINGERS[finger][2] * unit
        front, along = x + side * 0.55 * radius, np.array([-side * reach, rng.uniform(-0.01, 0.03) * unit, 0.0])
        middle = np.array([front, rows[finger], 0.95 * radius + 0.05 * unit])
        tip = np.array([front, rows[finger], 0.85 * radius + 0.03 * unit]) + along
        relief.cone(knuckles[finger], middle, (0.056 * thick, 0.05 * thick), colour, gloss, 0.03 * unit)
        relief.cone(middle, tip, (0.05 * thick, 0.04 * thick), colour, gloss, 0.01 * unit, nail=rng.random() < 0.7)
    elbow = np.array([x + side * (edge + 0.5 * unit), y + 1.6 * unit, -0.5 * radius])
    relief.cone(wrist, elbow, (0.11 * unit, 0.17 * unit), colour, gloss, 0.08 * unit)
