"""The mask of AEI-Net's generator: composed with the target, learnt, and begun from weights that have none."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnxruntime  # type: ignore[import-untyped]
import pytest
import torch
from test_face_swapper import RED, TARGET, LeftHalf, build
from torch import Tensor
from torch.nn import functional as F

from fsframework.core.components import AttributeEncoder, ComponentOptions, Generator, IdentityEncoder
from fsframework.core.part import part
from fsframework.core.registry import component
from fsframework.core.swapper import Swapper
from fsframework.core.types import FaceBatch, SwapBatch, SwapResult
from fsframework.models import onnx_export, store
from fsframework.models.run import Run, load_weights
from fsframework.recipe.build import build_swapper
from fsframework.recipe.schema import Recipe
from fsframework.testing.contract import check_component
from fsframework.training.trainer import train

SIZE = 32
START = 1 / (1 + np.exp(-3.0))  # of the mask


def generator(**options: Any) -> Generator:
    torch.manual_seed(0)
    built: Generator = part("generators", "aad-generator", width=0.125, **options).build(SIZE, 16, [8] * 5)
    return built


def inputs(count: int = 2, seed: int = 1) -> tuple[Tensor, list[Tensor]]:
    torch.manual_seed(seed)
    maps = [torch.randn(count, 8, 2 ** (k + 1), 2 ** (k + 1)) for k in range(5)]
    return F.normalize(torch.randn(count, 16)), maps


def pairs(count: int = 2, size: int = SIZE, seed: int = 2) -> SwapBatch:
    crops = torch.rand(2, count, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return SwapBatch.of(FaceBatch.of(crops[0]), FaceBatch.of(crops[1]))


def noisy(network: Generator) -> Generator:
    """The same with a mask that varies."""
    for name, value in network.named_parameters():
        if "shortcut.weight" in name and len(value) == 4:
            torch.nn.init.normal_(value.data[3:], std=0.5)
    return network


class Fixed(Generator):
    """A black picture with a mask of 0 on the left, a half in the middle and 1 on the right."""

    def forward(self, z_id: Tensor, z_att: list[Tensor]) -> Tensor:
        painted = torch.full((len(z_id), 4, self.size, self.size), -1.0)
        painted[:, 3, :, :8], painted[:, 3, :, 8:24], painted[:, 3, :, 24:] = 0.0, 0.5, 1.0
        return painted


class Composing(Fixed):
    composes = True


class NoMaps(AttributeEncoder):
    def forward(self, faces: FaceBatch) -> list[Tensor]:
        return []


class Colour(IdentityEncoder):
    def forward(self, faces: FaceBatch) -> Tensor:
        return faces.image.mean(dim=(2, 3))


def swapper(cls: type[Generator]) -> Swapper:
    options = ComponentOptions()
    return Swapper(Colour(options), NoMaps(options, SIZE), cls(options, SIZE, 3, []))


def test_the_target_shows_where_the_mask_is_0() -> None:
    batch = pairs()
    result, plain = swapper(Composing)(batch), swapper(Fixed)(batch)
    target = batch.target.image
    assert torch.equal(result.image[..., :8], target[..., :8])
    assert torch.equal(result.image[..., 24:], torch.full_like(target[..., 24:], -1))
    torch.testing.assert_close(result.image[..., 8:24], target[..., 8:24] / 2 - 0.5)
    assert result.coarse is result.image and torch.equal(result.mask, plain.mask)
    assert torch.equal(plain.image, torch.full_like(target, -1))  # as of generators that do not compose


def test_mask_and_image_both_learn() -> None:
    network = generator(mask=True)
    image = network(*inputs())
    composed = image[:, 3:] * image[:, :3] + (1 - image[:, 3:]) * pairs().target.image
    composed.square().mean().backward()
    last = network.get_submodule("blocks.4")
    for layer in ("conv_mid", "shortcut"):
        gradient = cast(Tensor, last.get_parameter(f"{layer}.weight").grad)
        assert (gradient.flatten(1).abs().sum(dim=1) > 0).all() and len(gradient) == 4


@pytest.mark.parametrize("layers", [1, 2, 3])
@torch.no_grad()
def test_weights_without_a_mask_start_it_near_1(layers: int) -> None:
    before, after = generator(layers=layers), generator(layers=layers, mask=True)
    z_id, z_att = inputs()
    fresh = after(z_id, z_att)
    torch.testing.assert_close(fresh[:, 3:], torch.full_like(fresh[:, 3:], START))
    with pytest.raises(RuntimeError):
        after.load_state_dict(before.state_dict())
    for value in after.parameters():
        torch.nn.init.normal_(value)
    after = generator(layers=layers, mask=True)
    after.load_state_dict(after.adapt_weights(before.state_dict()))
    image = after(z_id, z_att)
    torch.testing.assert_close(image[:, :3], before(z_id, z_att), rtol=0, atol=1e-6)
    torch.testing.assert_close(image[:, 3:], fresh[:, 3:])
    own = after.state_dict()  # weights with a mask stay as they are
    assert all(torch.equal(value, own[name]) for name, value in after.adapt_weights(own).items())


@torch.no_grad()
def test_the_shipped_weights_take_a_mask() -> None:
    model = store.find("faceshifter-lfw-64")
    recipe = store.recipe_of(model)
    masked = store.recipe_of(model, ["networks.generator.mask=true"])
    before, after = build_swapper(recipe), build_swapper(masked)
    load_weights(before, model.file, model.sha256)
    load_weights(after, model.file, model.sha256, adapt=True)
    before.eval(), after.eval()
    faces = pairs(size=recipe.size).target
    z_id, z_att = F.normalize(torch.randn(2, 128)), before.attributes(faces)
    image = after.generator(z_id, z_att)
    torch.testing.assert_close(image[:, :3], before.generator(z_id, z_att), rtol=0, atol=1e-5)
    torch.testing.assert_close(image[:, 3:], torch.full_like(image[:, 3:], START))


def test_recomputed_blocks_and_bfloat16_give_the_same_mask() -> None:
    plain, again = noisy(generator(mask=True)), generator(mask=True, activation_checkpointing=True)
    again.load_state_dict(plain.state_dict())
    exact = plain(*inputs())
    assert torch.equal(again(*inputs()), exact) and exact[:, 3:].std() > 0.01
    with torch.autocast("cpu", torch.bfloat16):
        close = plain(*inputs())
    assert close.dtype == torch.float32
    torch.testing.assert_close(close, exact, rtol=0, atol=0.1)


def masked_recipe(file: Path, small_recipe: Callable[..., Recipe], **keys: Any) -> Recipe:
    recipe = small_recipe(file, **keys)
    return Recipe.parse(recipe.dump_yaml(), str(file), ["networks.generator.mask=true"])


@pytest.mark.slow
def test_onnx_composes_too(tmp_path: Path, small_recipe: Callable[..., Recipe]) -> None:
    recipe = masked_recipe(tmp_path / "masked.yaml", small_recipe)
    torch.manual_seed(0)
    network = build_swapper(recipe)
    network.load()
    noisy(network.generator)
    network.eval().requires_grad_(False)
    file = tmp_path / "masked.onnx"
    onnx_export.write(recipe, network, file)
    batch = pairs(3)
    right = network(batch)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    given = {"source": batch.source.image.numpy(), "target": batch.target.image.numpy()}
    image, mask = (torch.from_numpy(value) for value in session.run(["swap", "mask"], given))
    torch.testing.assert_close(image, right.image, rtol=0, atol=1e-4)
    torch.testing.assert_close(mask, right.mask, rtol=0, atol=1e-4)
    ours = store.load(file).swapper
    assert ours.generator.composes
    torch.testing.assert_close(ours(batch).image, right.image, rtol=0, atol=1e-4)


class ComposedHalf(LeftHalf):
    """Composed with the target, by a mask that is weak on the left half and 0 on the right."""

    composes = True

    def forward(self, z_id: Tensor, z_att: list[Tensor]) -> Tensor:
        painted = super().forward(z_id, z_att)
        painted[:, 3] *= 0.5
        return painted


def test_a_composed_crop_is_not_diluted_again() -> None:
    after = build(ComposedHalf).swap(RED, TARGET).astype(float)
    assert (after[120, 180] == TARGET[120, 180]).all()
    source = RED.astype(float)[120, 140]
    np.testing.assert_allclose(after[120, 140], (source + TARGET[120, 140]) / 2, atol=2)


@pytest.mark.slow
def test_the_mask_neither_vanishes_nor_fills_the_crop(tmp_path: Path, small_recipe: Callable[..., Recipe]) -> None:
    """With the identity loss, which alone would have it shrink or grow."""
    recipe = masked_recipe(tmp_path / "masked.yaml", small_recipe)
    sets = [
        "stages.0.losses=[{use: mask, weight: 5}, {use: reconstruction, weight: 10}, {use: identity, weight: 5}]",
        "stages.0.optimizer.lr=4.0e-3",
        "stages.0.steps=60",
        "stages.0.batch_size=8",
    ]
    recipe = Recipe.parse(recipe.dump_yaml(), "masked.yaml", sets)
    run = Run.open(recipe, tmp_path / "run", device="cpu")
    train(run)
    losses = [entry["losses"]["mask"] for entry in run.read_log()]
    network = run.load_swapper()
    data = recipe.data.build(SIZE, part("detectors", "mtcnn"), "test")
    data.load()
    images = torch.from_numpy(np.stack([data[index].image for index in range(12)])).movedim(3, 1) / 127.5 - 1
    faces = FaceBatch.of(images)
    with torch.no_grad():
        result: SwapResult = network(SwapBatch.of(faces, faces))
    mask = cast(Tensor, result.mask)
    centre, corners = mask[..., 14:22, 12:20].mean(), mask[..., :4, :4].mean()
    assert centre > 0.6 and corners < 0.4 and 0.15 < mask.mean() < 0.7
    assert losses[-1] < 0.5 * losses[0]


def test_a_generator_with_a_mask_keeps_the_contract() -> None:
    encoder = {"attributes": part("attribute-encoders", "aei-attributes", width=0.125)}
    check_component(component("generators", "aad-generator"), networks=encoder, width=0.125, mask=True)
