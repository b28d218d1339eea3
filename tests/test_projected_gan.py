"""Losses on the features of a pretrained network: against timm, the formulas, and the paper's order of operations."""

from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, cast

import pytest
import timm
import torch
from fsf_losses import efficientnet_lite
from fsf_losses.diff_augment import Draw, diff_augment
from fsf_losses.efficientnet_lite import FILE, PACKAGE, EfficientNetLite0, FrozenConv, scaled_to
from pydantic import ValidationError
from skimage import data
from torch import Tensor, nn
from torch.nn import functional as F

from fsframework.core.part import part
from fsframework.core.swapper import Swapper
from fsframework.core.types import FaceBatch, SwapBatch, SwapResult
from fsframework.utils.files import package_file
from fsframework.utils.weights import load_state

SIDE = 64
NOBODY = cast(Swapper, None)  # these losses use no swapper


@pytest.fixture(scope="module")
def trunk() -> EfficientNetLite0:
    network = EfficientNetLite0()
    network.load()
    return network


@pytest.fixture(scope="module")
def reference() -> Any:
    """timm's network with the package's weights, whose names differ and whose order is the same."""
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    tensors = load_state(package_file(PACKAGE, FILE)).values()
    network.load_state_dict(dict(zip(network.state_dict(), tensors, strict=True)))
    return network


@pytest.fixture
def batch() -> SwapBatch:
    torch.manual_seed(0)
    source, target = (FaceBatch.of(torch.rand(4, 3, SIDE, SIDE) * 2 - 1) for _ in range(2))
    same = torch.tensor([True, False, True, False])
    return SwapBatch(source, target, same, ground_truth=target.image, valid_mask=same[:, None, None, None].float())


def loss(name: str, **options: object) -> Any:
    torch.manual_seed(1)
    built = part("losses", name, **options).build()
    built.load()
    return built


def result(image: Tensor) -> SwapResult:
    return SwapResult(image, image, torch.zeros(len(image), 3))


def picture(image: Any) -> Tensor:
    """The central square of a picture (H, W, 3) at 224 px, in [-1, 1]."""
    tensor = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
    height, width = tensor.shape[2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = tensor[:, :, top : top + side, left : left + side]
    return F.interpolate(square, size=(224, 224), mode="bilinear", antialias=True)


def features_of(reference: Any, images: Tensor) -> list[Tensor]:
    """The outputs of the reference's stages 1, 2, 4 and 6: the last ones of each resolution."""
    h, features = reference.bn1(reference.conv_stem(images)), []
    for number, stage in enumerate(reference.blocks):
        h = stage(h)
        if number in (1, 2, 4, 6):
            features.append(h)
    return features


def test_the_weights_recognise_pictures(reference: Any) -> None:
    espresso, tabby, tiger_cat, egyptian_cat = 967, 281, 282, 285  # classes of ImageNet
    with torch.no_grad():
        classes = [int(reference(picture(image)).argmax()) for image in (data.coffee(), data.cat())]
    assert classes[0] == espresso
    assert classes[1] in (tabby, tiger_cat, egyptian_cat)


@pytest.mark.parametrize("side", [100, 128, 224])
def test_features_equal_timms(trunk: EfficientNetLite0, reference: Any, side: int) -> None:
    images = F.interpolate(picture(data.astronaut()), size=(side, side), mode="bilinear")
    with torch.no_grad():
        features, expected = trunk(images), features_of(reference, images)
    for found, wanted, channels, stride in zip(
        features, expected, efficientnet_lite.CHANNELS, efficientnet_lite.STRIDES, strict=True
    ):
        assert found.shape == (1, channels, -(-side // stride), -(-side // stride))
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=2e-4)


def test_the_trunk_is_never_trained_and_not_saved(trunk: EfficientNetLite0) -> None:
    gan = loss("projected-gan", width=8)
    gan.requires_grad_(True)  # as the trainer does for the networks of losses
    assert all(name.startswith("discriminators.") for name, _ in gan.named_parameters())
    assert {name.split(".")[0] for name in gan.state_dict()} == {"discriminators", "projection"}
    assert not list(loss("feature-reconstruction").state_dict())
    torch.testing.assert_close(gan.trunk.stem.weight, trunk.stem.weight, rtol=0, atol=0)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, expect_error: Callable[..., Any]) -> None:
    def missing(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "files", missing)
    with expect_error(PACKAGE):
        loss("projected-gan", width=8)


def test_a_changed_file_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, expect_error: Callable[..., Any]
) -> None:
    changed = tmp_path / "weights.pth"
    changed.write_bytes(package_file(PACKAGE, FILE).read_bytes()[:-1])
    monkeypatch.setattr(efficientnet_lite, "package_file", lambda *_: changed)
    with expect_error("weights.pth"):
        loss("feature-reconstruction")


