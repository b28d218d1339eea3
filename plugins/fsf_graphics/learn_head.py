"""Learn the head model from the landmarks of many faces, by structure from motion.

    python -m fsf_graphics.learn_head LFW/train.zip

A rigid shape is factored out of all landmarks but the outline's, which slide over the skin (Tomasi and Kanade, IJCV
1992; metric constraints as in section 3.4). Then pose, coefficients and modes are improved in turns, each by least
squares, as Torresani et al. do (TPAMI 2008) without its priors. Every face is also seen in a mirror, so that the model
is symmetric.
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
TURNS = 8  # of poses, coefficients and modes
START = 0.05  # standard deviation of a coefficient before anything is known
WEAK = 0.02  # ridge on coefficients while modes are learned: a stronger one makes weak modes vanish
DEEP = 1e-3  # ridge on the modes, whose depth few faces show


def centred(landmarks: np.ndarray) -> np.ndarray:
    """Landmarks (N, 68, 2) with their mean taken off and divided by the root mean square distance from it."""
    moved = landmarks - landmarks.mean(axis=1, keepdims=True)
    return moved / np.sqrt((moved**2).sum(axis=2).mean(axis=1))[:, None, None]


def rigid(landmarks: np.ndarray) -> np.ndarray:
    """The one shape (68, 3) that landmarks (N, 68, 2) are views of, up to their deformation."""
    inner = centred(landmarks[:, INNER])
    stacked = inner.transpose(0, 2, 1).reshape(-1, inner.shape[1])  # (2N, 51)
    gram = stacked.T @ stacked
    values, vectors = np.linalg.eigh(gram)
    basis = (vectors[:, -3:] * np.sqrt(values[-3:])).T  # (3, 51)
    motion = stacked @ np.linalg.pinv(basis)  # (2N, 3)
    first, second = motion[::2], motion[1::2]

    def products(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Factors of the six numbers of a symmetric matrix Q in a Q b."""
        pairs = [(0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)]
        return np.stack([a[:, i] * b[:, j] + (a[:, j] * b[:, i] if i != j else 0) for i, j in pairs], axis=1)

    # Rows of a scaled rotation are as long as each other and at right angles; the mean length fixes the scale.
    equal, right = products(first, first) - products(second, second), products(first, second)
    length = products(first, first).mean(axis=0) + products(second, second).mean(axis=0)
    system = np.vstack([equal, right, 1e3 * length])
    wanted = np.concatenate([np.zeros(2 * len(first)), [2e3]])
    q = np.linalg.lstsq(system, wanted, rcond=None)[0]
    symmetric = np.array([[q[0], q[3], q[4]], [q[3], q[1], q[5]], [q[4], q[5], q[2]]])
    values, vectors = np.linalg.eigh(symmetric)
    upgrade = vectors * np.sqrt(np.maximum(values, 1e-6))
    shape = np.zeros((68, 3))
    shape[INNER] = upright((np.linalg.inv(upgrade) @ basis).T)
    found = [pose(shape, points) for points in landmarks]  # the outline has no part in it, and follows from it
    cameras = np.stack([matrix[:2] for matrix, _ in found])
    moved = np.stack([points - shift for points, (_, shift) in zip(landmarks, found, strict=True)])
    return solved(cameras, moved, np.zeros((len(landmarks), 0))).mean


def upright(shape: np.ndarray) -> np.ndarray:
    """An inner shape (51, 3) turned so that eyes lie along x, the face looks along -z, and its mirror is itself."""
    shape = shape - shape.mean(axis=0)
    eyes, (bridge, nose, lip) = [place - 17 for place in EYES], (place - 17 for place in (BRIDGE, NOSE, LIP))
    mirror = MIRROR[INNER] - 17
    across = shape[eyes[1]] - shape[eyes[0]]
    down = shape[lip] - shape[bridge]
    x = across / np.linalg.norm(across)
    y = down - (down @ x) * x
    y /= np.linalg.norm(y)
    turned = shape @ np.stack([x, y, np.cross(x, y)]).T
    if turned[nose, 2] > turned[eyes, 2].mean():  # the nose is nearer than the eyes
        turned[:, 2] *= -1
    return 0.5 * (turned + turned[mirror] * [-1, 1, 1])


