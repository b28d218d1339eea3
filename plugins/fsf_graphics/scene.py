"""A picture of a head that nobody has: who it is, how it is shown, and the two put together."""

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
BLUR = 0.06  # of the background, in units of the side
COARSE = 64  # pixels in which it is blurred
SHOULDERS = 1.13  # how far down their middle lies, in units of the side
FINE = 256  # pixels that a picture has at least before it is made smaller
FACE = slice(17, 68)  # landmarks that lie on the same point of the skin in every pose


@dataclass(frozen=True, eq=False)
class Person:
    """Who somebody is."""

    shape: np.ndarray  # (20,) coefficients of the head model
    skin: np.ndarray  # (K,) numbers of the skin model
    hair: np.ndarray  # (3,) colour, linear in light, 0..1


@dataclass(frozen=True, eq=False)
class Setting:
    """How somebody is shown: everything that a swap keeps."""

    expression: np.ndarray  # (20,) what is added to the coefficients of the shape
    matrix: np.ndarray  # (3, 3) rotation times scale, to units of the picture's side
    shift: np.ndarray  # (2,) where the model's origin lies, in units of the side from the picture's corner
    light: np.ndarray  # (9, 3) radiance
    hair: np.ndarray  # (3,) colour, linear in light, 0..1
    clothes: np.ndarray  # (3,) levels 0..255
    background: np.ndarray  # (h, w, 3) levels 0..255, enlarged smoothly to the whole picture


@dataclass(frozen=True, eq=False)
class Picture:
    """A rendered head, and what is known of it."""

    image: np.ndarray  # (S, S, 3) uint8
    face: np.ndarray  # (S, S) bool, where the face is seen, from the hairline to the jaw
    landmarks: np.ndarray  # (68, 2) pixels


def shape_of(person: Person, setting: Setting) -> np.ndarray:
    """The landmarks (68, 3) of a person's head with an expression."""
    return head_model.shipped().shape(person.shape + setting.expression)


def five(landmarks: np.ndarray) -> np.ndarray:
    """Eyes, nose and mouth corners (5, 2) of 68 landmarks."""
    eyes = [landmarks[36:42].mean(axis=0), landmarks[42:48].mean(axis=0)]
    return np.stack([*eyes, landmarks[30], landmarks[48], landmarks[54]])


def placed(shape: np.ndarray, rotation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Matrix and shift of a `Setting` that bring a turned head (68, 3) to where aligned crops have it.

    As with photographs the crop is turned upright by its landmarks, so the roll is what that leaves of it.
    """
    similarity = fit_similarity(five(shape @ rotation[:2].T), template(1) + 0.5)
    scale = np.linalg.norm(similarity[0, :2])
    upright = np.eye(3)
    upright[:2, :2] = similarity[:, :2] / scale
    return scale * upright @ rotation, similarity[:, 2]


def render(person: Person, setting: Setting, size: int) -> Picture:
    """A person in a setting, in a picture with sides of `size` pixels.

    It is drawn several times larger and each pixel is the mean of what it covers, in levels, as cameras' pictures are
    made smaller.
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
    look = np.dstack([albedo(person, setting), face()]).astype(np.float32)
    found = cv2.remap(look, texel[..., 0], texel[..., 1], cv2.INTER_LINEAR)[y, x]  # (N, 4)
    turned = normals(vertices, GRID) @ (setting.matrix / np.linalg.norm(setting.matrix[0])).T
    facing = np.einsum("nkc,nk->nc", turned[corners], weights)
    facing /= np.linalg.norm(facing, axis=1, keepdims=True)
    colour = (found[:, :3] * brightness(facing, setting.light)).clip(0, 1)
    image = backdrop(setting, large)
    image[y, x] = 255 * colour ** (1 / GAMMA)
    is_face = np.zeros((large, large), np.float32)
    is_face[y, x] = found[:, 3]
    small = cv2.resize(np.dstack([image, 255 * is_face]), (size, size), interpolation=cv2.INTER_AREA)
    marks = size * (shape @ setting.matrix[:2].T + setting.shift) - 0.5
    return Picture(np.rint(small[..., :3].clip(0, 255)).astype(np.uint8), small[..., 3] > 127.5, marks)


def albedo(person: Person, setting: Setting) -> np.ndarray:
    """The texture (SIDE, SIDE, 3) of the person's skin and the setting's hair, linear in light, 0..1."""
    share = skin()[..., None]
    return share * shipped().texture(person.skin) + (1 - share) * (setting.hair * streaks())


@cache
def hair_volume() -> np.ndarray:
    """What hair adds to the vertices (GRID^2, 3)."""
    thick = cv2.resize(1 - skin(), (GRID, GRID), interpolation=cv2.INTER_LINEAR).reshape(-1, 1)
    volume: np.ndarray = HAIR * thick * normals(grid(GRID).mean, GRID)
    return volume


def backdrop(setting: Setting, size: int) -> np.ndarray:
    """The picture (size, size, 3) float32 without the head: something out of focus, and shoulders."""
    coarse = cv2.resize(setting.background.astype(np.float32), (COARSE, COARSE), interpolation=cv2.INTER_CUBIC)
    soft = cv2.GaussianBlur(coarse, (0, 0), BLUR * COARSE)
    image = cv2.resize(soft, (size, size), interpolation=cv2.INTER_LINEAR)
    middle = (round(size * setting.shift[0]), round(SHOULDERS * size))
    cv2.ellipse(image, middle, (round(0.55 * size), round(0.2 * size)), 0, 0, 360, setting.clothes.tolist(), -1)
    return image
