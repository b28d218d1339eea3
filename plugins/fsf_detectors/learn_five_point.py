"""Learn the regression of `five-point-landmarks` from dlib's landmarks on aligned faces.

    python -m fsf_detectors.learn_five_point LFW/train.zip LFW/val.zip

Inputs are the deviations of the detector's five landmarks from the template, outputs dlib's 68 landmarks, both in units
of the crop's side. Mirror images are added, so that the regression is symmetric. Printed is the intersection over union
of the hulls of both on the second folder or zip file.
"""

from pathlib import Path

import click
import numpy as np
import torch

from fsf_detectors.five_point import FILE, FivePointLandmarks
from fsframework.core.components import ComponentOptions, Dataset
from fsframework.core.part import part
from fsframework.core.types import FaceBatch
from fsframework.faces.align import TEMPLATE
from fsframework.utils.files import replacing
from fsframework.utils.progress import tracked

MIRROR5 = [1, 0, 2, 4, 3]
RIDGE = 1e-2  # on slopes, for deviations in units of the crop side; up to 0.1 the hulls overlap as well, within 0.001


def mirror_order(landmarks: np.ndarray) -> np.ndarray:
    """Return the number of each landmark's mirror image, (68,), from the mean of landmarks (N, 68, 2)."""
    mean = landmarks.mean(axis=0)
    mirrored = mean * [-1, 1] + [2 * mean[27:31, 0].mean(), 0]  # about the bridge of the nose
    order: np.ndarray = np.linalg.norm(mirrored[:, None] - mean, axis=2).argmin(axis=1)
    if (order[order] != np.arange(len(order))).any():
        raise ValueError("the mean landmarks are not symmetric; use more faces")
    return order


def regression(five: np.ndarray, landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean (68, 2) and slopes (10, 136) for five landmarks (N, 5, 2) and 68 (N, 68, 2), in crop sides."""
    order = mirror_order(landmarks)
    five = np.concatenate([five, five[:, MIRROR5] * [-1, 1] + [1, 0]])
    landmarks = np.concatenate([landmarks, landmarks[:, order] * [-1, 1] + [1, 0]])
    deviations = (five - TEMPLATE).reshape(len(five), 10)
    design = np.column_stack([np.ones(len(five)), deviations])
    ridge = RIDGE * np.diag([0.0] + [1.0] * 10)
    solution = np.linalg.solve(design.T @ design + ridge, design.T @ landmarks.reshape(len(five), 136))
    return solution[0].reshape(68, 2), solution[1:]


def samples(faces: Path, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the detector's landmarks (N, 5, 2) and dlib's (N, 68, 2) of all faces, in units of the crop's side."""
    data: Dataset = part("datasets", "face-folder", root=str(faces), test_share=0.0).build(
        size, part("detectors", "mtcnn"), "train"
    )
    data.load()
    estimator = part("estimators", "dlib-landmarks").build()
    estimator.load()
    five, landmarks = [], []
    for index in tracked(range(len(data)), "landmarks", len(data), "faces"):
        sample = data[index]
        five.append(sample.landmarks)
        landmarks.append(estimator.landmarks(sample.image))
    return (np.stack(five) + 0.5) / size, (np.stack(landmarks) + 0.5) / size


def overlaps(estimated: np.ndarray, landmarks: np.ndarray, size: int) -> np.ndarray:
    """Return the intersection over union (N,) of the hulls of landmarks (N, 68, 2) in pixels."""
    hull = part("estimators", "hull-mask", soft=0).build()
    values = []
    for pair in zip(estimated, landmarks, strict=True):
        one, other = (hull.mask(points, size) > 0.5 for points in pair)
        values.append((one & other).sum() / (one | other).sum())
    return np.array(values)


@click.command(help=__doc__)
@click.argument("faces", type=click.Path(exists=True, path_type=Path))
@click.argument("test", type=click.Path(exists=True, path_type=Path))
@click.option("--size", default=128, show_default=True, help="Side of the aligned crops for landmark detection.")
@click.option("--out", default=FILE, show_default=True, type=click.Path(path_type=Path))
def main(faces: Path, test: Path, size: int, out: Path) -> None:
    mean, slopes = regression(*samples(faces, size))
    with replacing(out) as temporary, temporary.open("wb") as file:
        np.savez(file, mean=mean.astype("f4"), slopes=slopes.astype("f4"))
    five, landmarks = (values * size - 0.5 for values in samples(test, size))
    estimator = FivePointLandmarks(ComponentOptions())
    estimator.mean.copy_(torch.from_numpy(mean))
    estimator.slopes.copy_(torch.from_numpy(slopes))
    batch = FaceBatch.of(torch.zeros(len(five), 1, size, size), torch.from_numpy(five).float())
    values = overlaps(estimator(batch).double().numpy(), landmarks, size)
    click.echo(
        f"hulls of {len(values)} faces: intersection over union {values.mean():.3f}, "
        f"95 % above {np.percentile(values, 5):.3f}, all above {values.min():.3f}"
    )


if __name__ == "__main__":
    main()
