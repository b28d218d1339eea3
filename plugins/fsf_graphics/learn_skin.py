"""Learn skins, people's shapes and expressions from photographs, for heads that are rendered.

    python -m fsf_graphics.learn_skin LFW/train.zip

The head model is fitted to dlib's landmarks of every picture; those turned by more than 20 degrees are left out.

Shapes: a fit's coefficients are a person's plus an expression's. What differs between pictures of one person is taken
for expression, what differs between people beyond that for identity: the two scatters of a random-effects analysis of
variance, over people with two pictures or more for the first. Errors of the landmarks count as expressions. Mirror
images count as other people, so both are symmetric.

Skin: each picture is sampled at the texels of the fitted head that face the camera. Its light is nine spherical
harmonics a colour, fitted by least squares so that the mean skin under it is the picture, and divided out, but for its
mean brightness over the face: nothing tells a dark skin from a dark picture, so skins keep the pictures' exposure. Of
their tint they keep what differs within a face. The mean skin is the mean of all pictures, divided by the light that
makes one colour of it. The halves of a face are averaged, a person's pictures too, texels outside the face or seen by
no picture are filled from their neighbours, and principal components of the people are the modes.
"""

from dataclasses import dataclass
from pathlib import Path

import click
import cv2
import numpy as np
import torch

from fsf_graphics import head_model
from fsf_graphics.dense_head import grid, normals
from fsf_graphics.head_model import Fit, fit
from fsf_graphics.learn_head import MIRROR, aligned
from fsf_graphics.light import KEPT, harmonics
from fsf_graphics.skin_model import FILE, GAMMA, SIDE, face
from fsframework.core.components import Dataset
from fsframework.core.part import part
from fsframework.utils.files import replacing
from fsframework.utils.progress import tracked

TURNED = 20.0  # degrees of yaw beyond which a picture is left out
GRAZING, FULL = 0.35, 0.6  # cosine of normal and view from which on a texel counts, and counts fully
DARK = 0.25  # what is left of the brightest light where a texel is taken to be lit


@dataclass(frozen=True)
class Seen:
    """The texels of a picture."""

    colour: np.ndarray  # (SIDE^2, 3) linear in light, 0..1
    weight: np.ndarray  # (SIDE^2,) 0..1, how well each is seen
    normals: np.ndarray  # (SIDE^2, 3) as the camera sees them


def yaw(found: Fit) -> float:
    """Degrees that a head is turned to the viewer's right."""
    return float(np.degrees(np.arcsin(found.matrix[2, 0] / np.linalg.norm(found.matrix[2]))))


def seen(image: np.ndarray, found: Fit) -> Seen:
    """A picture (S, S, 3) uint8 at the texels of the head that was found in it."""
    surface = grid(SIDE).vertices(found.shape)
    x, y, _ = found.project(surface).astype(np.float32).T
    colour = cv2.remap(image, x.reshape(SIDE, SIDE), y.reshape(SIDE, SIDE), cv2.INTER_LINEAR).reshape(-1, 3)
    turned = normals(surface, SIDE) @ (found.matrix / np.linalg.norm(found.matrix[0])).T
    weight = ((-turned[:, 2] - GRAZING) / (FULL - GRAZING)).clip(0, 1)
    within = (np.minimum(x, y) >= 0) & (np.maximum(x, y) <= len(image) - 1)
    return Seen((colour / 255) ** GAMMA, weight * within * face().ravel(), turned)


def unlit(view: Seen, mean: np.ndarray) -> np.ndarray:
    """The colours (SIDE^2, 3) of a view under even light, given the mean skin (SIDE^2, 3)."""
    weight = view.weight
    basis = harmonics(view.normals) * KEPT
    shades = np.empty_like(view.colour)
    for channel in range(3):
        design = basis * mean[:, channel, None] * weight[:, None]
        system = design.T @ design
        system += 1e-3 * np.trace(system) / len(system) * np.eye(len(system))
        shades[:, channel] = basis @ np.linalg.solve(system, design.T @ (weight * view.colour[:, channel]))
    shades /= np.average(shades, axis=0, weights=weight).mean()
    return (view.colour / np.maximum(shades, DARK)).clip(0, 1)


