"""The mobilefacenet identity encoder: loads published state dicts, folds batch norms, is frozen and differentiable."""

import hashlib
import io
import re
import zipfile

import numpy as np
import pytest
import torch
from fsf_identity import mobilefacenet
from fsf_identity.fixed_crop import box_to
from fsf_identity.mobilefacenet import MobileFaceNet
from torch import nn

from fsframework.core.errors import UserError
from fsframework.core.part import part
from fsframework.core.types import FaceBatch
from fsframework.faces.align import align, template
from fsframework.media.image_io import read_image
from fsframework.media.tensor import to_tensor
from fsframework.utils.weights import save_state


@pytest.fixture(scope="module")
def untrained() -> MobileFaceNet:
    """Random weights and batch-norm statistics; never loaded, so its batch norms are not folded."""
    torch.manual_seed(0)
    built = part("identity-encoders", "mobilefacenet", weights="nowhere.pt").build()
    for module in built.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
            module.running_mean = 0.1 * torch.randn(module.num_features)
            module.running_var = 0.5 + torch.rand(module.num_features)
    return built


@pytest.fixture(scope="module")
def path(untrained, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "random.pt"
    torch.save({"epoch": 3, "net_state_dict": untrained.state_dict()}, path)
    return path


@pytest.fixture(scope="module")
def encoder(path) -> MobileFaceNet:
    return loaded(path)


def loaded(path, **options) -> MobileFaceNet:
    built = part("identity-encoders", "mobilefacenet", weights=path, **options).build()
    built.load()
    return built


@pytest.fixture
def image() -> torch.Tensor:
    return 2 * torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(1)) - 1


def test_loaded_network_equals_the_one_with_batch_norms(untrained, encoder, image):
    assert not any(isinstance(module, nn.BatchNorm2d) for module in encoder.modules())
    torch.testing.assert_close(encoder(FaceBatch.of(image)), untrained(FaceBatch.of(image)), atol=1e-5, rtol=0)


def test_plain_and_safetensors_files_give_the_same(untrained, encoder, image, tmp_path):
    state = {name: value for name, value in untrained.state_dict().items() if "num_batches" not in name}
    torch.save(state, tmp_path / "plain.pth")
    save_state(tmp_path / "plain.safetensors", state)
    for name in ("plain.pth", "plain.safetensors"):
        assert torch.equal(loaded(tmp_path / name)(FaceBatch.of(image)), encoder(FaceBatch.of(image)))


def test_embeddings_have_unit_length_and_ignore_mirroring(encoder, image):
    embeddings = encoder(FaceBatch.of(image))
    assert embeddings.shape == (3, encoder.dim)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(3))
    crop = encoder.crop(image)
    encoder_of_crop = encoder.crop
    try:
        encoder.crop = lambda images: images.flip(3)
        torch.testing.assert_close(encoder(FaceBatch.of(crop)), embeddings, atol=1e-5, rtol=0)
    finally:
        encoder.crop = encoder_of_crop


def test_images_of_a_batch_do_not_mix(encoder, image):
    alone = torch.cat([encoder(FaceBatch.of(one)) for one in image.split(1)])
    torch.testing.assert_close(encoder(FaceBatch.of(image)), alone, atol=1e-5, rtol=0)


def test_gradient_reaches_the_image_and_no_weight(encoder, image):
    image.requires_grad_()
    (encoder(FaceBatch.of(image)) * torch.linspace(-1, 1, encoder.dim)).sum().backward()
    assert (image.grad.abs().amax(dim=(1, 2, 3)) > 0).all()
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


def test_stays_in_eval_mode(encoder):
    assert not encoder.train().training
    assert not any(module.training for module in encoder.modules())


def test_bfloat16_autocast_gives_float32(encoder, image):
    with torch.autocast("cpu", torch.bfloat16):
        rough = encoder(FaceBatch.of(image))
    assert rough.dtype == torch.float32
    assert (rough * encoder(FaceBatch.of(image))).sum(dim=1).min() > 0.99


def test_builds_and_runs_on_the_meta_device():
    with torch.device("meta"):
        built = part("identity-encoders", "mobilefacenet", weights="nowhere.pt").build()
        assert built(FaceBatch.of(torch.zeros(2, 3, 64, 64))).shape == (2, built.dim)


def test_crop_brings_the_landmarks_where_it_was_trained():
    left, top, width = box_to(mobilefacenet.POINTS, range(5), mobilefacenet.WIDTH)
    landmarks = (template(128) + 0.5) / 128
    placed = (landmarks - [left, top]) / width * mobilefacenet.WIDTH - 0.5
    assert np.abs(placed - mobilefacenet.POINTS).max() < 3.5
    np.testing.assert_allclose(placed.mean(axis=0), np.mean(mobilefacenet.POINTS, axis=0), atol=1e-9)


class Evil:
    def __reduce__(self):
        return (open, ("sentinel", "w"))


def test_files_that_are_no_weights_are_refused_in_one_line(untrained, path, tmp_path, monkeypatch, check_message):
    monkeypatch.chdir(tmp_path)
    state = untrained.state_dict()
    (tmp_path / "half.pt").write_bytes(path.read_bytes()[:100_000])
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({"net_state_dict": Evil()}, tmp_path / "evil.pt")
    torch.save({name: value for name, value in state.items() if name != "linear1.conv.weight"}, tmp_path / "less.pt")
    torch.save({**state, "linear7.conv.weight": torch.zeros(512, 1, 7, 7)}, tmp_path / "square.pt")
    for name in ("missing.pt", "half.pt", "list.pt", "evil.pt", "less.pt", "square.pt"):
        with pytest.raises(UserError) as caught:
            loaded(tmp_path / name)
        assert str(caught.value).startswith(f"{tmp_path / name}: ") and "\n" not in str(caught.value)
        check_message(re.sub(r"as torch weights: .*?;", "as torch weights: REASON;", str(caught.value)))
    assert not (tmp_path / "sentinel").exists()


def test_hash_is_checked(path, expect_error):
    right = hashlib.sha256(path.read_bytes()).hexdigest()
    loaded(path, sha256=right)
    with expect_error(f"{path.name}: ", hide={str(path.parent): "TMP", right: "HASH"}):
        loaded(path, sha256="0" * 64)


def test_published_weights_know_people(shared):
    encoder = loaded(shared / "weights/mobilefacenet_casia_068.pt")
    detector = part("detectors", "mtcnn").build()
    detector.load()
    with zipfile.ZipFile(shared / "data/lfw/val.zip") as archive:
        second = sorted(name for name in archive.namelist() if name.endswith("_0002.webp"))[:12]
        names = [part for name in second for part in (name, name.replace("_0002.", "_0001."))]
        frames = [read_image(io.BytesIO(archive.read(name)), name) for name in names]
    crops = [align(frame, faces[0], 128).image for frame, faces in zip(frames, detector(frames), strict=True)]
    embeddings = encoder(FaceBatch.of(to_tensor(np.stack(crops))))
    cosines = embeddings @ embeddings.T
    person = torch.arange(len(names)) // 2
    same, others = person[:, None] == person, ~torch.eye(len(names), dtype=torch.bool)
    assert cosines[same & others].mean() > 0.5
    assert abs(cosines[~same].mean()) < 0.1
    assert (person[cosines.masked_fill(~others, -1).argmax(dim=1)] == person).float().mean() > 0.9
