"""Learn statistics of skin, head shapes and expressions from photographs, for rendered heads.

    python -m fsf_graphics.learn_skin LFW/train.zip

The head model is fitted to dlib's landmarks of every image; images with more than 20 degrees of yaw are excluded.

Shapes: a fit's coefficients are the sum of identity and expression. A random-effects analysis of variance separates the
two covariances: within people for expression, between people for identity. The former uses people with at least two
images. Landmark errors count as expression. Mirror images count as other people, so that both are symmetric.

Skin: each image is sampled at the texels of the fitted head that face the camera. Lighting is nine spherical harmonics
per channel, fitted by least squares to the image under the mean skin, and divided out. The mean brightness over the
face remains, because dark skin and underexposure are indistinguishable; skins thus include the exposure. Of the tint,
only variation within a face remains. The mean skin is the mean of all images, divided by the lighting that best
explains it with a single colour. Halves of a face and images of a person are averaged. Unobserved texels are filled
from neighbours. The modes are the principal components over people.
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

TURNED = 20.0  # maximum yaw in degrees
GRAZING, FULL = 0.35, 0.6  # cosines of normal and view direction with weight 0 and 1
DARK = 0.25  # lower bound of the shading that is divided out


@dataclass(frozen=True)
class Seen:
    """Texels sampled from an image."""

    colour: np.ndarray  # (SIDE^2, 3) linear RGB, 0..1
    weight: np.ndarray  # (SIDE^2,) visibility, 0..1
    normals: np.ndarray  # (SIDE^2, 3) in camera space


def yaw(fitted: Fit) -> float:
    """Return the yaw in degrees of a fitted head, positive to the viewer's right."""
    return float(np.degrees(np.arcsin(fitted.matrix[2, 0] / np.linalg.norm(fitted.matrix[2]))))


def seen(image: np.ndarray, fitted: Fit) -> Seen:
    """Return the texels of a fitted head, sampled from its image (S, S, 3) uint8."""
    surface = grid(SIDE).vertices(fitted.shape)
    x, y, _ = fitted.project(surface).astype(np.float32).T
    colour = cv2.remap(image, x.reshape(SIDE, SIDE), y.reshape(SIDE, SIDE), cv2.INTER_LINEAR).reshape(-1, 3)
    turned = normals(surface, SIDE) @ (fitted.matrix / np.linalg.norm(fitted.matrix[0])).T
    weight = ((-turned[:, 2] - GRAZING) / (FULL - GRAZING)).clip(0, 1)
    within = (np.minimum(x, y) >= 0) & (np.maximum(x, y) <= len(image) - 1)
    return Seen((colour / 255) ** GAMMA, weight * within * face().ravel(), turned)


def unlit(view: Seen, mean: np.ndarray) -> np.ndarray:
    """Return the colours (SIDE^2, 3) of a view with lighting divided out, given the mean skin (SIDE^2, 3)."""
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
    """Return the sum of both halves' weighted colours (SIDE, SIDE / 2, 3), and of the weights (SIDE, SIDE / 2, 1)."""
    weights = weight.reshape(SIDE, SIDE, 1)
    colours = colour.reshape(SIDE, SIDE, 3) * weights
    half = SIDE // 2
    return colours[:, :half] + colours[:, : half - 1 : -1], weights[:, :half] + weights[:, : half - 1 : -1]