@pytest.mark.parametrize("side", [48, 100])
def test_the_side_suits_the_trunk(side: int) -> None:
    with pytest.raises(ValidationError):
        part("losses", "projected-gan", side=side)


def test_images_are_scaled_for_the_trunk() -> None:
    images = torch.rand(1, 3, 64, 64)
    expected = F.interpolate(images, size=(128, 128), mode="bilinear")
    torch.testing.assert_close(scaled_to(images, None), expected)
    assert scaled_to(torch.rand(1, 3, 256, 256), None).shape[-1] == 256
    stripes = torch.ones(1, 3, 128, 128)
    stripes[..., ::2] = -1
    assert scaled_to(stripes, 64).abs().max() < 0.3  # no aliasing
    torch.testing.assert_close(scaled_to(images, 64), images, rtol=0, atol=0)


def test_projections_mix_channels_and_then_scales() -> None:
    gan = loss("projected-gan", width=8)
    features = [torch.randn(2, c, 16 // 2**k, 16 // 2**k) for k, c in enumerate(efficientnet_lite.CHANNELS)]

    def convolved(conv: FrozenConv, h: Tensor) -> Tensor:
        return torch.einsum("oi,bihw->bohw", conv.weight[:, :, 0, 0], h) + conv.bias[:, None, None]

    mixed = [convolved(conv, h) for conv, h in zip(gan.projection.across_channels, features, strict=True)]
    expected: list[Tensor] = []
    for level in (3, 2, 1, 0):  # the order of the authors' code: sum, upsample, convolve
        h = mixed[level] + expected[-1] if expected else mixed[level]
        upsampled = F.interpolate(h, scale_factor=2, mode="bilinear", align_corners=True)
        expected.append(convolved(gan.projection.across_scales[level], upsampled))
    for found, wanted in zip(gan.projection(features), reversed(expected), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert gan.projection.channels == [8, 8, 16, 32]


def plain_logits(discriminator: nn.Module, h: Tensor) -> tuple[Tensor, Tensor]:
    """The input of a discriminator's last layer and its logits, of matrices divided by their spectral norms."""

    def weight(conv: Any) -> Tensor:
        original, norm = conv.parametrizations.weight.original, conv.parametrizations.weight[0]
        return original / (norm._u @ original.flatten(1) @ norm._v)

    *body, last = [layer for layer in discriminator.modules() if isinstance(layer, nn.Conv2d)]
    norms = [layer for layer in discriminator.modules() if isinstance(layer, nn.BatchNorm2d)]
    for conv, norm in zip(body, norms, strict=True):
        h = F.conv2d(h, weight(conv), stride=2, padding=1)
        mean, variance = h.mean((0, 2, 3), keepdim=True), h.var((0, 2, 3), unbiased=False, keepdim=True)
        h = (h - mean) / (variance + norm.eps).sqrt() * norm.weight[:, None, None] + norm.bias[:, None, None]
        h = torch.where(h > 0, h, 0.2 * h)
    return h, F.conv2d(h, weight(last), padding=1)


@pytest.mark.parametrize("objective", ["hinge", "relativistic"])
def test_both_sides_equal_the_formulas(batch: SwapBatch, reference: Any, objective: str) -> None:
    gan = loss("projected-gan", width=8, augment=False, objective=objective, feature_matching_weight=3.0).eval()
    swap = batch.source.image * 0.5
    fakes, reals = (
        gan.projection(features_of(reference, F.interpolate(images, size=(128, 128), mode="bilinear")))
        for images in (swap, batch.ground_truth)
    )
    generator, critic = [], []
    for number, (fake_features, real_features) in enumerate(zip(fakes, reals, strict=True)):
        fake_last, fake = plain_logits(gan.discriminators[number], fake_features)
        real_last, real = plain_logits(gan.discriminators[number], real_features)
        assert fake.shape == (4, 1, 4, 4)
        if objective == "hinge":
            generator.append(-fake.mean())
            critic.append((1 - real).clamp(min=0).mean() + (1 + fake).clamp(min=0).mean())
        else:
            generator.append(torch.log1p(torch.exp(real - fake)).mean())
            critic.append(torch.log1p(torch.exp(fake - real)).mean())
        generator[-1] = generator[-1] + 3 * (fake_last - real_last).abs().mean()
    torch.testing.assert_close(gan(batch, result(swap), NOBODY), sum(generator) / 4, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(gan.critic(batch, result(swap)), sum(critic) / 4, rtol=1e-3, atol=1e-3)


def test_a_copy_of_the_truth_matches_under_every_augmentation(batch: SwapBatch) -> None:
    plain, matching = (loss("projected-gan", width=8, feature_matching_weight=m).eval() for m in (0.0, 3.0))
    values = []
    for gan in (plain, matching):
        torch.manual_seed(5)
        values.append(gan(batch, result(batch.ground_truth), NOBODY))
    torch.testing.assert_close(*values)
    torch.manual_seed(6)
    assert plain(batch, result(batch.ground_truth), NOBODY) != values[0]


def test_gradients_reach_every_swap(batch: SwapBatch) -> None:
    gan = loss("projected-gan", width=8, feature_matching_weight=1.0).requires_grad_(False)
    swap = batch.source.image.clone().requires_grad_()
    gan(batch, result(swap), NOBODY).backward()
    assert swap.grad is not None and bool((swap.grad.abs().sum(dim=(1, 2, 3)) > 0).all())


@pytest.mark.parametrize("objective", ["hinge", "relativistic"])
def test_the_critic_learns_to_tell_and_the_generator_to_deceive_it(batch: SwapBatch, objective: str) -> None:
    gan = loss("projected-gan", width=8, objective=objective, augment=False)
    fake = batch.ground_truth * 0.3
    optimizer = torch.optim.Adam(gan.parameters(), lr=1e-2)
    first = gan.critic(batch, result(fake)).item()
    for _ in range(12):
        optimizer.zero_grad()
        gan.critic(batch, result(fake)).backward()
        optimizer.step()
    assert gan.critic(batch, result(fake)).item() < 0.1 * first
    gan.requires_grad_(False)
    fake.requires_grad_()
    deceiver = torch.optim.Adam([fake], lr=0.02)
    before = gan(batch, result(fake), NOBODY).item()
    for _ in range(12):
        deceiver.zero_grad()
        gan(batch, result(fake), NOBODY).backward()
        deceiver.step()
    assert gan(batch, result(fake), NOBODY).item() < before - 1


def test_augmentation_equals_loops_over_pixels() -> None:
    torch.manual_seed(3)
    side, images = 12, torch.rand(3, 3, 12, 12) * 2 - 1
    draw = Draw.random(images)
    found = diff_augment(images, draw)
    for number, image in enumerate(images):
        bright = image + draw.brightness[number]
        grey = bright.mean(dim=0)
        saturated = grey + (bright - grey) * draw.saturation[number]
        contrasted = saturated.mean() + (saturated - saturated.mean()) * draw.contrast[number]
        down, right = draw.shift[number].tolist()
        top, left = draw.corner[number].tolist()
        expected = torch.zeros_like(image)
        for row in range(side):
            for column in range(side):
                erased = top <= row < top + side // 2 and left <= column < left + side // 2
                if 0 <= row - down < side and 0 <= column - right < side and not erased:
                    expected[:, row, column] = contrasted[:, row - down, column - right]
        torch.testing.assert_close(found[number], expected)


def test_augmentation_stays_in_the_papers_bounds() -> None:
    torch.manual_seed(4)
    images = torch.zeros(500, 1, 32, 32)
    draw = Draw.random(images)
    for values, low, high in [(draw.brightness, -0.5, 0.5), (draw.saturation, 0, 2), (draw.contrast, 0.5, 1.5)]:
        assert low <= values.min() < low + 0.05 and high - 0.05 < values.max() <= high
    assert (draw.shift.min(), draw.shift.max()) == (-4, 4)
    assert (draw.corner.min(), draw.corner.max()) == (-8, 24)  # at least a quarter of the square erases pixels


def test_features_are_compared_where_the_whole_truth_is_known(batch: SwapBatch, reference: Any) -> None:
    compare = loss("feature-reconstruction", side=64)
    swap = (batch.ground_truth * 0.5).requires_grad_()
    value = compare(batch, result(swap), NOBODY)
    expected = []
    for fake, real in zip(*(features_of(reference, x[::2]) for x in (swap, batch.ground_truth)), strict=True):
        distance, size = ((h.abs()).mean(dim=(1, 2, 3)) for h in (fake - real, real))
        expected.append((distance / size).mean())
    torch.testing.assert_close(value, sum(expected) / 4, rtol=1e-3, atol=1e-4)
    value.backward()
    assert swap.grad is not None
    assert [bool(gradient.any()) for gradient in swap.grad] == [True, False, True, False]
    assert compare(batch, result(batch.ground_truth), NOBODY).item() == 0
    unknown = SwapBatch.of(batch.source, batch.target)
    assert compare(unknown, result(swap), NOBODY).item() == 0