def folded(colour: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The sum of both halves' weighted colours (SIDE, SIDE / 2, 3), and of their weights (SIDE, SIDE / 2, 1)."""
    weights = weight.reshape(SIDE, SIDE, 1)
    colours = colour.reshape(SIDE, SIDE, 3) * weights
    half = SIDE // 2
    return colours[:, :half] + colours[:, : half - 1 : -1], weights[:, :half] + weights[:, : half - 1 : -1]


def filled(total: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Means (SIDE, SIDE / 2, 3) of sums by weights; where there is none, of ever wider neighbourhoods."""
    known = np.minimum(weight, 1)
    value = total / np.maximum(weight, 1e-6)
    result, share = value * known, known.copy()
    for width in (1.5, 3, 6, 12, 24, 48):
        around = cv2.GaussianBlur(value * known, (0, 0), width, borderType=cv2.BORDER_REFLECT)
        amount = cv2.GaussianBlur(known, (0, 0), width, borderType=cv2.BORDER_REFLECT)[..., None]
        taken = (1 - share) * np.minimum(amount / 0.1, 1)
        result += taken * around / np.maximum(amount, 1e-9)
        share += taken
    return result / np.maximum(share, 1e-9)


def mean_skin(views: list[tuple[np.ndarray, Fit]]) -> np.ndarray:
    """The mean colours (SIDE^2, 3) of pictures, as if in even light."""
    total, weight = np.zeros((SIDE, SIDE // 2, 3)), np.zeros((SIDE, SIDE // 2, 1))
    for image, found in views:
        view = seen(image, found)
        colours, weights = folded(view.colour, view.weight)
        total, weight = total + colours, weight + weights
    half = filled(total / len(views), weight / len(views))
    whole = np.concatenate([half, half[:, ::-1]], axis=1).reshape(-1, 3)
    upright = normals(grid(SIDE).mean, SIDE)
    one = np.broadcast_to(np.average(whole, axis=0, weights=face().ravel()), whole.shape)
    return unlit(Seen(whole, face().ravel(), upright), one)


def scatter(coefficients: np.ndarray, people: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Factors (K, K) of people's and of expressions' scatter, from coefficients (N, K) of pictures of people (N,)."""
    _, place, count = np.unique(people, return_inverse=True, return_counts=True)
    means = np.zeros((len(count), coefficients.shape[1]))
    np.add.at(means, place, coefficients)
    means /= count[:, None]
    rest = coefficients - means[place]
    within = rest.T @ rest / (len(people) - len(count))
    between = np.cov(means.T) - within * (1 / count).mean()
    return factor(between), factor(within)


def factor(scattered: np.ndarray) -> np.ndarray:
    """A matrix (K, K) that makes numbers with a scatter (K, K) from standard normal ones."""
    values, vectors = np.linalg.eigh(scattered)
    made: np.ndarray = vectors * np.sqrt(values.clip(min=0))
    return made[:, ::-1]


def components(people: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean (SIDE, SIDE / 2, 3) and modes (count, ...) of people's skins (N, SIDE, SIDE / 2, 3) uint8."""
    mean = people.mean(axis=0, dtype=np.float64)
    rows = torch.from_numpy((people - mean.astype(np.float32)).reshape(len(people), -1))
    torch.manual_seed(0)
    _, values, vectors = torch.svd_lowrank(rows, q=count + 10, niter=4)
    modes = (vectors[:, :count] * values[:count] / len(people) ** 0.5).T.numpy()
    return mean, modes.reshape(count, *mean.shape)


def fitted(data: Dataset) -> list[Fit]:
    """The heads in all pictures."""
    finder = part("estimators", "dlib-landmarks").build()
    finder.load()
    places = tracked(range(len(data)), "landmarks", len(data), "faces")
    return [fit(head_model.shipped(), finder.landmarks(data[place].image)) for place in places]


def mirrored(found: Fit) -> np.ndarray:
    """The coefficients (20,) of the head in a mirror."""
    points = found.project(found.shape)[MIRROR, :2] * [-1, 1]
    return fit(head_model.shipped(), points).coefficients


@click.command(help=__doc__)
@click.argument("faces", type=click.Path(exists=True, path_type=Path))
@click.option("--size", default=128, show_default=True, help="Side of the aligned crops.")
@click.option("--modes", default=48, show_default=True, help="How many ways a skin can differ from the mean.")
@click.option("--out", default=FILE, show_default=True, type=click.Path(path_type=Path))
def main(faces: Path, size: int, modes: int, out: Path) -> None:
    data = aligned(faces, size)
    found = fitted(data)
    chosen = [place for place, head in enumerate(found) if abs(yaw(head)) < TURNED]
    people = np.array(data.people())[chosen]
    own = np.array([found[place].coefficients for place in chosen])
    turned = np.array([mirrored(found[place]) for place in tracked(chosen, "mirrors", len(chosen), "faces")])
    identity, expression = scatter(
        np.concatenate([own, turned]), np.concatenate([people, np.char.add("mirrored ", people.astype(str))])
    )
    mean = mean_skin([(data[place].image, found[place]) for place in chosen[::8]])
    skins = []
    names = sorted(set(people))
    of_person: dict[str, list[int]] = {name: [] for name in names}
    for place, name in zip(chosen, people, strict=True):
        of_person[name].append(place)
    for name in tracked(names, "skins", len(names), "people"):
        total, weight = np.zeros((SIDE, SIDE // 2, 3)), np.zeros((SIDE, SIDE // 2, 1))
        for place in of_person[name]:
            view = seen(data[place].image, found[place])
            colours, weights = folded(unlit(view, mean), view.weight)
            total, weight = total + colours, weight + weights
        skins.append(np.rint(filled(total, weight) ** (1 / GAMMA) * 255).astype(np.uint8))
    middle, ways = components(np.stack(skins), modes)
    scales = np.abs(ways).max(axis=(1, 2, 3)) / 127
    with replacing(out) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            mean=np.rint(middle).astype(np.uint8),
            modes=np.rint(ways / scales[:, None, None, None]).astype(np.int8),
            scales=scales.astype("f4"),
            people=identity.astype("f4"),
            expressions=expression.astype("f4"),
        )


if __name__ == "__main__":
    main()
