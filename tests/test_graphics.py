"""The head model, its fit, the renderer, and swaps by graphics."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from fsf_graphics.face_mesh import FaceMesh, faded
from fsf_graphics.face_texture import FaceTexture, unpacked
from fsf_graphics.head_model import Fit, HeadModel, fit, pose, shipped
from fsf_graphics.learn_head import MIRROR, centred, improve, rigid, unexplained
from fsf_graphics.mesh import facing, render, surface, triangles, with_forehead

from fsframework.core.part import part
from fsframework.core.swapper import Swapper
from fsframework.core.types import FaceBatch, SwapBatch
from fsframework.evaluation.evaluate import evaluate
from fsframework.media.tensor import to_images, to_tensor
from fsframework.models.run import Run
from fsframework.models.store import load
from fsframework.recipe.schema import Recipe
from fsframework.training.trainer import train

SIZE = 128


def turn(yaw: float, pitch: float = 0.0, roll: float = 0.0) -> np.ndarray:
    """A rotation (3, 3) by angles in degrees."""
    a, b, c = np.radians([yaw, pitch, roll])
    about_y = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return about_z @ about_x @ about_y


def seen(shape: np.ndarray, rotation: np.ndarray, scale: float = 30.0) -> np.ndarray:
    """Landmarks (68, 2) in pixels of a shape in a pose."""
    placed: np.ndarray = scale * shape @ rotation[:2].T + [64, 70]
    return placed


def test_the_head_is_a_head() -> None:
    model = shipped()
    assert model.mean.shape == (68, 3) and model.modes.shape == (20, 68, 3)
    np.testing.assert_allclose(model.mean, model.mean[MIRROR] * [-1, 1, 1], atol=1e-3)  # symmetric
    assert np.linalg.norm(model.mean[45] - model.mean[36]) == pytest.approx(1, abs=1e-3)
    nose, eyes, jaw, chin = model.mean[30], model.mean[[36, 45]], model.mean[[0, 16]], model.mean[8]
    assert 0.3 < eyes[0, 2] - nose[2] < 0.8  # the nose is nearer than the eyes, the jaw's ends are farther
    assert jaw[0, 2] > eyes[0, 2] + 0.2 and chin[1] > nose[1] > eyes[0, 1]
    gram = model.modes.reshape(20, -1) @ model.modes.reshape(20, -1).T
    np.testing.assert_allclose(gram, np.eye(20), atol=1e-3)


@pytest.mark.parametrize(("yaw", "pitch", "roll"), [(0, 0, 0), (35, 0, 0), (-20, 15, 10), (10, -20, -30)])
def test_pose_is_found_again(yaw: float, pitch: float, roll: float) -> None:
    model, rotation = shipped(), turn(yaw, pitch, roll)
    matrix, shift = pose(model.mean, seen(model.mean, rotation))
    np.testing.assert_allclose(matrix, 30 * rotation, atol=1e-6)
    np.testing.assert_allclose(shift, [64, 70], atol=1e-6)


def test_deformations_are_found_again() -> None:
    model, rng = shipped(), np.random.default_rng(0)
    kept = model.spread > 0.05
    coefficients = rng.normal(size=20) * model.spread * kept
    shape = model.mean + np.tensordot(coefficients, model.modes, axes=1)
    landmarks = seen(shape, turn(25, 5))
    found = fit(model, landmarks)
    alone = fit(HeadModel(model.mean, model.modes[:1], model.spread[:1] * 1e-3), landmarks)

    def error(made: Fit) -> float:
        return float(np.abs(made.project(made.shape)[:, :2] - landmarks).mean())

    assert error(found) < 0.4 * error(alone) and error(found) < 0.2  # pixels


def test_structure_from_motion_finds_a_head_that_is_known() -> None:
    model, rng = shipped(), np.random.default_rng(0)
    few = HeadModel(model.mean, model.modes[:3], model.spread[:3])
    landmarks = []
    for _ in range(400):
        shape = few.mean + np.tensordot(rng.normal(size=3) * few.spread, few.modes, axes=1)
        landmarks.append(seen(shape, turn(rng.normal() * 25, rng.normal() * 12)) + rng.normal(0, 0.1, (68, 2)))
    views = centred(np.array(landmarks))
    both = np.concatenate([views, views[:, MIRROR] * [-1, 1]])
    learned = improve(rigid(both[::2]), both, 3)
    depth = (learned.mean[36] - learned.mean[30])[2] / (few.mean[36] - few.mean[30])[2]
    assert 0.75 < depth < 1.35
    alone = HeadModel(learned.mean, learned.modes[:1], learned.spread[:1] * 1e-3)
    assert unexplained(learned, views[:50]) < 0.4 * unexplained(alone, views[:50])


def test_the_mesh_covers_the_face_once() -> None:
    points = with_forehead(shipped().mean)
    assert points.shape == (78, 3) and points[68:, 1].max() < points[17:27, 1].max()
    assert (facing(points) > 0).all() and (facing(points * [-1, 1, 1]) < 0).all()  # seen from the front, from behind
    corners = points[triangles()][..., :2]
    a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = 0.5 * np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum()
    hull = cv2.contourArea(cv2.convexHull(points[:, :2].astype(np.float32)))
    assert area == pytest.approx(hull, rel=0.01)


def test_rendering_a_face_where_it_is_gives_it_back() -> None:
    image = skimage.data.astronaut()[20:212:3, 128:320:3].repeat(2, axis=0).repeat(2, axis=1)
    finder = part("estimators", "dlib-landmarks").build()
    finder.load()
    points = surface(fit(shipped(), finder.landmarks(image)))
    made, mask = render(image, points, points, SIZE)
    assert 0.1 < mask.mean() < 0.5
    assert np.abs(made[mask].astype(int) - image[mask]).max() <= 2
    assert not made[~mask].any()


def test_texture_moves_with_the_head() -> None:
    texture = np.zeros((SIZE, SIZE, 3), np.uint8)
    model = shipped()
    source = surface(fit(model, seen(model.mean, turn(0))))
    x, y = source[30, :2].round().astype(int)
    texture[y - 3 : y + 4, x - 3 : x + 4] = 255  # a mark on the nose
    target = surface(fit(model, seen(model.mean, turn(30), scale=35)))
    made, _ = render(texture, source, target, SIZE)
    y, x = (places.mean() for places in np.nonzero(made[..., 0] > 128))
    assert np.hypot(x - target[30, 0], y - target[30, 1]) < 5  # half the mark is hidden by the nose
    assert abs(target[30, 0] - source[30, 0]) > 5


def test_what_is_turned_away_is_not_painted() -> None:
    model = shipped()
    white = np.full((SIZE, SIZE, 3), 255, np.uint8)
    front, side = (surface(fit(model, seen(model.mean, turn(yaw)))) for yaw in (0, 70))
    painted = [render(white, front, view, SIZE)[1].sum() for view in (front, side)]
    assert 0 < painted[1] < 0.8 * painted[0]
    assert render(white, side, front, SIZE)[1].sum() < painted[0]  # nor what the source does not show


def test_textures_are_pictures_and_landmarks() -> None:
    encoder: FaceTexture = part("identity-encoders", "face-texture", side=64).build()
    encoder.load()
    image = to_tensor(skimage.data.astronaut()[None, 20:212:3, 128:320:3].copy())
    vectors = encoder(FaceBatch.of(image))
    assert vectors.shape == (1, encoder.dim) and not encoder.metric and not encoder.differentiable
    picture, points = unpacked(vectors)
    torch.testing.assert_close(picture, image)
    torch.testing.assert_close(points, encoder.landmarks(FaceBatch.of(image)), atol=1e-3, rtol=0)


def test_a_swap_onto_itself_is_the_picture() -> None:
    image = to_tensor(skimage.data.astronaut()[None, 20:212:3, 128:320:3].copy())
    encoder = part("identity-encoders", "face-texture", side=64).build()
    mesh: FaceMesh = part("generators", "face-mesh").build(64, encoder.dim, [3])
    picture = part("attribute-encoders", "picture").build(64)
    swapper = Swapper(encoder, picture, mesh, part("refiners", "blend").build(64))
    swapper.load()
    faces = FaceBatch.of(image)
    result = swapper(SwapBatch.of(faces, faces))
    assert result.mask is not None and 0.05 < result.mask.mean() < 0.5
    assert np.abs(to_images(result.image)[0].astype(int) - to_images(image)[0]).mean() < 1
    turned = FaceBatch.of(image.flip(3))
    other = swapper(SwapBatch.of(faces, turned)).image
    assert (other - turned.image).abs().mean() > 0.01  # somebody was painted
    nobody = FaceBatch.of(image, torch.full((1, 5, 2), torch.nan))
    assert swapper(SwapBatch.of(nobody, turned)).image.isfinite().all()


def test_faces_without_landmarks_stay_as_they_are() -> None:
    encoder = part("identity-encoders", "face-texture", side=64).build()
    mesh: FaceMesh = part("generators", "face-mesh").build(64, encoder.dim, [3])
    mesh.load()
    vectors = torch.full((1, encoder.dim), torch.nan)
    vectors[:, : 3 * 64 * 64] = 0
    assert mesh(vectors, [torch.zeros(1, 3, 64, 64)])[:, 3].sum() == 0


def test_parts_that_do_not_fit_are_refused(expect_error: Callable[..., Any]) -> None:
    with expect_error(kind=ValueError):
        part("generators", "face-mesh").build(64, 128, [3])
    with expect_error("landmarks: ", kind=ValueError):
        part("identity-encoders", "face-texture", landmarks={"use": "pnp"}).build()


def test_masks_fade_inside_their_edge() -> None:
    mask = np.zeros((20, 20), bool)
    mask[4:16, 4:16] = True
    soft = faded(mask, 4.0)
    assert soft[10, 10] == 1 and soft[~mask].max() == 0
    assert 0 < soft[4, 10] < soft[5, 10] < soft[6, 10] < 1
    assert (faded(mask, 0.0) == mask).all()
    assert faded(np.ones((9, 9), bool), 3.0)[0].max() < 0.5  # the picture's border is an edge


def test_a_recipe_without_training_runs(tmp_path: Path) -> None:
    recipe = Recipe.load("faceswap", ["evaluation.pairs=3", "evaluation.benchmarks=[{use: reconstruction}]"])
    run = Run.open(recipe, tmp_path / "run", device="cpu")
    train(run)
    metrics = evaluate(run).to_json()
    assert metrics["benchmarks"]["reconstruction"]["ssim"] > 0.9 and metrics["own_network"] == []
    assert "without-refiner" in metrics["baselines"]  # blend has nothing to learn, so it is there
    assert load(tmp_path / "run", "cpu").swapper.refiner is not None


@pytest.mark.slow
def test_nirkins_segmentation_is_trained_and_kept(tmp_path: Path) -> None:
    sets = ["size=32", "stages.0.steps=2", "stages.0.batch_size=4", "stages.0.data.pool=4"]
    run = Run.open(Recipe.load("nirkin", [*sets, "networks.identity.side=32"]), tmp_path / "run", device="cpu")
    torch.manual_seed(0)
    train(run)
    assert np.isfinite(run.read_log()[-1]["losses"]["mask"])
    trained = load(tmp_path / "run", "cpu").swapper.refiner
    assert trained is not None and any(True for _ in trained.parameters())
    segmenter = part("estimators", "face-segmenter", weights=str(run.weights_file(run.recipe.stages[0]))).build()
    segmenter.load()
    faces = FaceBatch.of(torch.rand(2, 3, 32, 32) * 2 - 1)
    torch.testing.assert_close(segmenter(faces), trained.mask(faces))  # type: ignore[operator]
    untouched = part("estimators", "face-segmenter").build()
    assert not torch.equal(untouched(faces), segmenter(faces))
