"""The estimator 3ddfa: angles of known rotations, faults of its files, and real faces with the published weights."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from fsf_benchmarks.pnp import PnP
from fsf_benchmarks.threed_dfa import NUMBERS, ThreeDDFA, angles
from skimage.data import astronaut

from fsframework.core.errors import UserError
from fsframework.core.part import part
from fsframework.core.types import FaceBatch
from fsframework.faces.align import align
from fsframework.media.tensor import to_tensor


def test_a_head_that_looks_ahead() -> None:
    assert angles(0.0005 * torch.eye(3)[None]).abs().max() < 1e-4  # a scale does not matter


def test_roll_is_the_turn_of_the_picture() -> None:
    turn = np.radians(-20.0)  # 3DDFA's y points up: clockwise as seen is negative there
    matrix = torch.tensor([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    assert angles(matrix[None])[0].abs().tolist() == pytest.approx([0, 0, 20], abs=1e-3)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A network with random weights, named as in the published file, and statistics."""
    torch.manual_seed(0)
    built = ThreeDDFA(ThreeDDFA.Options(weights=Path("x.pt"), statistics=Path("x.npz")))
    state = {f"module.{name.removeprefix('layers.')}": value for name, value in built.state_dict().items()}
    torch.save({"epoch": 1, "state_dict": state}, tmp_path / "w.pt")
    np.savez(tmp_path / "s.npz", mean=np.eye(3, 4).ravel().tolist() + [0] * 50, std=np.full(NUMBERS, 0.01))
    return tmp_path / "w.pt", tmp_path / "s.npz"


def test_published_names_are_read(files: tuple[Path, Path]) -> None:
    estimator = part("estimators", "3ddfa", weights=files[0], statistics=files[1]).build()
    estimator.load()
    poses = estimator(FaceBatch.of(torch.rand(2, 3, 64, 64) * 2 - 1))
    assert poses.shape == (2, 3) and poses.isfinite().all() and poses.abs().max() < 90
    assert not any(parameter.requires_grad for parameter in estimator.parameters())


def test_faults_are_told_in_a_line(
    files: tuple[Path, Path], tmp_path: Path, expect_error: Callable[..., Any], check_message: Callable[..., None]
) -> None:
    def loaded(weights: Path = files[0], statistics: Path = files[1], **more: str) -> None:
        part("estimators", "3ddfa", weights=weights, statistics=statistics, **more).build().load()

    with expect_error("nowhere.pt"):
        loaded(Path("nowhere.pt"))
    with expect_error("w.pt", hide={hashlib.sha256(files[0].read_bytes()).hexdigest(): "HASH"}):
        loaded(sha256="0" * 64)
    torch.save({"a": torch.zeros(1)}, tmp_path / "a.pt")
    with expect_error("a.pt"):
        loaded(tmp_path / "a.pt")
    state = torch.load(files[0], weights_only=True)["state_dict"]
    torch.save(state | {"module.conv1.weight": torch.zeros(8, 3, 3, 3)}, tmp_path / "b.pt")
    with pytest.raises(UserError, match="conv1") as caught:
        loaded(tmp_path / "b.pt")
    message, _, _ = str(caught.value).partition(": size mismatch for ")  # torch's own words follow
    assert message.startswith(f"{tmp_path / 'b.pt'}: ") and "\n" not in str(caught.value)
    check_message(message)
    with expect_error("nowhere.npz"):
        loaded(statistics=Path("nowhere.npz"))
    np.savez(tmp_path / "short.npz", mean=np.zeros(3), std=np.zeros(3))
    with expect_error("short.npz: mean"):
        loaded(statistics=tmp_path / "short.npz")
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with expect_error("other.npz"):
        loaded(statistics=tmp_path / "other.npz")
    (tmp_path / "no.npz").write_bytes(b"no archive")
    with expect_error("no.npz"):
        loaded(statistics=tmp_path / "no.npz")


def test_real_faces(shared: Path) -> None:
    weights = shared / "weights"
    estimator = part(
        "estimators",
        "3ddfa",
        weights=weights / "3ddfa_v2_mb05_120x120.pt",
        statistics=weights / "3ddfa_v2_param_mean_std.npz",
    ).build()
    estimator.load()
    detector = part("detectors", "mtcnn").build()
    detector.load()
    frame = astronaut()
    crop = align(frame, detector([frame])[0][0], 128).image
    turned = cv2.warpAffine(
        crop, cv2.getRotationMatrix2D((63.5, 75), -10, 1), (128, 128), borderMode=cv2.BORDER_REPLICATE
    )
    pose, mirror, roll = estimator(FaceBatch.of(to_tensor(np.stack([crop, crop[:, ::-1], turned])))).numpy()
    assert np.linalg.norm(mirror * [-1, 1, -1] - pose) < 6
    assert roll[2] - pose[2] == pytest.approx(10, abs=3)
    pnp = PnP(PnP.Options())
    pnp.load()
    faces = part("datasets", "orl").build(64, part("detectors", "mtcnn"), "test")
    faces.load()
    some = FaceBatch.of(to_tensor(np.stack([faces[place].image for place in range(0, len(faces), 4)])))
    one, other = estimator(some), pnp(some)
    both = other.isfinite().all(dim=1)
    for axis, least in ((0, 0.9), (1, 0.5)):  # yaw and pitch have the same signs
        assert torch.corrcoef(torch.stack([one[both, axis], other[both, axis]]))[0, 1] > least
