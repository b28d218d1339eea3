"""The estimator fsanet: input and output of its networks, faults of its files, real faces with the published files."""

import io
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fsf_benchmarks.fsanet import FSANet

from fsframework.core.part import part
from fsframework.core.types import FaceBatch
from fsframework.faces.align import align
from fsframework.media.image_io import read_image
from fsframework.media.tensor import to_tensor
from fsframework.utils.weights import digest


def write_means(path: Path, factor: float, side: int = 64) -> Path:
    """Write a network whose yaw, pitch and roll are the means of its three input channels, times a factor."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    make, number = onnx.helper, onnx.TensorProto.FLOAT
    shape = make.make_tensor("shape", onnx.TensorProto.INT64, [2], [1, 3])
    scale = make.make_tensor("scale", number, [1], [factor])
    nodes = [
        make.make_node("GlobalAveragePool", ["input"], ["mean"]),
        make.make_node("Reshape", ["mean", "shape"], ["flat"]),
        make.make_node("Mul", ["flat", "scale"], ["output"]),
    ]
    inputs = [make.make_tensor_value_info("input", number, [1, 3, side, side])]
    outputs = [make.make_tensor_value_info("output", number, [1, 3])]
    graph = make.make_graph(nodes, "means", inputs, outputs, [shape, scale])
    onnx.save(make.make_model(graph, opset_imports=[make.make_opsetid("", 13)], ir_version=8), path)
    return path


def loaded(weights: Path, variance_weights: Path) -> FSANet:
    built: FSANet = part("estimators", "fsanet", weights=weights, variance_weights=variance_weights).build()
    built.load()
    return built


def test_both_networks_see_bgr_and_are_averaged(tmp_path: Path) -> None:
    estimator = loaded(write_means(tmp_path / "one.onnx", 10), write_means(tmp_path / "two.onnx", 30))
    colours = torch.tensor([[0.8, 0.2, -0.4], [0.0, 1.0, -1.0]])  # RGB
    poses = estimator(FaceBatch.of(colours[:, :, None, None].expand(2, 3, 128, 128)))
    assert poses.dtype == torch.float64
    expected = 20 * 127.5 / 128 * colours.flip(1).double() * torch.tensor([-1, 1, 1])
    torch.testing.assert_close(poses, expected, atol=1e-4, rtol=0)
    swapped = loaded(tmp_path / "two.onnx", tmp_path / "one.onnx")
    assert len({digest(estimator), digest(swapped), None}) == 3
    assert estimator(FaceBatch.of(torch.zeros(0, 3, 128, 128))).shape == (0, 3)


def test_wrong_files_are_told_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expect_error: Callable[..., Any]
) -> None:
    right = write_means(tmp_path / "right.onnx", 1)
    write_means(tmp_path / "large.onnx", 1, side=128)
    (tmp_path / "half.onnx").write_bytes(right.read_bytes()[:60])
    for name in ("missing.onnx", "half.onnx", "large.onnx"):
        with expect_error(name, hide={str(tmp_path): "TMP"}):
            loaded(right, tmp_path / name)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with expect_error("ONNX"):
        loaded(right, right)


def test_published_networks_follow_pose(shared: Path) -> None:
    pytest.importorskip("onnxruntime")
    weights = shared / "weights"
    if not (weights / "fsanet_1x1.onnx").is_file():
        pytest.skip(f"needs {weights}/fsanet_1x1.onnx")
    estimator = loaded(weights / "fsanet_1x1.onnx", weights / "fsanet_var.onnx")
    other = part(
        "estimators",
        "3ddfa",
        weights=weights / "3ddfa_v2_mb05_120x120.pt",
        statistics=weights / "3ddfa_v2_param_mean_std.npz",
    ).build()
    detector = part("detectors", "mtcnn").build()
    for network in (other, detector):
        network.load()
    with zipfile.ZipFile(shared / "data/lfw/val.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith("_0001.webp"))[:40]
        frames = [read_image(io.BytesIO(archive.read(name)), name) for name in names]
    crops = [align(frame, faces[0], 128).image for frame, faces in zip(frames, detector(frames), strict=True)]
    images = to_tensor(np.stack(crops))
    poses, mirrored = estimator(FaceBatch.of(images)), estimator(FaceBatch.of(images.flip(3)))
    difference = (mirrored * torch.tensor([-1, 1, -1]) - poses).abs().mean(dim=0)
    assert (difference < torch.tensor([1.6, 1.4, 1.1])).all()
    both = other(FaceBatch.of(images))
    for axis, least in ((0, 0.95), (1, 0.85)):  # yaw and pitch have the same signs
        assert torch.corrcoef(torch.stack([poses[:, axis], both[:, axis]]))[0, 1] > least
