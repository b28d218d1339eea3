"""Synthetic occlusion for HEAR-Net's training: draw an occluder, place it, match its colours, and composite it.

FaceShifter (arXiv:1912.13457, section 3.2) composites hands of EgoHands and GTEA and renderings of ShapeNet objects,
with random rotation, rescaling and colour matching. The licences of those datasets restrict their use. Occluders are
therefore drawn: a hand is a posed skeleton, an object is composed of solids. A folder of cut-outs is an alternative.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

from fsf_occluders.objects import cup, hand, microphone, phone, thing
from fsf_occluders.relief import Drawing
from fsf_occluders.worn import EYES, MOUTH, glasses, hair, mask
from fsframework.faces.align import fit_similarity, template, transform

LARGEST = 0.6  # maximum covered fraction of the face
ATTEMPTS = 8  # maximum number of placements that are tried


@dataclass(frozen=True, eq=False)
class Occluder:
    """Cut-out of an occluder, at the size on an aligned crop for scale 1."""

    rgba: np.ndarray  # (H, W, 4) uint8, straight alpha
    anchor: np.ndarray  # (2,) x, y of the pixel that is placed on the face


@dataclass(frozen=True)
class Spread:
    """Distribution of placements on an aligned face, uniform within the limits."""

    centre: tuple[float, float]  # in units of the crop's side
    reach: tuple[float, float]  # maximum distance from the centre, in x and in y
    angle: float  # degrees to either side of upright
    scale: tuple[float, float]
    least: float = 0.05  # minimum covered fraction of the face
    beside: float = 0.0  # shift to one side or the other, in units of the crop's side

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, float, float]:
        """Return a random point (2,) in units of the crop's side, an angle in degrees, and a scale."""
        point = np.array(self.centre) + rng.uniform(-1, 1, 2) * self.reach
        point[0] += self.beside * rng.choice([-1.0, 1.0])
        return point, float(rng.uniform(-self.angle, self.angle)), float(rng.uniform(*self.scale))


ANYWHERE = Spread((0.504, 0.62), (0.22, 0.24), 90, (0.5, 1.0))
KINDS: dict[str, tuple[Callable[[np.random.Generator, int], Drawing], Spread]] = {
    "hand": (hand, Spread((0.504, 0.64), (0.22, 0.22), 90, (0.7, 1.2))),
    "object": (thing, ANYWHERE),
    "microphone": (microphone, Spread((0.504, 0.83), (0.14, 0.08), 40, (0.8, 1.2), least=0.03)),
    "cup": (cup, Spread((0.504, 0.76), (0.08, 0.06), 25, (0.7, 1.1))),
    "phone": (phone, Spread((0.504, 0.60), (0.10, 0.16), 40, (0.7, 1.1), beside=0.12)),
    "glasses": (glasses, Spread((EYES[0], EYES[1]), (0.008, 0.012), 3, (0.93, 1.08), least=0.01)),
    "mask": (mask, Spread((MOUTH[0], MOUTH[1]), (0.012, 0.02), 3, (0.93, 1.08))),
    "hair": (hair, Spread((0.504, 0.20), (0.08, 0.05), 12, (0.8, 1.15), least=0.02)),
}


