"""Rendered heads: the surface, the z-buffer, light, people and pictures, and the swaps that are known."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fsf_graphics import head_model, learn_skin, skin_model
from fsf_graphics.dense_head import grid, normals
from fsf_graphics.head_pose import AHEAD, angles, rotation
from fsf_graphics.landmark_pose import pose
from fsf_graphics.learn_skin import Seen, filled, folded, scatter, unlit
from fsf_graphics.light import brightness, harmonics, lamp, sky
from fsf_graphics.rasterizer import rasterize
from fsf_graphics.rendered_heads import RenderedHeads
from fsf_graphics.scene import FACE, five, placed, render, shape_of
from fsf_graphics.skin_model import MOST, SIDE, draw, face, skin

from fsframework.core.part import part
from fsframework.core.types import FaceBatch
from fsframework.faces.align import template
from fsframework.media.image_io import write_image
from fsframework.media.tensor import to_tensor
from fsframework.recipe.schema import Recipe


def heads(split: str = "all", size: int = 64, **options: Any) -> RenderedHeads:
    made: RenderedHeads = part("datasets", "rendered-heads", **{"people": 4, "pictures": 3, **options}).build(
        size, None, split
    )
    made.load()
    return made


def known_of(faces: RenderedHeads, quantity: str, source: int, target: int) -> np.ndarray:
    value = faces.expected(quantity, source, target)
    assert value is not None
    return value


@pytest.fixture(scope="module")
def few() -> RenderedHeads:
    return heads()


def test_the_surface_goes_through_the_landmarks() -> None:
    model, fine = head_model.shipped(), grid(257)
    shape = model.shape(skin_model.shipped().people @ draw(np.random.default_rng(0), 20))
    for landmarks in (model.mean, shape):
        vertices = fine.vertices(landmarks)
        nearest = np.linalg.norm(vertices[None] - landmarks[FACE, None], axis=2).min(axis=1)
        assert nearest.max() < 0.03  # the places of the grid are 0.01 to 0.03 apart there


def test_the_surface_is_closed_and_looks_outwards() -> None:
    side = 33
    vertices = grid(side).mean
    outwards = normals(vertices, side)
    np.testing.assert_allclose(np.linalg.norm(outwards, axis=1), 1, atol=1e-9)
    assert ((vertices - [0, 0.2, 0.75]) * outwards).sum(axis=1)[: side * 25].min() > -0.1
    rows = vertices.reshape(side, side, 3)
    np.testing.assert_allclose(rows[:, 0], rows[:, -1], atol=1e-9)
    np.testing.assert_allclose(rows, rows[:, ::-1] * [-1, 1, 1], atol=5e-3)  # symmetric, as the mean head is
    coarse, fine = grid(9).mean.reshape(9, 9, 3), rows[::4, ::4]
    np.testing.assert_allclose(coarse, fine, atol=1e-9)  # the same surface, coarser


def test_nearest_triangle_is_seen() -> None:
    points = np.array([[0, 0, 5], [8, 0, 5], [0, 8, 5], [0, 0, 1], [4, 0, 1], [0, 4, 10.0]])
    both = np.array([[0, 1, 2], [3, 4, 5]])
    owner, weights = rasterize(points, both, 8)
    assert owner[0, 0] == owner[0, 3] == 1  # nearer
    assert owner[3, 0] == 0  # there it has gone behind the other
    assert owner[7, 7] == -1
    np.testing.assert_allclose(weights[2, 3], [3 / 8, 3 / 8, 2 / 8], atol=1e-9)
    flipped, _ = rasterize(points, both[:, ::-1], 8)
    assert (flipped == -1).all()  # seen from behind
    again, _ = rasterize(points, both[::-1], 8)
    np.testing.assert_array_equal(again, np.where(owner < 0, -1, 1 - owner))  # whatever the order


def test_light_is_that_of_the_paper() -> None:
    rng = np.random.default_rng(0)
    towards = rng.standard_normal((200_000, 3))
    towards /= np.linalg.norm(towards, axis=1, keepdims=True)
    found = harmonics(towards)
    np.testing.assert_allclose(4 * np.pi * found.T @ found / len(towards), np.eye(9), atol=0.03)  # orthonormal
    white = np.ones(3)
    np.testing.assert_allclose(brightness(towards[:50], sky(0.7 * white)), 0.7, atol=1e-9)
    cosine = np.linspace(-1, 1, 41)
    around = np.stack([np.sqrt(1 - cosine**2), np.zeros(41), -cosine], axis=1)
    lit = brightness(around, lamp(np.array([0.0, 0.0, -1.0]), white))[:, 0]
    series = 0.25 + 0.5 * cosine + 5 / 32 * (3 * cosine**2 - 1)  # of max(0, cosine), up to the second order
    np.testing.assert_allclose(lit, np.maximum(series, 0), atol=1e-9)
    assert np.abs(lit - np.maximum(cosine, 0)).max() < 0.1


@pytest.mark.parametrize("pose", [(0, 0, 0), (35, 0, 0), (-20, 15, 10), (10, -20, -30)])
def test_angles_are_those_of_the_rotation(pose: tuple[float, float, float]) -> None:
    np.testing.assert_allclose(angles(3 * rotation(*pose)), pose, atol=1e-6)


def test_signs_of_poses() -> None:
    mean = head_model.shipped().mean
    right, up, clockwise = (mean @ rotation(*pose).T for pose in ((20, 0, 0), (0, 20, 0), (0, 0, 20)))
    assert right[30, 0] > 0.05 and up[30, 1] < mean[30, 1] - 0.05 and clockwise[45, 1] > clockwise[36, 1]


def test_heads_stand_where_aligned_crops_have_them() -> None:
    mean = head_model.shipped().mean
    matrix, shift = placed(mean, rotation(0, 0, 25))
    points = five(64 * (mean @ matrix[:2].T + shift) - 0.5)
    assert np.abs(points - template(64)).max() < 2.5
    assert abs(angles(matrix)[2]) < 1  # upright again


def test_the_same_options_give_the_same_bytes(few: RenderedHeads) -> None:
    again, more = heads(), heads(people=8, pictures=5)
    assert few.names() == [f"p{person}/{picture}" for person in range(4) for picture in range(3)]
    for place in (11, 0, 5):
        one, other = few[place], again[place]
        assert one.image.tobytes() == other.image.tobytes() and one.name == other.name == few.names()[place]
        assert more[more.names().index(one.name)].image.tobytes() == one.image.tobytes()
    assert (heads(seed=1)[0].image != few[0].image).mean() > 0.5


def test_people_of_tests_are_others(few: RenderedHeads) -> None:
    train, test = heads("train"), heads("test")
    assert set(train.people()) == {"p0", "p1", "p2"} and set(test.people()) == {"p3"}
    assert test[1].image.tobytes() == few[10].image.tobytes()
    assert test[1].image.shape == (64, 64, 3) and test[1].landmarks.shape == (5, 2)


def test_known_poses_and_landmarks_agree(few: RenderedHeads) -> None:
    model = head_model.shipped()
    for place in range(len(few)):
        landmarks, pose = (known_of(few, quantity, place, place) for quantity in ("landmarks68", "pose_deg"))
        np.testing.assert_allclose(five(landmarks), few[place].landmarks)
        pose = pose - [0, AHEAD, 0]
        found = head_model.fit(model, landmarks)
        assert np.abs(angles(found.matrix) - pose).max() < 5
        setting = few.setting(place)
        shape = shape_of(few.person(place // 3), setting)
        matrix, shift = head_model.pose(shape, landmarks)  # with the shape known, the pose is exact
        np.testing.assert_allclose(angles(matrix), pose, atol=1e-6)
        np.testing.assert_allclose(matrix, 64 * setting.matrix, atol=1e-6)
        np.testing.assert_allclose(shift, 64 * setting.shift - 0.5, atol=1e-6)
    assert few.expected("expression", 0, 0) is None


def test_landmarks_lie_where_they_are_painted(few: RenderedHeads) -> None:
    finder = part("estimators", "dlib-landmarks").build()
    finder.load()
    known = np.stack([known_of(few, "landmarks68", place, place) for place in range(len(few))])
    found = finder(FaceBatch.of(to_tensor(np.stack([few[place].image for place in range(len(few))])))).numpy()
    away = np.linalg.norm(found - known, axis=2)[:, FACE]
    assert np.median(away) < 2 and away.mean() < 3  # pixels of 64


def test_the_detector_finds_them(few: RenderedHeads) -> None:
    detector = part("detectors", "mtcnn", min_face=60).build()
    detector.load()
    large = heads(size=256, yaw=25)
    found = detector([large[place].image for place in (0, 4, 8)])
    for place, faces in zip((0, 4, 8), found, strict=True):
        assert faces and np.abs(faces[0].landmarks - large[place].landmarks).mean() < 10


def test_the_swap_of_a_picture_and_itself_is_the_picture(few: RenderedHeads) -> None:
    assert few.ground_truth_swap(4, 4).image.tobytes() == few[4].image.tobytes()
    assert few.ground_truth_swap(3, 4).image.tobytes() == few[4].image.tobytes()  # another picture of the same person
    assert np.abs(few.ground_truth_swap(0, 4).image.astype(int) - few[4].image).mean() > 2


def test_swaps_keep_everything_but_the_person(few: RenderedHeads) -> None:
    swap, target = few.ground_truth_swap(0, 4), few[4]
    np.testing.assert_array_equal(few.expected("pose_deg", 0, 4), few.expected("pose_deg", 4, 4))
    assert swap.name == target.name and swap.person == "p0"
    both = np.maximum(*(known_of(few, "mask", source, 4)[0] for source in (0, 4))) > 0
    apart = np.abs(swap.image.astype(int) - target.image).mean(axis=2)
    assert 0.15 < both.mean() < 0.5 and apart[both].mean() > 3 * apart[~both].mean()
    assert (apart[0, [0, -1]] == 0).all()  # the background


def test_light_comes_from_where_the_lamp_is(few: RenderedHeads) -> None:
    straight = heads(yaw=0, pitch=0)
    setting, person = straight.setting(0), straight.person(0)
    sides = []
    for x in (-1.0, 1.0):
        light = sky(np.full(3, 0.3)) + lamp(np.array([x, 0, -1]) / 2**0.5, np.full(3, 0.7))
        picture = render(person, type(setting)(**{**vars(setting), "light": light}), 64)
        columns = np.nonzero(picture.face.any(axis=0))[0]
        middle = int(columns.mean())
        left, right = picture.face.copy(), picture.face.copy()
        left[:, middle:], right[:, :middle] = False, False
        sides.append((picture.image[left].mean(), picture.image[right].mean()))
    assert sides[0][0] > sides[0][1] + 20 and sides[1][1] > sides[1][0] + 20


def test_options_change_what_they_say() -> None:
    flat = heads(yaw=0, pitch=0, light=0, expression=0)
    for place in range(3):
        assert np.abs(known_of(flat, "pose_deg", place, place)[:2] - [0, AHEAD]).max() < 1e-6
        np.testing.assert_array_equal(flat.setting(place).expression, 0)
        assert (flat.setting(place).light[1:] == 0).all()
    turned = heads(yaw=70, pictures=30)
    yaws = [known_of(turned, "pose_deg", place, place)[0] for place in range(len(turned))]
    assert max(np.abs(yaws)) > 60


@pytest.mark.parametrize(("name", "value"), [("people", 3), ("pictures", 0), ("yaw", 90), ("seed", -1), ("age", 30)])
def test_wrong_options_are_told_in_a_line(name: str, value: int, expect_error: Callable[..., Any]) -> None:
    with expect_error(f"--set data.{name}={value}: data.{name}: "):
        Recipe.load("faceswap", ["data.use=rendered-heads", f"data.{name}={value}"])


def test_the_skin_model_is_what_it_says() -> None:
    model = skin_model.shipped()
    assert model.mean.shape == (SIDE, SIDE // 2, 3) and model.modes.shape[1:] == model.mean.shape
    texture = model.texture(draw(np.random.default_rng(0), len(model.modes)))
    assert texture.shape == (SIDE, SIDE, 3) and texture.min() >= 0 and texture.max() <= 1
    np.testing.assert_array_equal(texture, texture[:, ::-1])
    assert (face() <= skin() + 1e-9).all() and 0.2 < face().mean() < 0.5
    assert np.abs(draw(np.random.default_rng(0), 100_000)).max() == MOST
    assert skin_model.FILE.stat().st_size < 1_000_000


def test_scatters_of_people_and_expressions_are_found_apart() -> None:
    rng = np.random.default_rng(0)
    people = np.repeat(np.arange(3000), rng.integers(1, 5, 3000))
    own, moved = np.array([2.0, 0.5]), np.array([0.3, 1.0])
    coefficients = (rng.standard_normal((3000, 2)) * own)[people] + rng.standard_normal((len(people), 2)) * moved
    identity, expression = (made @ made.T for made in scatter(coefficients, people))
    np.testing.assert_allclose(identity, np.diag(own**2), atol=0.2)
    np.testing.assert_allclose(expression, np.diag(moved**2), atol=0.1)


def test_light_is_taken_off_a_skin() -> None:
    model, upright = skin_model.shipped(), normals(grid(SIDE).mean, SIDE)
    mean = model.texture(np.zeros(len(model.modes))).reshape(-1, 3)
    light = sky(np.full(3, 0.5)) + lamp(np.array([0.6, 0.0, -0.8]), np.full(3, 0.5))
    seen = Seen(mean * brightness(upright, light), face().ravel(), upright)
    even, chosen = unlit(seen, mean), face().ravel() > 0.9
    ratio = even[chosen] / mean[chosen]
    assert ratio.std() / ratio.mean() < 0.05  # before: 0.2
    assert (seen.colour[chosen] / mean[chosen]).std() > 0.1


def test_halves_are_averaged_and_holes_filled() -> None:
    colour, weight = np.zeros((SIDE, SIDE, 3)), np.zeros((SIDE, SIDE))
    colour[:, 10], weight[:, 10] = 0.2, 1
    colour[:, SIDE - 11], weight[:, SIDE - 11] = 0.4, 1
    total, weights = folded(colour.reshape(-1, 3), weight.ravel())
    assert total.shape == (SIDE, SIDE // 2, 3) and weights[0, 10] == 2 and weights[0, 11] == 0
    np.testing.assert_allclose(filled(total, weights), 0.3, atol=1e-3)


def test_skins_are_learned_from_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    large = heads(size=192, yaw=10, pitch=5, pictures=2, people=8)
    for place, name in enumerate(large.names()):
        file = tmp_path / "faces" / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_image(file, large[place].image)
    arguments = [str(tmp_path / "faces"), "--modes", "3", "--out", str(tmp_path / "skin.npz")]
    learn_skin.main(arguments, standalone_mode=False)
    with np.load(tmp_path / "skin.npz", allow_pickle=False) as held:
        assert held["modes"].shape == (3, SIDE, SIDE // 2, 3) and held["people"].shape == (20, 20)
        away = np.abs(held["mean"].astype(float) - skin_model.shipped().mean)
    assert away[face()[:, : SIDE // 2] > 0.9].mean() < 40  # a face again: eight people's mean, not another picture


def test_pose_is_read_from_landmarks() -> None:
    assert np.isnan(pose(np.full((68, 2), np.nan))).all()
    model = head_model.shipped()
    for turned in ((0.0, 0.0, 0.0), (25.0, 8.0, -6.0), (-35.0, -10.0, 4.0)):
        points = 60 * (model.mean @ rotation(*turned).T)[:, :2] + 100
        assert pose(points) - [0, AHEAD, 0] == pytest.approx(turned, abs=1.5)
