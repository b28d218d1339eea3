"""AEI-Net: the paper's layout, and equality with the plain reference written from the equations."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from fsf_benchmarks.plain_aei_net import PlainGenerator
from fsf_faceshifter import aad
from fsf_faceshifter.aad import integrate
from fsf_faceshifter.inner_blur import blur_inner_face, oval
from pydantic import ValidationError
from scipy.ndimage import gaussian_filter  # type: ignore[import-untyped]
from torch import nn
from torch.nn import functional as F

from fsframework.core.components import AttributeEncoder, Generator
from fsframework.core.part import part
from fsframework.core.types import FaceBatch
from fsframework.faces.align import template
from fsframework.ops import winograd
from fsframework.ops.instance_norm import instance_norm


def build(size: int, width: float, id_dim: int = 128) -> tuple[AttributeEncoder, Generator]:
    torch.manual_seed(0)
    attributes = part("attribute-encoders", "aei-attributes", width=width).build(size)
    generator = part("generators", "aad-generator", width=width).build(size, id_dim, attributes.channels)
    for module in (attributes, generator):  # start values hide mistakes: biases of 0, gammas of 1
        for parameter in module.parameters():
            if parameter.dim() == 1:
                nn.init.uniform_(parameter, 0.5, 1.5)
    return attributes, generator


def take_torchs_own_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose rounding is the plain reference's; the fast ways round differently, and a little more."""
    monkeypatch.setattr(winograd.KERNELS, "suit", lambda *channels: False)
    monkeypatch.setattr(aad.KERNELS, "suit", lambda *channels: False)


def parameters(module: nn.Module) -> float:
    return sum(parameter.numel() for parameter in module.parameters()) / 1e6


def test_layout_of_the_paper_at_256() -> None:
    with torch.device("meta"):
        attributes = part("attribute-encoders", "aei-attributes").build(256)
        generator = part("generators", "aad-generator").build(256, 512, attributes.channels)
    assert parameters(attributes) == pytest.approx(67.1, abs=0.05)
    assert parameters(generator) == pytest.approx(117.3, abs=0.05)
    assert parameters(attributes) + parameters(generator) == pytest.approx(184.3, abs=0.1)
    assert attributes.channels == [1024, 2048, 1024, 512, 256, 128, 64, 64]


