"""Learn the head model from the landmarks of many faces, by structure from motion.

    python -m fsf_graphics.learn_head LFW/train.zip

Factorisation yields a rigid shape from all landmarks but the outline's, which slide over the skin (Tomasi and Kanade,
IJCV 1992; metric constraints as in section 3.4). Then pose, coefficients and modes are refined alternately by least
squares, as in Torresani et al. (TPAMI 2008) without priors. Mirror images are added, so that the model is symmetric.
"""

from pathlib import Path

import click
import numpy as np

from fsf_graphics.head_model import FILE, INNER, HeadModel, deformation, fit, pose
from fsframework.core.components import Dataset
from fsframework.core.part import part
from fsframework.utils.files import replacing
from fsframework.utils.progress import tracked

MIRROR = np.array(
    [*range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1), 45, 44, 43, 42, 47, 46, 39, 38, 37, 36,
     41, 40, 54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65]
)  # fmt: skip
EYES = (36, 45)  # outer corners
BRIDGE, NOSE, LIP = 27, 30, 57
TURNS = 8  # alternations of poses, coefficients and modes
START = 0.05  # initial standard deviation of the coefficients
WEAK = 0.02  # ridge on coefficients during learning; a stronger one suppresses weak modes
DEEP = 1e-3  # ridge on the modes, whose depth is poorly observed


def centred(landmarks: np.ndarray) -> np.ndarray:
    """Return landmarks (N, 68, 2) minus their mean, divided by the root mean square distance from it."""
    moved = landmarks - landmarks.mean(axis=1, keepdims=True)
    return moved / np.sqrt((moved**2).sum(axis=2).mean(axis=1))[:, None, None]


