"""Scene of a rendered head: identity, attributes, and their rendering."""

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

from fsf_graphics import head_model
from fsf_graphics.dense_head import grid, normals
from fsf_graphics.light import brightness
from fsf_graphics.rasterizer import rasterize
from fsf_graphics.skin_model import GAMMA, SIDE, face, shipped, skin, streaks
from fsframework.faces.align import fit_similarity, template

GRID = 65  # vertices of the head in both directions
HAIR = 0.07  # thickness of hair, in units of the head model
BLUR = 0.06  # blur of the background, in units of the side
COARSE = 64  # side of the background while blurred, in pixels
SHOULDERS = 1.13  # vertical centre of the shoulders, in units of the side
FINE = 256  # minimum side before downsampling, in pixels
FACE = slice(17, 68)  # landmarks at fixed points of the skin in every pose


@dataclass(frozen=True, eq=False)
class Person:
    """Identity of a rendered head."""

    shape: np.ndarray  # (20,) coefficients of the head model
    skin: np.ndarray  # (K,) coefficients of the skin model
    hair: np.ndarray  # (3,) linear RGB, 0..1


@dataclass(frozen=True, eq=False)
class Setting:
    """Attributes of a rendered head, which a swap preserves."""

    expression: np.ndarray  # (20,) added to the coefficients of the shape
    matrix: np.ndarray  # (3, 3) rotation times scale, to units of the image's side
    shift: np.ndarray  # (2,) position of the model's origin, in units of the side from the image's corner
    light: np.ndarray  # (9, 3) radiance
    hair: np.ndarray  # (3,) linear RGB, 0..1
    clothes: np.ndarray  # (3,) sRGB, 0..255
    background: np.ndarray  # (h, w, 3) sRGB, 0..255, upsampled to the whole image


@dataclass(frozen=True, eq=False)
class Picture:
    """Rendered head with its ground truth."""

    image: np.ndarray  # (S, S, 3) uint8
    face: np.ndarray  # (S, S) bool, visible face from the hairline to the jaw
    landmarks: np.ndarray  # (68, 2) pixels


def shape_of(person: Person, setting: Setting) -> np.ndarray:
    """Return the landmarks (68, 3) of a person's head with the setting's expression."""
    return head_model.shipped().shape(person.shape + setting.expression)


def five(landmarks: np.ndarray) -> np.ndarray:
    """Return eyes, nose and mouth corners (5, 2) of landmarks (68, 2)."""
    eyes = [landmarks[36:42].mean(axis=0), landmarks[42:48].mean(axis=0)]
    return np.stack([*eyes, landmarks[30], landmarks[48], landmarks[54]])


def placed(shape: np.ndarray, rotation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return matrix (3, 3) and shift (2,) of a `Setting` that align a rotated head (68, 3) as in aligned crops.

    As for photographs, alignment by landmarks removes most of the roll.
    """
    similarity = fit_similarity(five(shape @ rotation[:2].T), template(1) + 0.5)
    scale = np.linalg.norm(similarity[0, :2])
    upright = np.eye(3)
    upright[:2, :2] = similarity[:, :2] / scale
    return scale * upright @ rotation, similarity[:, 2]


def render(person: Person, setting: Setting, size: int) -> Picture:
    """Return the rendering of a person in a setting, with a side of `size` pixels.

    It is supersampled, and averaged in sRGB as in the downsampling of photographs.
    """
    factor = max(1, -(-FINE // size))
    large = size * factor
    head, shape = grid(GRID), shape_of(person, setting)
    vertices = head.vertices(shape) + hair_volume()
    points = large * (vertices @ setting.matrix.T)
    points[:, :2] += large * setting.shift - 0.5
    triangle, weights = rasterize(points, head.triangles, large)
    y, x = np.nonzero(triangle >= 0)
    corners, weights = head.triangles[triangle[y, x]], weights[y, x]  # (N, 3) each
    row, column = (np.einsum("nk,nk->n", part[corners], weights) for part in np.divmod(np.arange(GRID**2), GRID))
    texel = np.zeros((large, large, 2), np.float32)
    texel[y, x] = np.stack([column, row], axis=1) * ((SIDE - 1) / (GRID - 1))
    textures = np.dstack([albedo(person, setting), face()]).astype(np.float32)
    texels = cv2.remap(textures, texel[..., 0], texel[..., 1], cv2.INTER_LINEAR)[y, x]  # (N, 4)
    turned = normals(vertices, GRID) @ (setting.matrix / np.linalg.norm(setting.matrix[0])).T
    facing = np.einsum("nkc,nk->nc", turned[corners], weights)
    facing /= np.linalg.norm(facing, axis=1, keepdims=True)
    colour = (texels[:, :3] * brightness(facing, setting.light)).clip(0, 1)
    image = backdrop(setting, large)
    image[y, x] = 255 * colour ** (1 / GAMMA)
    is_face = np.zeros((large, large), np.float32)
    is_face[y, x] = texels[:, 3]
    small = cv2.resize(np.dstack([image, 255 * is_face]), (size, size), interpolation=cv2.INTER_AREA)
    landmarks = size * (shape @ setting.matrix[:2].T + setting.shift) - 0.5
    return Picture(np.rint(small[..., :3].clip(0, 255)).astype(np.uint8), small[..., 3] > 127.5, landmarks)


def albedo(person: Person, setting: Setting) -> np.ndarray:
    """Return the texture (SIDE, SIDE, 3) of the person's skin and the setting's hair, linear RGB, 0..1."""
    share = skin()[..., None]
    return share * shipped().texture(person.skin) + (1 - share) * (setting.hair * streaks())


@cache
def hair_volume() -> np.ndarray:
    """Return the displacement (GRID^2, 3) of the vertices by hair."""
    thick = cv2.resize(1 - skin(), (GRID, GRID), interpolation=cv2.INTER_LINEAR).reshape(-1, 1)
    volume: np.ndarray = HAIR * thick * normals(grid(GRID).mean, GRID)
    return volume


def backdrop(setting: Setting, size: int) -> np.ndarray:
    """Return the image (size, size, 3) float32 without the head: a blurred background and shoulders."""
    coarse = cv2.resize(setting.background.astype(np.float32), (COARSE, COARSE), interpolation=cv2.INTER_CUBIC)
    soft = cv2.GaussianBlur(coarse, (0, 0), BLUR * COARSE)
    image = cv2.resize(soft, (size, size), interpolation=cv2.INTER_LINEAR)
    middle = (round(size * setting.shift[0]), round(SHOULDERS * size))
    cv2.ellipse(image, middle, (round(0.55 * size), round(0.2 * size)), 0, 0, 360, setting.clothes.tolist(), -1)
    return image