@pytest.mark.parametrize("size", [32, 64, 128])
def test_shapes(size: int) -> None:
    attributes, generator = build(size, 0.125)
    z_att = attributes(FaceBatch.of(torch.rand(2, 3, size, size)))
    assert [z.shape[1] for z in z_att] == attributes.channels
    assert [z.shape[-1] for z in z_att] == [*(2 ** (k + 1) for k in range(len(z_att) - 1)), size // 2]
    image = generator(torch.randn(2, 128), z_att)
    assert image.shape == (2, 3, size, size)
    assert image.abs().max() <= 1


@torch.no_grad()
@pytest.mark.parametrize(
    ("dtype", "quick", "bound"),
    [(torch.float32, False, 3e-5), (torch.float32, True, 1e-4), (torch.float64, False, 1e-10)],
)
@pytest.mark.parametrize("size", [32, 64])
def test_equals_the_equations(
    size: int, dtype: torch.dtype, quick: bool, bound: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not quick:
        take_torchs_own_ways(monkeypatch)
    attributes, generator = (module.to(dtype) for module in build(size, 0.25))
    plain = PlainGenerator(generator).to(dtype)
    z_id = F.normalize(torch.randn(3, 128, dtype=dtype))
    z_att = attributes(FaceBatch.of(torch.rand(3, 3, size, size, dtype=dtype) * 2 - 1))
    fast, slow = generator(z_id, z_att), plain(z_id, z_att)
    assert fast.std() > 0.01  # neither constant nor saturated
    assert (fast - slow).abs().max() < bound


@torch.no_grad()
@pytest.mark.parametrize(("quick", "bound"), [(False, 2e-5), (True, 1e-4)])
def test_equals_the_equations_at_the_start_of_training(
    quick: bool, bound: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not quick:
        take_torchs_own_ways(monkeypatch)
    torch.manual_seed(0)
    attributes = part("attribute-encoders", "aei-attributes", width=0.5).build(64)
    generator = part("generators", "aad-generator", width=0.5).build(64, 128, attributes.channels)
    plain = PlainGenerator(generator)
    z_id, z_att = F.normalize(torch.randn(3, 128)), attributes(FaceBatch.of(torch.rand(3, 3, 64, 64) * 2 - 1))
    assert (generator(z_id, z_att) - plain(z_id, z_att)).abs().max() < bound


def test_gradients_equal_the_equations() -> None:
    attributes, generator = build(32, 0.125)
    plain = PlainGenerator(generator)
    z_att = [z.detach() for z in attributes(FaceBatch.of(torch.rand(2, 3, 32, 32) * 2 - 1))]
    gradients = []
    for network in (generator, plain):
        z_id = F.normalize(torch.randn(2, 128, generator=torch.Generator().manual_seed(1))).requires_grad_()
        network(z_id, z_att).square().mean().backward()
        assert z_id.grad is not None
        gradients.append(z_id.grad)
    largest = gradients[1].abs().max()
    assert largest > 1e-6 and (gradients[0] - gradients[1]).abs().max() < 1e-3 * largest


def test_recomputed_blocks_have_the_same_gradients() -> None:
    attributes, generator = build(32, 0.125)
    again = part("generators", "aad-generator", width=0.125, activation_checkpointing=True).build(
        32, 128, attributes.channels
    )
    again.load_state_dict(generator.state_dict())
    z_id, z_att = torch.randn(2, 128), [z.detach() for z in attributes(FaceBatch.of(torch.rand(2, 3, 32, 32) * 2 - 1))]
    for network in (generator, again):
        network(z_id, z_att).square().mean().backward()
    for one, other in zip(generator.parameters(), again.parameters(), strict=True):
        assert one.grad is not None and other.grad is not None
        assert torch.equal(one.grad, other.grad)


SIDES = [((19, 17), (19, 17)), ((20, 18), (10, 9)), ((2, 2), (1, 1))]  # of the maps, and of gammas and betas


@pytest.mark.parametrize(("sides", "att_sides"), SIDES)
@pytest.mark.parametrize("native", [True, False])
def test_one_pass_equals_the_equations(
    native: bool, sides: tuple[int, int], att_sides: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    if native and not aad.KERNELS.suit():
        pytest.skip("needs a C compiler")
    if not native:
        monkeypatch.setattr(aad.KERNELS, "suit", lambda *channels: False)
    torch.manual_seed(0)
    shapes = [(3, 16, *sides), (3, 32, *att_sides), (3, 32, 1, 1), (3, 1, *sides)]
    given = [torch.rand(shape) if shape[1] == 1 else torch.randn(shape) for shape in shapes]
    direction = torch.randn(shapes[0])
    found = []
    for dtype in (torch.float32, torch.float64):  # the second has no kernel
        h, att, identity, mask = (value.to(dtype, copy=True).requires_grad_() for value in given)
        out = integrate(h, att, identity, mask)
        out.backward(direction.to(dtype))
        assert ("Integrate" in type(out.grad_fn).__name__) == (native and dtype == torch.float32)
        found.append([out.detach(), *(value.grad for value in (h, att, identity, mask))])
    for one, other in zip(*found, strict=True):
        assert one is not None and other is not None
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("sides", "att_sides"), SIDES)
def test_one_pass_in_bfloat16(sides: tuple[int, int], att_sides: tuple[int, int]) -> None:
    if not aad.KERNELS.suit():
        pytest.skip("needs a C compiler")
    torch.manual_seed(0)
    shapes = [(3, 16, *sides), (3, 32, *att_sides), (3, 32, 1, 1), (3, 1, *sides)]
    given = [(torch.rand(shape) if shape[1] == 1 else torch.randn(shape)).bfloat16() for shape in shapes]
    direction = torch.randn(shapes[0]).bfloat16()
    found = []
    for dtype in (torch.bfloat16, torch.float64):
        values = [value.to(dtype, copy=True).requires_grad_() for value in given]
        out = integrate(*values)
        out.backward(direction.to(dtype))
        assert ("Integrate" in type(out.grad_fn).__name__) == (dtype == torch.bfloat16)
        found.append([out.detach(), *(value.grad for value in values)])
    for one, other in zip(*found, strict=True):
        assert one is not None and other is not None and one.dtype == torch.bfloat16
        assert (one - other).norm() < 4e-3 * other.norm()  # a number is rounded by up to 2e-3


def test_mask_chooses_between_identity_and_attributes() -> None:
    h = instance_norm(torch.randn(1, 4, 8, 8))
    att, identity = torch.randn(1, 8, 8, 8), torch.randn(1, 8, 1, 1)
    gamma, beta = identity.chunk(2, dim=1)
    torch.testing.assert_close(integrate(h, att, identity, torch.ones(1, 1, 8, 8)), F.relu(gamma * h + beta))
    gamma, beta = att.chunk(2, dim=1)
    torch.testing.assert_close(integrate(h, att, identity, torch.zeros(1, 1, 8, 8)), F.relu(gamma * h + beta))


def test_autocast_may_leave_parts_in_float32() -> None:
    """On GPUs it interpolates in float32: the finest gammas and betas then met a mask in bfloat16, and lerp refused."""
    h, att, identity = torch.randn(1, 4, 8, 8), torch.randn(1, 8, 8, 8), torch.randn(1, 8, 1, 1)
    mask = torch.rand(1, 1, 8, 8)
    mixed = integrate(h.bfloat16(), att, identity, mask.bfloat16())
    torch.testing.assert_close(mixed, integrate(h, att, identity, mask), rtol=0.05, atol=0.05)


@pytest.mark.parametrize(("size", "decibels"), [(32, 47), (64, 45)])
def test_bfloat16_is_near_float32(size: int, decibels: float) -> None:
    """As the first level stays in float32: with that in bfloat16, too, it is 45 and 40 dB."""
    torch.manual_seed(0)
    attributes = part("attribute-encoders", "aei-attributes", width=0.25).build(size).eval()
    generator = part("generators", "aad-generator", width=0.25).build(size, 128, attributes.channels)
    z_id, faces = F.normalize(torch.randn(4, 128)), FaceBatch.of(torch.rand(4, 3, size, size) * 2 - 1)
    with torch.no_grad():
        exact = generator(z_id, attributes(faces))
        with torch.autocast("cpu", torch.bfloat16):
            close = generator(z_id, attributes(faces))
    assert close.dtype == torch.float32
    assert 10 * torch.log10(4 / F.mse_loss(close, exact)) > decibels


def test_maps_are_shares_at_every_level() -> None:
    attributes, generator = build(64, 0.125)
    maps = generator.maps(torch.randn(2, 128), attributes(FaceBatch.of(torch.rand(2, 3, 64, 64))))
    assert [tuple(m.shape) for m in maps] == [(2, 1, 2**k, 2**k) for k in range(1, 7)]
    assert all(m.min() >= 0 and m.max() <= 1 for m in maps)


def test_full_attributes_reach_the_crops_own_side() -> None:
    attributes = part("attribute-encoders", "aei-attributes", width=0.5, full_resolution=True).build(64).eval()
    plain = part("attribute-encoders", "aei-attributes", width=0.5).build(64)
    picture = torch.rand(1, 3, 64, 64)
    stripes = (picture + 0.1 * (-1) ** torch.arange(64)).requires_grad_(True)
    z_att = attributes(FaceBatch.of(stripes))
    assert [z.shape[-1] for z in z_att] == [2, 4, 8, 16, 32, 64]
    assert [z.shape[1] for z in z_att] == attributes.channels
    assert attributes.channels[:-1] == plain.channels[:-1]
    z_att[-1][0, :, 20, 20].sum().backward()
    assert stripes.grad is not None and stripes.grad[0, :, 19:22, 19:22].abs().min() > 0
    generator = part("generators", "aad-generator", width=0.5).build(64, 128, attributes.channels)
    assert generator(torch.randn(1, 128), z_att).shape == (1, 3, 64, 64)


def test_the_inner_face_can_be_blurred_before_the_encoder() -> None:
    plain, blurring = (
        part("attribute-encoders", "aei-attributes", width=0.125, inner_blur=blur).build(64).eval()
        for blur in (0, 0.03)
    )
    blurring.load_state_dict(plain.state_dict())
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    blurred = blur_inner_face(picture, 0.03)
    for found, expected in zip(blurring(FaceBatch.of(picture)), plain(FaceBatch.of(blurred)), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
    mask = oval(64, picture.device)
    smooth = gaussian_filter(picture[0].numpy(), (0, 0.03 * 64, 0.03 * 64), mode="mirror", radius=(0, 6, 6))
    torch.testing.assert_close(blurred[0], mask * torch.from_numpy(smooth) + (1 - mask) * picture[0])
    assert torch.equal(blurred[..., mask == 0], picture[..., mask == 0])


def test_the_blurred_oval_covers_the_landmarks_and_no_border() -> None:
    mask = oval(128, torch.device("cpu"))
    for x, y in template(128).round().astype(int):
        assert mask[y, x] == 1
    assert (mask == 1).float().mean() > 0.15 and mask[:40].max() == 0 and mask[:, :30].max() == 0


def test_identity_branch_is_not_near_zero_at_the_start() -> None:
    torch.manual_seed(0)
    attributes = part("attribute-encoders", "aei-attributes", width=0.25).build(64)
    generator = part("generators", "aad-generator", width=0.25).build(64, 128, attributes.channels)
    z_att = attributes(FaceBatch.of(torch.rand(1, 3, 64, 64) * 2 - 1))
    with torch.no_grad():
        one, other = (generator(F.normalize(torch.randn(1, 128)), z_att) for _ in range(2))
    assert (one - other).abs().mean() > 0.1 * one.std()


def test_coarse_levels_can_be_narrower_and_fine_ones_stay() -> None:
    def channels(**options: float) -> list[int]:
        generator = part("generators", "aad-generator", **options).build(64, 128, [8] * 6)
        return [block.conv_in.in_channels for block in generator.blocks]

    assert channels(width=0.5) == [512, 512, 256, 128, 64, 32]
    assert channels(width=0.5, max_channels=448) == [224, 224, 224, 128, 64, 32]
    narrow = part("attribute-encoders", "aei-attributes", width=0.5, max_channels=256).build(64)
    assert narrow.channels == [128, 256, 128, 64, 32, 32]  # two maps beside each other, but for the coarsest


def test_wrong_number_of_maps_is_refused(expect_error: Callable[..., Any]) -> None:
    with expect_error("aad-generator", kind=ValueError):
        part("generators", "aad-generator").build(64, 128, [8] * 5)


@pytest.mark.parametrize("size", [8, 48])
def test_other_sizes_are_refused(size: int, expect_error: Callable[..., Any]) -> None:
    with expect_error("AEI-Net", kind=ValueError):
        part("attribute-encoders", "aei-attributes").build(size)


@pytest.mark.parametrize(("layers", "millions"), [(1, 128.5), (2, 184.3), (3, 240.2)])
def test_ghosts_numbers_of_layers(layers: int, millions: float) -> None:
    with torch.device("meta"):
        attributes = part("attribute-encoders", "aei-attributes").build(256)
        generator = part("generators", "aad-generator", layers=layers).build(256, 512, attributes.channels)
    assert parameters(attributes) + parameters(generator) == pytest.approx(millions, abs=0.1)


def test_added_skips_are_narrower() -> None:
    attributes = part("attribute-encoders", "aei-attributes", skips="add").build(64)
    z_att = attributes(FaceBatch.of(torch.rand(2, 3, 64, 64)))
    assert [z.shape[1] for z in z_att] == attributes.channels == [512, 256, 128, 64, 32, 32]


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("integration", ["aad", "add", "cat", "spade", "adain"])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_every_integration_paints_and_learns(size: int, integration: str, layers: int) -> None:
    attributes = part("attribute-encoders", "aei-attributes", width=0.125).build(size)
    made = part("generators", "aad-generator", width=0.125, integration=integration, layers=layers)
    generator = made.build(size, 16, attributes.channels)
    z_id = F.normalize(torch.randn(2, 16), dim=1).requires_grad_()
    z_att = attributes(FaceBatch.of(torch.rand(2, 3, size, size)))
    image = generator(z_id, z_att)
    assert image.shape == (2, 3, size, size)
    image.square().mean().backward()
    assert z_id.grad is not None and z_id.grad.abs().sum() > 0
    assert all(value.grad is not None for value in generator.parameters())
    assert hasattr(generator, "affine") == (integration != "spade")  # which sees identity at the start alone
    assert all(value.grad is not None for value in attributes.parameters())
    assert len(generator.maps(z_id, z_att)) == (len(z_att) if integration == "aad" else 0)


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("add-generator", {"integration": "add"}),
        ("cat-generator", {"integration": "cat"}),
        ("compressed-generator", {"att_levels": 3}),
        ("adain-generator", {"integration": "adain"}),
        ("spade-generator", {"integration": "spade"}),
    ],
)
def test_a_name_of_its_own_is_an_option_of_the_generator(name: str, option: dict[str, Any]) -> None:
    attributes = part("attribute-encoders", "aei-attributes", width=0.125).build(64)
    z_id, z_att = F.normalize(torch.randn(2, 16), dim=1), attributes(FaceBatch.of(torch.rand(2, 3, 64, 64)))
    swaps = []
    for each in (part("generators", name, width=0.125), part("generators", "aad-generator", width=0.125, **option)):
        torch.manual_seed(0)
        swaps.append(each.build(64, 16, attributes.channels)(z_id, z_att))
    torch.testing.assert_close(*swaps, rtol=0, atol=0)
    torch.manual_seed(0)
    plain = part("generators", "aad-generator", width=0.125).build(64, 16, attributes.channels)(z_id, z_att)
    assert not torch.allclose(plain, swaps[0], atol=1e-3)
    (fixed,) = option
    with pytest.raises(ValidationError, match=fixed):
        part("generators", name, **{fixed: "aad" if fixed == "integration" else 2})


def test_integrations_are_what_they_say() -> None:
    torch.manual_seed(0)
    h, mask = torch.randn(2, 3, 4, 4), torch.rand(2, 1, 4, 4)
    att, identity = torch.randn(2, 6, 4, 4), torch.randn(2, 6, 1, 1)
    (a_gamma, a_beta), (i_gamma, i_beta) = att.chunk(2, dim=1), identity.chunk(2, dim=1)
    a, i = a_gamma * h + a_beta, i_gamma * h + i_beta
    means = att.mean(dim=(2, 3), keepdim=True).chunk(2, dim=1)
    expected = {
        "aad": (1 - mask) * a + mask * i,
        "add": a + i,
        "cat": torch.cat([a, i], dim=1),
        "spade": a,
        "adain": (means[0] + i_gamma) / 2 * h + (means[1] + i_beta) / 2,
    }
    for kind, value in expected.items():
        torch.testing.assert_close(aad.joined(kind, h, att, identity, mask), F.relu(value))  # type: ignore[arg-type]


def test_coarse_levels_may_concatenate() -> None:
    """Each block equals that of the generator with its integration, and only those after `cat_levels` have maps."""
    channels = part("attribute-encoders", "aei-attributes", width=0.125).build(64).channels
    plain, mixed, cat = (
        part("generators", "aad-generator", width=0.125, **options).build(64, 16, channels)
        for options in ({}, {"cat_levels": 2}, {"integration": "cat"})
    )
    shapes = [
        [{name: value.shape for name, value in block.state_dict().items()} for block in generator.blocks]
        for generator in (plain, mixed, cat)
    ]
    assert shapes[1] == shapes[2][:2] + shapes[0][2:]
    mixed.blocks[:2].load_state_dict(cat.blocks[:2].state_dict())
    mixed.blocks[2:].load_state_dict(plain.blocks[2:].state_dict())
    affine = mixed.block_channels[1]
    h = torch.randn(2, affine // (2 * mixed.blocks[1].affine_layers), 4, 4)
    identity = torch.randn(2, affine, 1, 1)
    z_att = [torch.randn(2, c, 2 ** (k + 1), 2 ** (k + 1)) for k, c in enumerate(channels[:-1])]
    z_att.append(z_att[-1])
    torch.testing.assert_close(mixed.blocks[1](h, z_att[1], identity), cat.blocks[1](h, z_att[1], identity))
    z_id = F.normalize(torch.randn(2, 16), dim=1)
    assert [tuple(m.shape) for m in mixed.maps(z_id, z_att)] == [(2, 1, 2**k, 2**k) for k in range(3, 7)]
    mixed(z_id, z_att).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in mixed.blocks.parameters())


def test_the_number_of_concatenating_levels_is_checked(expect_error: Callable[..., Any]) -> None:
    for options in ({"cat_levels": 2, "integration": "add"}, {"cat_levels": 7}):
        with expect_error("cat_levels"):
            part("generators", "aad-generator", width=0.125, **options).build(64, 16, [8] * 6)


def test_compressed_attributes_are_the_coarse_ones() -> None:
    attributes = part("attribute-encoders", "aei-attributes", width=0.125).build(64)
    made = part("generators", "aad-generator", width=0.125, att_levels=3)
    generator = made.build(64, 16, attributes.channels)
    z_att = [z.detach().requires_grad_() for z in attributes(FaceBatch.of(torch.rand(2, 3, 64, 64)))]
    generator(F.normalize(torch.randn(2, 16), dim=1), z_att).sum().backward()
    assert [z.grad is not None for z in z_att] == [True, True, True, False, False, False]


@pytest.mark.parametrize("size", [64, 128])
def test_timms_networks_give_the_same_levels(size: int) -> None:
    attributes = part("attribute-encoders", "timm-attributes", backbone="resnet10t", width=0.125).build(size)
    generator = part("generators", "aad-generator", width=0.125).build(size, 16, attributes.channels)
    z_att = attributes(FaceBatch.of(torch.rand(2, 3, size, size)))
    assert [z.shape[1] for z in z_att] == attributes.channels
    assert [z.shape[-1] for z in z_att] == [*(2 ** (k + 1) for k in range(len(z_att) - 1)), size // 2]
    generator(F.normalize(torch.randn(2, 16), dim=1), z_att).square().mean().backward()
    assert all(value.grad is not None for value in attributes.parameters())


def test_timms_networks_that_do_not_fit_are_refused(expect_error: Callable[..., Any]) -> None:
    with expect_error("backbone"):
        part("attribute-encoders", "timm-attributes", backbone="nothing").build(64)
    with expect_error("backbone"):
        part("attribute-encoders", "timm-attributes", backbone="convnext_atto").build(64)
    with expect_error("size 32", kind=ValueError):
        part("attribute-encoders", "timm-attributes").build(32)
