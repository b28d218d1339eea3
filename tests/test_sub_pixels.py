"""FaceShifter's networks on squares of pixels: the levels of half the side, and begun from weights of that size."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fsframework.core.components import AttributeEncoder, Generator, Refiner
from fsframework.core.part import part
from fsframework.core.registry import component
from fsframework.core.swapper import Swapper
from fsframework.core.types import FaceBatch, SwapBatch
from fsframework.models import onnx_export, store
from fsframework.models.run import Run
from fsframework.recipe.build import build_swapper
from fsframework.recipe.check import check_file
from fsframework.recipe.schema import Recipe
from fsframework.testing.contract import check_component
from fsframework.training.trainer import train

ATTRIBUTES: dict[str, Any] = {"width": 0.125, "full_resolution": True}
FINE = [
    "networks.attributes.unshuffle=2",
    "networks.generator.shuffle=2",
    "networks.refiner.shuffle=2",
    "size=64",
]


def vary(module: nn.Module) -> None:
    """Give vectors other values than those at the start, which hide mistakes."""
    for parameter in module.parameters():
        if parameter.dim() == 1:
            nn.init.uniform_(parameter, 0.5, 1.5)


def networks(size: int, side: int, mask: bool = False) -> tuple[AttributeEncoder, Generator]:
    torch.manual_seed(0)
    attributes = part("attribute-encoders", "aei-attributes", **ATTRIBUTES, unshuffle=side).build(size)
    generator = part("generators", "aad-generator", width=0.125, shuffle=side, mask=mask)
    return attributes.eval(), generator.build(size, 16, attributes.channels).eval()


def refiner(size: int, side: int) -> Refiner:
    built: Refiner = part("refiners", "hear-net", width=0.125, residual=True, error_gate=True, shuffle=side).build(size)
    return built.eval()


def enlarged(images: Tensor) -> Tensor:
    return F.interpolate(images, scale_factor=2, mode="nearest")


@pytest.mark.parametrize("mask", [False, True])
@torch.no_grad()
def test_starts_as_the_network_of_half_the_side(mask: bool) -> None:
    coarse, fine = networks(32, 1, mask), networks(64, 2, mask)
    for one, other in zip(coarse, fine, strict=True):
        vary(one)
        other.load_state_dict(other.adapt_weights(one.state_dict()))
    images, z_id = torch.rand(2, 3, 64, 64) * 2 - 1, F.normalize(torch.randn(2, 16))
    halved, whole = coarse[0](FaceBatch.of(F.avg_pool2d(images, 2))), fine[0](FaceBatch.of(images))
    assert [z.shape for z in whole] == [z.shape for z in halved]
    for one, other in zip(halved, whole, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-4)
    image = fine[1](z_id, whole)
    assert image.shape == (2, 4 if mask else 3, 64, 64) and image.std() > 0.01
    torch.testing.assert_close(image, enlarged(coarse[1](z_id, halved)), rtol=0, atol=1e-4)


@torch.no_grad()
def test_a_mask_and_finer_pixels_can_begin_at_once() -> None:
    (attributes, before), (_, after) = networks(32, 1), networks(64, 2, mask=True)
    z_att, z_id = attributes(FaceBatch.of(torch.rand(2, 3, 32, 32))), F.normalize(torch.randn(2, 16))
    after.load_state_dict(after.adapt_weights(before.state_dict()))
    image = after(z_id, z_att)
    torch.testing.assert_close(image[:, :3], enlarged(before(z_id, z_att)), rtol=0, atol=1e-5)
    torch.testing.assert_close(image[:, 3:], torch.full_like(image[:, 3:], 3.0).sigmoid())


@torch.no_grad()
def test_the_refiner_starts_as_that_of_half_the_side() -> None:
    (attributes, generator), fine = networks(32, 1), networks(64, 2)
    one, other = refiner(32, 1), refiner(64, 2)
    nn.init.normal_(one.get_parameter("paint.weight"), std=0.05)
    vary(one)
    for before, after in zip((attributes, generator, one), (*fine, other), strict=True):
        after.load_state_dict(after.adapt_weights(before.state_dict()))
    small, z_id = torch.rand(2, 3, 32, 32) * 2 - 1, F.normalize(torch.randn(2, 16))

    def swapped(images: Tensor, *parts: Any) -> Tensor:
        swapper = Fixed(part("identity-encoders", "dlib-resnet").build(), *parts)
        swapper.z_id = z_id
        faces = FaceBatch.of(images)
        image: Tensor = swapper(SwapBatch.of(faces, faces), z_id).image
        return image

    result = swapped(small, attributes, generator, one)
    assert (result - swapped(small, attributes, generator)).abs().mean() > 0.01
    torch.testing.assert_close(swapped(enlarged(small), *fine, other), enlarged(result), rtol=0, atol=1e-4)


class Fixed(Swapper):
    """A method with one embedding for everybody."""

    z_id: Tensor

    def coarse(self, batch: SwapBatch, z_id: Tensor | None = None, z_att: list[Tensor] | None = None) -> Any:
        return super().coarse(batch, self.z_id, z_att)


def test_every_pixel_of_a_square_learns_for_itself() -> None:
    attributes, generator = networks(64, 2)
    images = (torch.rand(1, 3, 64, 64) * 2 - 1).requires_grad_()
    image = generator(F.normalize(torch.randn(1, 16)), attributes(FaceBatch.of(images)))
    image[..., 0::2, 0::2].square().mean().backward()
    rows = generator.get_parameter("blocks.4.conv_mid.weight").grad
    assert rows is not None
    assert [bool(row.any()) for row in rows] == [True, False, False, False] * 3
    assert images.grad is not None and images.grad.any(dim=1).float().mean() > 0.9


def test_levels_that_do_not_fit_are_refused(expect_error: Callable[..., Any]) -> None:
    attributes = part("attribute-encoders", "aei-attributes", width=0.125).build(64)
    with expect_error("aad-generator", kind=ValueError):
        part("generators", "aad-generator", width=0.125, shuffle=2).build(64, 16, attributes.channels)
    with expect_error("AEI-Net", kind=ValueError):
        part("attribute-encoders", "aei-attributes", unshuffle=2).build(16)


def test_a_stage_starts_from_half_the_side(tmp_path: Path, small_recipe: Callable[..., Recipe]) -> None:
    first = Run.open(small_recipe(tmp_path / "coarse.yaml", refiner=True), tmp_path / "coarse", device="cpu")
    train(first)
    store.export(first.path, tmp_path / "coarse.safetensors")
    recipe = small_recipe(tmp_path / "fine.yaml", refiner=True, init=str(tmp_path / "coarse.safetensors"))
    second = Run.open(
        Recipe.parse(recipe.dump_yaml(), "fine.yaml", [*FINE, "networks.generator.mask=true"]),
        tmp_path / "fine",
        device="cpu",
    )
    train(second)
    small, large = first.load_swapper(), second.load_swapper()
    for name in ("generator.blocks.4.conv_mid.weight", "refiner.paint.weight"):
        rows = small.get_parameter(name).repeat_interleave(4, dim=0)
        torch.testing.assert_close(large.get_parameter(name)[: len(rows)], rows, rtol=1e-3, atol=1e-6)
    for name in ("attributes.down.0.0.weight", "refiner.down.0.0.weight"):
        shares = small.get_parameter(name).repeat_interleave(4, dim=1) / 4
        torch.testing.assert_close(large.get_parameter(name), shares, rtol=1e-3, atol=1e-6)


def test_the_recipe_at_128_px_can_paint_256() -> None:
    """By the command in its comment."""
    file = Path(__file__).parents[1] / "recipes" / "faceshifter-lfw-128.yaml"
    comment = [line.strip("#\n \\") for line in file.read_text().splitlines() if line.startswith("#")]
    words = " ".join(comment).split()
    sets = words[words.index("size=256") : words.index("stages.0.init=MODEL")][::2]
    assert "networks.generator.shuffle=2" in sets
    check_file("faceshifter-lfw-128", sets)
    recipe = Recipe.load("faceshifter-lfw-128", sets)
    with torch.device("meta"):
        fine, coarse = build_swapper(recipe), build_swapper(Recipe.load("faceshifter-lfw-128"))
    for (_, one), (_, other) in zip(fine.trained_parts(), coarse.trained_parts(), strict=True):
        assert sum(value.numel() for value in one.parameters()) < 1.05 * sum(v.numel() for v in other.parameters())


@pytest.mark.slow
def test_onnx_shuffles_too(tmp_path: Path, small_recipe: Callable[..., Recipe]) -> None:
    recipe = Recipe.parse(small_recipe(tmp_path / "a.yaml", refiner=True).dump_yaml(), "a.yaml", FINE)
    torch.manual_seed(0)
    swapper = build_swapper(recipe)
    swapper.load()
    checked = onnx_export.write(recipe, swapper.eval().requires_grad_(False), tmp_path / "fine.onnx")
    assert checked.difference < 1e-4


@pytest.mark.parametrize(
    ("kind", "name", "options"),
    [
        ("attribute-encoders", "aei-attributes", {"unshuffle": 2, "full_resolution": True}),
        ("refiners", "hear-net", {"shuffle": 2, "error_gate": True}),
        ("generators", "aad-generator", {"shuffle": 2, "mask": True}),
    ],
)
def test_components_keep_their_contracts(kind: str, name: str, options: dict[str, Any]) -> None:
    encoder = part("attribute-encoders", "aei-attributes", width=0.125, unshuffle=2)
    encoders = {"attributes": encoder} if kind == "generators" else None
    check_component(component(kind, name), networks=encoders, width=0.125, **options)