def rigid(landmarks: np.ndarray) -> np.ndarray:
    """Return the rigid shape (68, 3) that best explains landmarks (N, 68, 2) as its views."""
    inner = centred(landmarks[:, INNER])
    stacked = inner.transpose(0, 2, 1).reshape(-1, inner.shape[1])  # (2N, 51)
    gram = stacked.T @ stacked
    values, vectors = np.linalg.eigh(gram)
    basis = (vectors[:, -3:] * np.sqrt(values[-3:])).T  # (3, 51)
    motion = stacked @ np.linalg.pinv(basis)  # (2N, 3)
    first, second = motion[::2], motion[1::2]

    def products(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Return coefficients (N, 6) of the six entries of a symmetric matrix Q in a Q b."""
        pairs = [(0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)]
        return np.stack([a[:, i] * b[:, j] + (a[:, j] * b[:, i] if i != j else 0) for i, j in pairs], axis=1)

    # Rows of a scaled rotation are orthogonal and of equal length; the mean length fixes the scale.
    equal, right = products(first, first) - products(second, second), products(first, second)
    length = products(first, first).mean(axis=0) + products(second, second).mean(axis=0)
    system = np.vstack([equal, right, 1e3 * length])
    right_side = np.concatenate([np.zeros(2 * len(first)), [2e3]])
    q = np.linalg.lstsq(system, right_side, rcond=None)[0]
    symmetric = np.array([[q[0], q[3], q[4]], [q[3], q[1], q[5]], [q[4], q[5], q[2]]])
    values, vectors = np.linalg.eigh(symmetric)
    upgrade = vectors * np.sqrt(np.maximum(values, 1e-6))
    shape = np.zeros((68, 3))
    shape[INNER] = upright((np.linalg.inv(upgrade) @ basis).T)
    poses = [pose(shape, points) for points in landmarks]  # without the outline, which is solved for below
    cameras = np.stack([matrix[:2] for matrix, _ in poses])
    moved = np.stack([points - shift for points, (_, shift) in zip(landmarks, poses, strict=True)])
    return solved(cameras, moved, np.zeros((len(landmarks), 0))).mean


def upright(shape: np.ndarray) -> np.ndarray:
    """Return an inner shape (51, 3) rotated so that the eyes are along x and the face towards -z, and symmetrised."""
    shape = shape - shape.mean(axis=0)
    eyes, (bridge, nose, lip) = [index - 17 for index in EYES], (index - 17 for index in (BRIDGE, NOSE, LIP))
    mirror = MIRROR[INNER] - 17
    across = shape[eyes[1]] - shape[eyes[0]]
    down = shape[lip] - shape[bridge]
    x = across / np.linalg.norm(across)
    y = down - (down @ x) * x
    y /= np.linalg.norm(y)
    turned = shape @ np.stack([x, y, np.cross(x, y)]).T
    if turned[nose, 2] > turned[eyes, 2].mean():  # the nose is in front of the eyes
        turned[:, 2] *= -1
    return 0.5 * (turned + turned[mirror] * [-1, 1, 1])


def improve(shape: np.ndarray, landmarks: np.ndarray, modes: int) -> HeadModel:
    """Return the model with `modes` modes, refined on landmarks (N, 68, 2) from a rigid shape (68, 3)."""
    rng = np.random.default_rng(0)
    model = HeadModel(shape, rng.standard_normal((modes, 68, 3)) / 204**0.5, np.full(modes, START))
    for _ in tracked(range(TURNS), "structure from motion", TURNS, "turns"):
        cameras, rests, coefficients = [], [], []
        for points in landmarks:
            matrix, shift = pose(model.mean, points)
            solution = deformation(model, matrix, points - shift, WEAK)
            matrix, shift = pose(model.shape(solution), points)
            solution = deformation(model, matrix, points - shift, WEAK)
            cameras.append(matrix[:2])
            rests.append(points - shift)
            coefficients.append(solution)
        model = solved(np.stack(cameras), np.stack(rests), np.stack(coefficients))
    return model


def solved(cameras: np.ndarray, points: np.ndarray, coefficients: np.ndarray) -> HeadModel:
    """Return mean and modes by least squares, given cameras (N, 2, 3), points (N, 68, 2) and coefficients (N, K).

    Modes are rotated to principal components: orthogonal, with uncorrelated coefficients of mean 0.
    """
    count, modes = coefficients.shape
    factors = np.concatenate([np.ones((count, 1)), coefficients], axis=1)  # (N, 1 + K)
    design = np.einsum("nk,nij->nikj", factors, cameras).reshape(2 * count, 3 * (1 + modes))
    ridge = DEEP * count * np.eye(design.shape[1])
    ridge[:3, :3] = 0
    solution = np.linalg.solve(design.T @ design + ridge, design.T @ points.transpose(0, 2, 1).reshape(2 * count, 68))
    shapes = solution.reshape(1 + modes, 3, 68).transpose(0, 2, 1)  # (1 + K, 68, 3)
    numbers = shapes[0].size
    mean, values, components = shapes[0], np.zeros(0), np.zeros((0, numbers))
    if modes:
        mean = mean + np.tensordot(coefficients.mean(axis=0), shapes[1:], axes=1)
        scattered = (coefficients - coefficients.mean(axis=0)) @ shapes[1:].reshape(modes, numbers)
        _, values, components = np.linalg.svd(scattered, full_matrices=False)
        values, components = values[:modes], components[:modes]
    size = np.linalg.norm(mean[EYES[1]] - mean[EYES[0]])
    mean = 0.5 * (mean + mean[MIRROR] * [-1, 1, 1])
    return HeadModel(mean / size, components.reshape(modes, 68, 3), values / np.sqrt(count) / size)


def unexplained(model: HeadModel, landmarks: np.ndarray) -> float:
    """Return the root mean square residual of fits to landmarks (N, 68, 2), in units of the eye corners' distance."""
    rests = []
    for points in landmarks:
        result = fit(model, points)
        scale = np.linalg.norm(result.matrix[0])
        rests.append(((result.project(result.shape)[:, :2] - points) / scale) ** 2)
    return float(np.sqrt(np.mean(np.sum(rests, axis=2))))


def aligned(faces: Path, size: int) -> Dataset:
    """Return all faces of a folder or a zip file as aligned crops of `size` pixels."""
    data: Dataset = part("datasets", "face-folder", root=str(faces), test_share=0.0).build(
        size, part("detectors", "mtcnn"), "train"
    )
    data.load()
    return data


@click.command(help=__doc__)
@click.argument("faces", type=click.Path(exists=True, path_type=Path))
@click.option("--size", default=128, show_default=True, help="Side of the aligned crops for landmark detection.")
@click.option("--modes", default=20, show_default=True, help="Number of modes.")
@click.option("--out", default=FILE, show_default=True, type=click.Path(path_type=Path))
def main(faces: Path, size: int, modes: int, out: Path) -> None:
    data = aligned(faces, size)
    estimator = part("estimators", "dlib-landmarks").build()
    estimator.load()
    indices = tracked(range(len(data)), "landmarks", len(data), "faces")
    landmarks = centred(np.stack([estimator.landmarks(data[index].image) for index in indices]))
    training, held_out = landmarks[np.arange(len(landmarks)) % 10 != 0], landmarks[::10]
    mirrored = training[:, MIRROR] * [-1, 1]
    both = np.concatenate([training, mirrored])
    model = improve(rigid(both), both, modes)
    mean_alone = HeadModel(model.mean, model.modes[:1], model.spread[:1] * 1e-3)
    click.echo(f"residual on {len(held_out)} held-out faces, in distances of the eye corners: ", nl=False)
    click.echo(
        f"{unexplained(mean_alone, held_out):.4f} with the mean, {unexplained(model, held_out):.4f} with {modes} modes"
    )
    with replacing(out) as temporary, temporary.open("wb") as file:
        np.savez(file, mean=model.mean.astype("f4"), modes=model.modes.astype("f4"), spread=model.spread.astype("f4"))


if __name__ == "__main__":
    main()