def filled(total: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return weighted means (SIDE, SIDE / 2, 3); texels without weight are filled from ever wider neighbourhoods."""
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
    """Return the mean colours (SIDE^2, 3) of images, with lighting divided out."""
    total, weight = np.zeros((SIDE, SIDE // 2, 3)), np.zeros((SIDE, SIDE // 2, 1))
    for image, fitted in views:
        view = seen(image, fitted)
        colours, weights = folded(view.colour, view.weight)
        total, weight = total + colours, weight + weights
    half = filled(total / len(views), weight / len(views))
    whole = np.concatenate([half, half[:, ::-1]], axis=1).reshape(-1, 3)
    upright = normals(grid(SIDE).mean, SIDE)
    one = np.broadcast_to(np.average(whole, axis=0, weights=face().ravel()), whole.shape)
    return unlit(Seen(whole, face().ravel(), upright), one)


def scatter(coefficients: np.ndarray, people: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return factors (K, K) of the covariances between and within people, from coefficients (N, K) and people (N,)."""
    _, index, count = np.unique(people, return_inverse=True, return_counts=True)
    means = np.zeros((len(count), coefficients.shape[1]))
    np.add.at(means, index, coefficients)
    means /= count[:, None]
    rest = coefficients - means[index]
    within = rest.T @ rest / (len(people) - len(count))
    between = np.cov(means.T) - within * (1 / count).mean()
    return factor(between), factor(within)


def factor(scattered: np.ndarray) -> np.ndarray:
    """Return a matrix (K, K) that maps standard normal vectors to vectors with a given covariance (K, K)."""
    values, vectors = np.linalg.eigh(scattered)
    root: np.ndarray = vectors * np.sqrt(values.clip(min=0))
    return root[:, ::-1]


def components(people: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return mean (SIDE, SIDE / 2, 3) and modes (count, ...) of people's skins (N, SIDE, SIDE / 2, 3) uint8."""
    mean = people.mean(axis=0, dtype=np.float64)
    rows = torch.from_numpy((people - mean.astype(np.float32)).reshape(len(people), -1))
    torch.manual_seed(0)
    _, values, vectors = torch.svd_lowrank(rows, q=count + 10, niter=4)
    modes = (vectors[:, :count] * values[:count] / len(people) ** 0.5).T.numpy()
    return mean, modes.reshape(count, *mean.shape)


def fitted(data: Dataset) -> list[Fit]:
    """Return the fit of the head model to every image."""
    estimator = part("estimators", "dlib-landmarks").build()
    estimator.load()
    indices = tracked(range(len(data)), "landmarks", len(data), "faces")
    return [fit(head_model.shipped(), estimator.landmarks(data[index].image)) for index in indices]


def mirrored(head: Fit) -> np.ndarray:
    """Return the coefficients (20,) of the mirrored head."""
    points = head.project(head.shape)[MIRROR, :2] * [-1, 1]
    return fit(head_model.shipped(), points).coefficients


@click.command(help=__doc__)
@click.argument("faces", type=click.Path(exists=True, path_type=Path))
@click.option("--size", default=128, show_default=True, help="Side of the aligned crops.")
@click.option("--modes", default=48, show_default=True, help="Number of modes of the skin.")
@click.option("--out", default=FILE, show_default=True, type=click.Path(path_type=Path))
def main(faces: Path, size: int, modes: int, out: Path) -> None:
    data = aligned(faces, size)
    fits = fitted(data)
    chosen = [index for index, head in enumerate(fits) if abs(yaw(head)) < TURNED]
    people = np.array(data.people())[chosen]
    coefficients = np.array([fits[index].coefficients for index in chosen])
    mirror_coefficients = np.array(
        [mirrored(fits[index]) for index in tracked(chosen, "mirrors", len(chosen), "faces")]
    )
    identity, expression = scatter(
        np.concatenate([coefficients, mirror_coefficients]),
        np.concatenate([people, np.char.add("mirrored ", people.astype(str))]),
    )
    mean = mean_skin([(data[index].image, fits[index]) for index in chosen[::8]])
    skins = []
    names = sorted(set(people))
    of_person: dict[str, list[int]] = {name: [] for name in names}
    for index, name in zip(chosen, people, strict=True):
        of_person[name].append(index)
    for name in tracked(names, "skins", len(names), "people"):
        total, weight = np.zeros((SIDE, SIDE // 2, 3)), np.zeros((SIDE, SIDE // 2, 1))
        for index in of_person[name]:
            view = seen(data[index].image, fits[index])
            colours, weights = folded(unlit(view, mean), view.weight)
            total, weight = total + colours, weight + weights
        skins.append(np.rint(filled(total, weight) ** (1 / GAMMA) * 255).astype(np.uint8))
    skin_mean, skin_modes = components(np.stack(skins), modes)
    scales = np.abs(skin_modes).max(axis=(1, 2, 3)) / 127
    with replacing(out) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            mean=np.rint(skin_mean).astype(np.uint8),
            modes=np.rint(skin_modes / scales[:, None, None, None]).astype(np.int8),
            scales=scales.astype("f4"),
            people=identity.astype("f4"),
            expressions=expression.astype("f4"),
        )


if __name__ == "__main__":
    main()
