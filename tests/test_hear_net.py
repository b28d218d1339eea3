"""HEAR-Net: what it sees, and what it is made of."""

import pytest
import torch

from fsframework.core.part import part
from fsframework.core.swapper import Swapper
from fsframework.core.types import FaceBatch, SwapBatch


@pytest.fixture
def swapper() -> Swapper:
    torch.manual_seed(0)
    attributes = part("attribute-encoders", "aei-attributes", width=0.125).build(32)
    generator = part("generators", "aad-generator", width=0.125).build(32, 128, attributes.channels)
    refiner = part("refiners", "hear-net", width=0.125).build(32)
    identity = part("identity-encoders", "dlib-resnet").build()
    identity.load()
    return Swapper(identity, attributes, generator, refiner).eval()


@pytest.fixture
def batch() -> SwapBatch:
    torch.manual_seed(1)
    return SwapBatch.of(*(FaceBatch.of(torch.rand(2, 3, 32, 32) * 2 - 1) for _ in range(2)))


@torch.no_grad()
def test_sees_the_draft_and_the_heuristic_error(swapper: Swapper, batch: SwapBatch) -> None:
    seen: list[torch.Tensor] = []
    swapper.get_submodule("refiner.down.0").register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    result = swapper(batch)
    itself = swapper.coarse(SwapBatch.of(batch.target, batch.target)).image
    expected = torch.cat([result.coarse, batch.target.image - itself], dim=1)
    torch.testing.assert_close(seen[0], expected)
    assert result.image.shape == result.coarse.shape == (2, 3, 32, 32)
    assert not torch.equal(result.image, result.coarse)


def test_takes_its_own_statistics_along(swapper: Swapper, batch: SwapBatch) -> None:
    swapper.requires_grad_(False)
    refiner = swapper.get_submodule("refiner").requires_grad_(True).train()
    before = {key: value.clone() for key, value in swapper.state_dict().items()}
    swapper(batch).image.mean().backward()
    changed = {key.split(".")[0] for key, value in swapper.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {"refiner"}  # running means; AEI-Net is frozen
    assert all(parameter.grad is not None for parameter in refiner.parameters())


@torch.no_grad()
def test_residual_starts_as_the_coarse_swap(swapper: Swapper, batch: SwapBatch) -> None:
    swapper.refiner = part("refiners", "hear-net", width=0.125, residual=True).build(32).eval()
    result = swapper(batch)
    assert torch.equal(result.image, result.coarse)
    torch.nn.init.ones_(swapper.get_parameter("refiner.paint.bias"))
    torch.testing.assert_close(swapper(batch).image, (result.coarse + 1).clamp(-1, 1))


@torch.no_grad()
def test_restore_adds_the_error_as_it_is(swapper: Swapper, batch: SwapBatch) -> None:
    swapper.refiner = part("refiners", "hear-net", width=0.125, residual=True, error_gate=True).build(32).eval()
    bias = swapper.get_parameter("refiner.paint.bias")
    assert bias.shape == (4,)
    assert torch.equal(swapper(batch).image, swapper(batch).coarse)
    bias[3] = 1.0  # all of the error
    result = swapper(batch)
    itself = swapper.coarse(SwapBatch.of(batch.target, batch.target)).image
    torch.testing.assert_close(result.image, (result.coarse + batch.target.image - itself).clamp(-1, 1))
    to_itself = swapper(SwapBatch.of(batch.target, batch.target))
    torch.testing.assert_close(to_itself.image, batch.target.image, atol=1e-5, rtol=0)


def test_layout_of_the_public_implementations() -> None:
    with torch.device("meta"):
        refiner = part("refiners", "hear-net").build(256)
    convs = [down[0] for down in refiner.down]
    assert [(c.in_channels, c.out_channels) for c in convs] == [(6, 64), (64, 128), (128, 256), (256, 512), (512, 512)]
    convs = [up[0] for up in refiner.up]
    assert [(c.in_channels, c.out_channels) for c in convs] == [(512, 512), (1024, 256), (512, 128), (256, 64)]
    assert (refiner.paint.in_channels, refiner.paint.out_channels) == (128, 3)