def improve(shape: np.ndarray, landmarks: np.ndarray, modes: int) -> HeadModel:
    """Mean and modes that explain landmarks (N, 68, 2) better than the rigid shape alone."""
    rng = np.random.default_rng(0)
    model = HeadModel(shape, rng.standard_normal((modes, 68, 3)) / 204**0.5, np.full(modes, START))
    for _ in tracked(range(TURNS), "structure from motion", TURNS, "turns"):
        cameras, rests, coefficients = [], [], []
        for points in landmarks:
            matrix, shift = pose(model.mean, points)
            found = deformation(model, matrix, points - shift, WEAK)
            matrix, shift = pose(model.shape(found), points)
            found = deformation(model, matrix, points - shift, WEAK)
            cameras.append(matrix[:2])
            rests.append(points - shift)
            coefficients.append(found)
        model = solved(np.stack(cameras), np.stack(rests), np.stack(coefficients))
    return model


def solved(cameras: np.ndarray, points: np.ndarray, coefficients: np.ndarray) -> HeadModel:
    """Mean and modes by least squares, given cameras (N, 2, 3), points (N, 68, 2) and coefficients (N, K).

    Modes are then turned into principal components: orthogonal, coefficients uncorrelated with mean 0.
    """
    count, modes = coefficients.shape
    factors = np.concatenate([np.ones((count, 1)), coefficients], axis=1)  # (N, 1 + K)
    design = np.einsum("nk,nij->nikj", factors, cameras).reshape(2 * count, 3 * (1 + modes))
    ridge = DEEP * count * np.eye(design.shape[1])
    ridge[:3, :3] = 0
    found = np.linalg.solve(design.T @ design + ridge, design.T @ points.transpose(0, 2, 1).reshape(2 * count, 68))
    shapes = found.reshape(1 + modes, 3, 68).transpose(0, 2, 1)  # (1 + K, 68, 3)
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
    """Root mean square distance of landmarks (N, 68, 2) and their fits, in units of the distance of the eye corners."""
    rests = []
    for points in landmarks:
        found = fit(model, points)
        scale = np.linalg.norm(found.matrix[0])
        rests.append(((found.project(found.shape)[:, :2] - points) / scale) ** 2)
    return float(np.sqrt(np.mean(np.sum(rests, axis=2))))


def aligned(faces: Path, size: int) -> Dataset:
    """All faces of a folder or a zip file, as crops with sides of `size` pixels."""
    data: Dataset = part("datasets", "face-folder", root=str(faces), test_share=0.0).build(
        size, part("detectors", "mtcnn"), "train"
    )
    data.load()
    return data


@click.command(help=__doc__)
@click.argument("faces", type=click.Path(exists=True, path_type=Path))
@click.option("--size", default=128, show_default=True, help="Side of the aligned crops that landmarks are sought in.")
@click.option("--modes", default=20, show_default=True, help="How many ways a head can differ from the mean.")
@click.option("--out", default=FILE, show_default=True, type=click.Path(path_type=Path))
def main(faces: Path, size: int, modes: int, out: Path) -> None:
    data = aligned(faces, size)
    finder = part("estimators", "dlib-landmarks").build()
    finder.load()
    places = tracked(range(len(data)), "landmarks", len(data), "faces")
    landmarks = centred(np.stack([finder.landmarks(data[place].image) for place in places]))
    kept, held = landmarks[np.arange(len(landmarks)) % 10 != 0], landmarks[::10]
    mirrored = kept[:, MIRROR] * [-1, 1]
    both = np.concatenate([kept, mirrored])
    model = improve(rigid(both), both, modes)
    mean_alone = HeadModel(model.mean, model.modes[:1], model.spread[:1] * 1e-3)
    click.echo(f"unexplained on {len(held)} faces left out, in distances of the eye corners: ", nl=False)
    click.echo(
        f"{unexplained(mean_alone, held):.4f} by the mean alone, {unexplained(model, held):.4f} by {modes} modes"
    )
    with replacing(out) as temporary, temporary.open("wb") as file:
        np.savez(file, mean=model.mean.astype("f4"), modes=model.modes.astype("f4"), spread=model.spread.astype("f4"))


if __name__ == "__main__":
    main()