def draw_occluder(kind: str, rng: np.random.Generator, size: int) -> Occluder:
    """Return a random occluder, supersampled for smooth edges.

    Parameters
    ----------
    kind:
        One of KINDS.
    size:
        Side of the aligned crop in pixels.
    """
    factor = 3 if size < 100 else 2
    drawing = KINDS[kind][0](rng, factor * size)
    alpha = np.ascontiguousarray(drawing.alpha)
    height, width = (max(side // factor, 1) for side in alpha.shape)
    weighted = np.dstack([drawing.colour * alpha[..., None], alpha])[: height * factor, : width * factor]
    small = cv2.resize(weighted, (width, height), interpolation=cv2.INTER_AREA)
    colour = small[..., :3] / np.maximum(small[..., 3:], 1e-3)
    colour = colour + rng.normal(0, rng.uniform(0.002, 0.015), (height, width, 1))  # sensor noise
    rgba = np.dstack([colour, small[..., 3]])
    anchor = (np.array(drawing.anchor) + 0.5) / factor - 0.5
    return trimmed(np.rint(np.clip(rgba, 0, 1) * 255).astype(np.uint8), anchor)


def trimmed(rgba: np.ndarray, anchor: np.ndarray | None = None) -> Occluder:
    """Return an occluder, cropped to the visible part of an image (H, W, 4); the anchor defaults to its centre.

    Raises
    ------
    ValueError
        The image has no opaque pixel.
    """
    left, top, width, height = cv2.boundingRect((rgba[..., 3] > 0).astype(np.uint8))
    if not (rgba[..., 3] > 127).any():
        raise ValueError("has no opaque pixel")
    crop = np.ascontiguousarray(rgba[top : top + height, left : left + width])
    anchor_in_crop = np.array([width - 1, height - 1]) / 2 if anchor is None else anchor - [left, top]
    return Occluder(crop, anchor_in_crop)


@cache
def face_region(size: int) -> np.ndarray:
    """Return an oval mask (size, size) bool of the face in an aligned crop, without hair and neck."""
    y, x = (np.mgrid[:size, :size] + 0.5) / size
    return np.hypot((x - 0.504) / 0.245, (y - 0.615) / 0.325) < 1


def place(
    occluder: Occluder, spread: Spread, landmarks: np.ndarray, size: int, rng: np.random.Generator
) -> np.ndarray | None:
    """Return a random placement that covers a suitable fraction of the face.

    Parameters
    ----------
    landmarks:
        (5, 2) crop pixels; NaN if unknown, for those of the template.
    size:
        Side of the aligned crop in pixels.

    Returns
    -------
    The matrix (2, 3) from the occluder's pixels to the crop's; None if no placement was found.
    """
    pose = np.eye(2, 3)
    if np.isfinite(landmarks).all():
        pose = fit_similarity(template(size), landmarks.astype(np.float64))
    face, alpha = face_region(size), np.ascontiguousarray(occluder.rgba[..., 3])
    flip = -1.0 if rng.random() < 0.5 else 1.0
    shrink = 1.0
    for _ in range(ATTEMPTS):
        point, angle, scale = spread.draw(rng)
        cosine, sine = shrink * scale * np.cos(np.deg2rad(angle)), shrink * scale * np.sin(np.deg2rad(angle))
        linear = pose[:, :2] @ np.array([[cosine * flip, -sine], [sine * flip, cosine]])
        goal = transform(point[None] * size - 0.5, pose)[0]
        matrix = np.column_stack([linear, goal - linear @ occluder.anchor])
        covered = cv2.warpAffine(alpha, matrix, (size, size), flags=cv2.INTER_LINEAR)[face]
        share = np.count_nonzero(covered > 127) / covered.size
        if spread.least <= share <= LARGEST:
            return matrix
        shrink *= 0.85 if share > LARGEST else 1.0
    return None


def match_colours(rgba: np.ndarray, image: np.ndarray, light: float, tint: float) -> np.ndarray:
    """Shift mean and standard deviation of an occluder's colours (CIE Lab) towards those of a face.

    Parameters
    ----------
    rgba:
        (H, W, 4) uint8.
    image:
        (S, S, 3) uint8, the aligned crop.
    light, tint:
        Strength for lightness and for colour, 0..1. On a grey image every occluder becomes grey.

    Returns
    -------
    (H, W, 4) uint8.
    """
    side, step = len(image), max(len(image) // 32, 1)
    middle = np.ascontiguousarray(image[side // 3 : side * 9 // 10 : step, side // 4 : side * 3 // 4 : step])
    face = cv2.cvtColor(middle, cv2.COLOR_RGB2LAB)
    goal, goal_spread = (part.ravel() for part in cv2.meanStdDev(face))
    lab = cv2.cvtColor(np.ascontiguousarray(rgba[..., :3]), cv2.COLOR_RGB2LAB)
    opaque = (rgba[..., 3] > 127).astype(np.uint8)
    mean, spread = (part.ravel() for part in cv2.meanStdDev(lab, mask=opaque))
    grey = np.abs(face[..., 1:].astype(int) - 128).mean() <= 3
    share = np.array([light, tint, tint]) if not grey else np.array([light, 1.0, 1.0])
    widen = np.clip(goal_spread / np.maximum(spread, 1), 0.6, 1.6) if not grey else np.array([1.0, 0.0, 0.0])
    gain = 1 + share * (widen - 1)
    level = np.arange(256)[:, None]
    table = np.clip(np.rint((level - mean) * gain + mean + share * (goal - mean)), 0, 255).astype(np.uint8)
    matched = cv2.cvtColor(cv2.LUT(lab, table[None]), cv2.COLOR_LAB2RGB)
    return np.dstack([matched, rgba[..., 3]])


def composite(
    image: np.ndarray, rgba: np.ndarray, matrix: np.ndarray, blur: float = 0.0, shadow: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Composite a cut-out over an image.

    Parameters
    ----------
    image:
        (S, S, 3) uint8.
    rgba:
        (H, W, 4) uint8, straight alpha.
    matrix:
        (2, 3) from the cut-out's pixels to the image's.
    blur:
        Standard deviation of the cut-out's defocus blur, in pixels.
    shadow:
        Strength of the soft shadow around the cut-out, 0..1.

    Returns
    -------
    The image (S, S, 3) uint8, and alpha (S, S) float32 0..1 of the cut-out.
    """
    side = len(image)
    alpha = rgba[..., 3:]
    weighted = cv2.multiply(rgba, np.dstack([alpha, alpha, alpha, np.full_like(alpha, 255)]), scale=1 / 255)
    layer = cv2.warpAffine(weighted, matrix, (side, side), flags=cv2.INTER_LINEAR)
    if blur > 0.2:
        layer = cv2.GaussianBlur(layer, (0, 0), blur)
    cover = layer[..., 3].astype(np.float32) / 255
    behind = 1 - cover
    if shadow > 0:
        soft = cv2.GaussianBlur(cover, (0, 0), 0.03 * side)
        drop = max(round(0.02 * side), 1)  # light is mostly from above
        behind[drop:] *= 1 - shadow * soft[:-drop]
    result = cv2.merge([layer[..., 0], layer[..., 1], layer[..., 2]]).astype(np.float32)
    result += image * behind[..., None]
    return np.minimum(result + 0.5, 255).astype(np.uint8), cover
