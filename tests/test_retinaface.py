"""RetinaFace: names and shapes of both layouts, what its anchors say, and real faces where weights lie."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fsf_data.sources import open_source
from fsf_detectors.retinaface import RetinaFace, anchors_of, boxes_of, points_of
from fsf_detectors.retinaface_network import mobilenet, resnet
from skimage.data import astronaut

from fsframework.core.part import part
from fsframework.utils.weights import fold_norms, save_state

SHA256 = "ed6fa7d45a5179f03cb5ce82c73b0c6711372968e53782e88395acee88d319e1"


def detector(weights: Path, **options: Any) -> RetinaFace:
    built: RetinaFace = part("detectors", "retinaface", weights=str(weights), **options).build()
    built.load()
    return built


@pytest.fixture(scope="module")
def published(shared: Path) -> RetinaFace:
    return detector(shared / "weights/retinaface_mobilenet025.pt", sha256=SHA256)


@pytest.fixture
def untrained(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_state(tmp_path / "untrained.safetensors", mobilenet(0.0).state_dict())
    return tmp_path / "untrained.safetensors"


@pytest.mark.parametrize("build", [mobilenet, resnet])
def test_layouts_have_the_published_names_and_shapes(build: Any) -> None:
    with torch.device("meta"):
        network = build(0.0).eval()
        said = network(torch.empty(2, 3, 100, 76))
    names = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    width = 64 if build is mobilenet else 256
    assert names["ClassHead.2.conv1x1.weight"] == (4, width, 1, 1)
    assert names["LandmarkHead.0.conv1x1.bias"] == (20,)
    assert names["ssh3.conv7x7_3.0.weight"] == (width // 4, width // 4, 3, 3)
    assert names["fpn.output3.0.weight"] == ((64, 256, 1, 1) if build is mobilenet else (256, 2048, 1, 1))
    if build is mobilenet:
        assert len(names) == 300 and names["body.stage3.1.3.weight"] == (256, 256, 1, 1)
    else:
        assert names["body.layer4.2.conv3.weight"] == (2048, 512, 1, 1) and "body.fc.weight" not in names
    count = len(anchors_of(100, 76, (1, 2, 3, 4, 5, 6)))
    assert [tuple(value.shape) for value in said] == [(2, count, numbers) for numbers in (2, 4, 10)]


def test_anchors_lie_row_by_row_with_two_sides_each() -> None:
    anchors = anchors_of(40, 30, (1, 2, 3, 4, 5, 6))
    assert anchors[:4].tolist() == [[4, 4, 1], [4, 4, 2], [12, 4, 1], [12, 4, 2]]
    assert len(anchors) == 2 * (5 * 4 + 3 * 2 + 2 * 1)
    assert anchors[-1].tolist() == [16, 48, 6]


def test_boxes_and_points_follow_their_anchors() -> None:
    anchors = torch.tensor([[100.0, 50.0, 20.0]])
    still = boxes_of(anchors, torch.zeros(1, 4))
    assert still.tolist() == [[90, 40, 110, 60]]
    moved = boxes_of(anchors, torch.tensor([[5.0, -10.0, float(np.log(2)) / 0.2, 0.0]]))
    torch.testing.assert_close(moved, torch.tensor([[90.0, 20.0, 130.0, 40.0]]))
    points = points_of(anchors, torch.tensor([[0.0, 0, 10, 0, 0, 10, -10, 0, 0, -10]]))
    assert points[0].tolist() == [[100, 50], [120, 50], [100, 70], [80, 50], [100, 30]]


def test_folding_changes_nothing_that_is_said() -> None:
    torch.manual_seed(0)
    network = mobilenet(0.0).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)  # type: ignore[arg-type]
            torch.nn.init.uniform_(module.running_var, 0.5, 2)  # type: ignore[arg-type]
    image = torch.rand(1, 3, 64, 64) * 100
    with torch.no_grad():
        before = network(image)
        fold_norms(network)
        after = network(image)
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules())


def test_weights_of_another_layout_and_missing_ones_are_named(
    untrained: Path, tmp_path: Path, expect_error: Callable[..., Any]
) -> None:
    hide = {str(untrained.parent): "TMP", hashlib.sha256(untrained.read_bytes()).hexdigest(): "HASH"}
    with expect_error("untrained.safetensors", hide=hide):
        detector(untrained, layout="resnet-50")
    state = mobilenet(0.0).state_dict()
    del state["ssh2.conv3X3.0.weight"]
    save_state(tmp_path / "cut.safetensors", state)
    with expect_error("cut.safetensors"):
        detector(tmp_path / "cut.safetensors")
    with expect_error("untrained.safetensors", hide=hide):
        detector(untrained, sha256="0" * 64)


def test_names_of_parallel_training_are_read(tmp_path: Path) -> None:
    state = {f"module.{name}": value for name, value in mobilenet(0.0).state_dict().items()}
    save_state(tmp_path / "parallel.safetensors", state)
    assert detector(tmp_path / "parallel.safetensors", threshold=1)([astronaut()]) == [[]]


def test_the_astronauts_face(published: RetinaFace) -> None:
    (faces,) = published([astronaut()])
    left, top, right, bottom = faces[0].box
    assert 175 < left < 195 and 50 < top < 75 and 255 < right < 275 and 160 < bottom < 190
    expected = [(205, 102), (247, 104), (225, 129), (202, 139), (245, 142)]  # mtcnn's
    assert np.linalg.norm(faces[0].landmarks - expected, axis=1).max() < 6
    assert faces[0].score > 0.9 and faces[0].score == max(face.score for face in faces)


def test_frames_of_all_sizes_in_any_order(published: RetinaFace) -> None:
    frame = astronaut()
    large = np.repeat(np.repeat(frame, 3, axis=0), 3, axis=1)
    empty = np.zeros((40, 60, 3), np.uint8)
    found = published([empty, large, frame, frame[:, ::-1].copy()])
    assert found[0] == []
    np.testing.assert_allclose(found[2][0].box, published([frame])[0][0].box, atol=0.01)
    np.testing.assert_allclose((found[1][0].landmarks + 0.5) / 3 - 0.5, found[2][0].landmarks, atol=8)
    mirrored = 511 - found[3][0].landmarks[[1, 0, 2, 4, 3], 0]
    np.testing.assert_allclose(mirrored, found[2][0].landmarks[:, 0], atol=6)


def test_it_finds_every_face_that_mtcnn_finds_on_lfw(published: RetinaFace, shared: Path) -> None:
    mtcnn = part("detectors", "mtcnn").build()
    mtcnn.load()
    source = open_source(shared / "data/lfw/val.zip")
    frames = [source.read(picture) for picture in source.pictures[::6]]
    assert len(frames) >= 200
    missed, distances = 0, []
    for theirs, ours in zip(mtcnn(frames), published(frames), strict=True):
        for face in theirs[:1]:  # the best: others are at the picture's edge
            near = [np.linalg.norm(face.landmarks - each.landmarks, axis=1).mean() for each in ours]
            missed += not near or min(near) > 0.2 * (face.box[2] - face.box[0])
            distances.append(min(near, default=np.inf))
    assert missed == 0 and np.median(distances) < 4
