"""The mobilefacenet-112 identity encoder: equal to its ONNX file, frozen, differentiable, a judge of its own."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fsf_identity.fixed_crop import box_to
from fsf_identity.mobilefacenet_112 import DEVIATION, MEAN, POINTS, SIDE, MobileFaceNet112
from torch import nn

from fsframework.core.part import part
from fsframework.core.types import FaceBatch
from fsframework.faces.align import template
from fsframework.utils.weights import save_state


def published(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The names of the public file: the last convolution and batch norm stand at top level."""
    return {name.removeprefix("head."): value for name, value in state.items()}


@pytest.fixture(scope="module")
def untrained() -> MobileFaceNet112:
    """Random weights and batch-norm statistics; never loaded, so its batch norms are not folded."""
    torch.manual_seed(0)
    built: MobileFaceNet112 = part("identity-encoders", "mobilefacenet-112", weights="nowhere.pt").build()
    for module in built.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
            module.running_mean = 0.1 * torch.randn(module.num_features)
            module.running_var = 0.5 + torch.rand(module.num_features)
    return built


@pytest.fixture(scope="module")
def path(untrained: MobileFaceNet112, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "random.safetensors"
    save_state(path, published(untrained.state_dict()))
    return path


def loaded(path: Path, **options: Any) -> MobileFaceNet112:
    built: MobileFaceNet112 = part("identity-encoders", "mobilefacenet-112", weights=path, **options).build()
    built.load()
    return built


@pytest.fixture
def image() -> torch.Tensor:
    return 2 * torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(1)) - 1


def test_loaded_network_equals_the_one_with_batch_norms(
    untrained: MobileFaceNet112, path: Path, image: torch.Tensor
) -> None:
    encoder = loaded(path)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in encoder.modules())
    torch.testing.assert_close(encoder(FaceBatch.of(image)), untrained(FaceBatch.of(image)), atol=1e-5, rtol=0)
    assert not encoder.train().training


def test_gradient_reaches_the_image_and_no_weight_also_in_bfloat16(path: Path, image: torch.Tensor) -> None:
    encoder = loaded(path)
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    gradients = []
    for bf16 in (False, True):
        leaf = image.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            embeddings = encoder(FaceBatch.of(leaf))
        assert embeddings.dtype == torch.float32
        (embeddings * torch.linspace(-1, 1, encoder.dim)).sum().backward()
        assert leaf.grad is not None
        gradients.append(leaf.grad.flatten(1))
    assert (torch.cosine_similarity(gradients[0], gradients[1]) > 0.95).all()


def test_crop_brings_the_landmarks_where_it_was_trained() -> None:
    left, top, width = box_to(POINTS, range(5), SIDE)
    placed = ((template(128) + 0.5) / 128 - [left, top]) / width * SIDE - 0.5
    assert np.abs(placed - POINTS).max() < 3.5
    np.testing.assert_allclose(placed.mean(axis=0), np.mean(POINTS, axis=0), atol=1e-9)


def test_wrong_files_are_refused_in_a_line(
    untrained: MobileFaceNet112, path: Path, tmp_path: Path, expect_error: Callable[..., Any]
) -> None:
    state = published(untrained.state_dict())
    save_state(tmp_path / "less.safetensors", {name: value for name, value in state.items() if name != "conv3.weight"})
    torch.save({**state, "gdconv.depthwise.weight": torch.zeros(512, 1, 7, 6)}, tmp_path / "narrow.pt")
    for name in ("missing.pt", "less.safetensors", "narrow.pt"):
        with expect_error(name, hide={str(tmp_path): "TMP"}):
            loaded(tmp_path / name)
    right = hashlib.sha256(path.read_bytes()).hexdigest()
    loaded(path, sha256=right)
    with expect_error(path.name, hide={str(path.parent): "TMP", right: "HASH"}):
        loaded(path, sha256="0" * 64)


def test_training_against_one_leaves_the_other_an_outside_judge() -> None:
    names = ("mobilefacenet", "mobilefacenet-112")
    for judge, other in (names, names[::-1]):
        benchmark = part("benchmarks", "id-retrieval", judge={"use": judge, "weights": "nowhere.pt"}).build()
        assert benchmark.label(other) == benchmark.label(None) != benchmark.label(judge)


def test_equals_the_published_onnx_file(shared: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    files = shared / "weights" / "mobilefacenet_ms1m"
    if not files.with_suffix(".onnx").is_file():
        pytest.skip(f"needs {files}.onnx")
    encoder = loaded(files.with_suffix(".safetensors"))
    session = runtime.InferenceSession(files.with_suffix(".onnx"))
    inputs = 2 * torch.rand(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) - 1
    scaled = ((inputs + 1) / 2 - torch.tensor(MEAN).reshape(3, 1, 1)) / torch.tensor(DEVIATION).reshape(3, 1, 1)
    expected = np.concatenate([session.run(None, {"input0": one[None]})[0] for one in scaled.numpy()])
    np.testing.assert_allclose(encoder.embed(inputs), expected, atol=2e-5)
