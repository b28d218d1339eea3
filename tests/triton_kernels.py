"""Triton kernels against torch's operations, on a GPU or by Triton's interpreter: test_triton.py runs this.

TRITON_INTERPRET=1 pytest tests/triton_kernels.py
"""

from collections.abc import Callable

import pytest
import torch
from fsf_faceshifter import aad_triton
from fsf_faceshifter.aad import integrate
from fsf_faceshifter.aei_net import AadGenerator
from torch import Tensor
from torch.nn import functional as F

from fsframework.ops.instance_norm import EPSILON
from fsframework.ops.triton import instance_norm, launch, upsample
from fsframework.ops.upsample import upsample2x

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
AAD = [  # channels, side, layers, whether attributes have half the side, batch
    (16, 8, 1, False, 2),
    (24, 8, 2, True, 1),  # no power of two
    (8, 16, 2, False, 3),
    (40, 2, 1, True, 1),
    (16, 1, 2, False, 2),  # one pixel
]


def gradients(of: Callable[..., list[Tensor]], values: list[Tensor], precise: torch.dtype) -> list[Tensor]:
    """What a function gives and the gradients of its inputs, if each output is weighted by fixed random numbers."""
    inputs = [value.to(precise).clone().requires_grad_() for value in values]
    outputs = of(*inputs)
    numbers = torch.Generator().manual_seed(1)
    weights = [torch.randn(output.shape, generator=numbers).to(DEVICE) for output in outputs]
    torch.stack([(output * weight).sum() for output, weight in zip(outputs, weights, strict=True)]).sum().backward()
    found = [*outputs, *(value.grad for value in inputs)]
    assert all(isinstance(value, Tensor) for value in found)
    return [value.detach() for value in found if value is not None]


def agree(found: list[Tensor], right: list[Tensor], within: float) -> None:
    assert len(found) == len(right)
    for one, other in zip(found, right, strict=True):
        assert one.shape == other.shape
        scale = other.double().norm().clamp(min=1e-3)
        assert (one.double() - other.double()).norm() / scale < within


def drawn(*shapes: tuple[int, ...]) -> list[Tensor]:
    numbers = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=numbers).to(DEVICE) for shape in shapes]


@pytest.mark.parametrize(("channels", "height", "width"), [(24, 9, 7), (3, 1, 5), (130, 4, 4)])
def test_instance_norm(channels: int, height: int, width: int) -> None:
    (h,) = drawn((2, channels, height, width))
    h = 3 * h + 100  # a mean that a sum of squares would not survive
    ours = instance_norm.instance_norm
    right = gradients(lambda h: [F.group_norm(h, channels)], [h], torch.float64)
    agree(gradients(lambda h: [ours(h, EPSILON)], [h], torch.float32), right, 2e-5)


def test_instance_norm_of_one_number_in_all_pixels() -> None:
    h = torch.full((1, 8, 4, 4), 7.0, device=DEVICE)
    assert not instance_norm.instance_norm(h, EPSILON).any()


@pytest.mark.parametrize(("height", "width"), [(6, 8), (1, 1), (3, 5)])
def test_doubling(height: int, width: int) -> None:
    (maps,) = drawn((2, 24, height, width))
    ours = upsample.upsample2x
    right = gradients(lambda maps: [upsample2x(maps)], [maps], torch.float64)
    agree(gradients(lambda maps: [ours(maps)], [maps], torch.float32), right, 1e-6)


def plain(layers: int, half: bool) -> Callable[..., list[Tensor]]:
    """Equations 2 to 6 of FaceShifter (arXiv:1912.13457) and a ReLU, for one or two layers."""

    def forward(h: Tensor, weight: Tensor, bias: Tensor, *more: Tensor) -> list[Tensor]:
        atts, biases, identities = (more[start * layers : (start + 1) * layers] for start in range(3))
        n = F.group_norm(h, h.shape[1])
        m = torch.sigmoid((n[:, None] * weight[..., 0, 0][None, :, :, None, None]).sum(dim=2) + bias[:, None, None])
        painted = []
        for number, (att, shift, identity) in enumerate(zip(atts, biases, identities, strict=True)):
            grown = F.interpolate(att, scale_factor=2.0, mode="bilinear") if half else att
            painted.append(integrate(n, grown + shift[:, None, None], identity, m[:, number : number + 1]))
        return [*painted, m]

    return forward


def fast(layers: int) -> Callable[..., list[Tensor]]:
    def forward(h: Tensor, weight: Tensor, bias: Tensor, *more: Tensor) -> list[Tensor]:
        atts, biases, identities = (list(more[start * layers : (start + 1) * layers]) for start in range(3))
        painted, m = aad_triton.aad_layers(h, atts, biases, identities, weight, bias)
        return [*painted, m]

    return forward


def aad_values(channels: int, side: int, layers: int, half: bool, batch: int) -> list[Tensor]:
    small = side // 2 if half else side
    shapes = [(batch, channels, side, side), (layers, channels, 1, 1), (layers,)]
    shapes += [(batch, 2 * channels, small, small)] * layers
    shapes += [(2 * channels,)] * layers + [(batch, 2 * channels, 1, 1)] * layers
    return drawn(*shapes)


@pytest.mark.parametrize(("channels", "side", "layers", "half", "batch"), AAD)
def test_aad_layers(channels: int, side: int, layers: int, half: bool, batch: int) -> None:
    """Exact to 1e-5 in float32: forward, and every gradient."""
    values = aad_values(channels, side, layers, half, batch)
    right = gradients(plain(layers, half), values, torch.float64)
    agree(gradients(fast(layers), values, torch.float32), right, 1e-5)


@pytest.mark.parametrize("h_type", [torch.bfloat16, torch.float32])
def test_aad_layers_in_half_precision(h_type: torch.dtype) -> None:
    """What a network under autocast shows: bfloat16 maps, single-precision weights; h as coarser levels left it."""
    values = aad_values(16, 8, 2, True, 2)
    h, weight, bias, *more = values
    right = gradients(plain(2, True), [h.to(h_type), weight, bias, *(each.bfloat16() for each in more)], torch.float64)

    def under_autocast(h: Tensor, weight: Tensor, bias: Tensor, *more: Tensor) -> list[Tensor]:
        maps = [each.bfloat16() for each in more]
        return [each.float() for each in fast(2)(h.to(h_type), weight, bias, *maps)]

    agree(gradients(under_autocast, values, torch.float32), right, 2e-2)


def test_sums_are_made_in_a_fixed_order() -> None:
    values = aad_values(8, 16, 2, False, 3)
    one, other = (gradients(fast(2), values, torch.float32) for _ in range(2))
    for first, second in zip(one, other, strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize("full", [False, True])
def test_the_generator_paints_the_same_with_them(full: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    channels = [16, 16, 16, 8, 8]
    torch.manual_seed(0)
    generator = AadGenerator(AadGenerator.Options(width=0.0625, max_channels=128), 32, 8, channels).to(DEVICE)
    sides = [2, 4, 8, 16, 32 if full else 16]
    z_id, *z_att = drawn((2, 8), *((2, c, s, s) for c, s in zip(channels, sides, strict=True)))

    def painted() -> list[Tensor]:
        generator.zero_grad()
        swaps, masks = generator.paint(z_id, z_att)
        (swaps * torch.linspace(-1, 1, swaps.numel(), device=DEVICE).view_as(swaps)).sum().backward()
        counting = {name: p.grad for name, p in generator.named_parameters() if not _before_a_norm(name)}
        assert all(isinstance(value, Tensor) for value in counting.values())
        return [swaps.detach(), *(mask.detach() for mask in masks), *(g for g in counting.values() if g is not None)]

    monkeypatch.setattr(launch, "usable", lambda *tensors: False)
    right = painted()
    monkeypatch.setattr(launch, "usable", lambda *tensors: True)
    sides = counted(monkeypatch)
    agree(painted(), right, 2e-3)
    assert sides == [2, 2, 4, 4, 8, 8, 16, 16, 32, 32]


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that will hold the side of every map that AAD layers normalise from now on."""
    sides: list[int] = []

    def noted(h: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
        sides.append(h.shape[-1])
        return instance_norm.moments(h, epsilon)

    monkeypatch.setattr(aad_triton, "moments", noted)
    return sides


def _before_a_norm(name: str) -> bool:
    """Biases that a norm takes away: their gradient is nothing but rounding."""
    if name == "start.bias":
        return True
    block, _, rest = name.removeprefix("blocks.").partition(".")
    return rest in ("conv_in.bias", "conv_mid.bias", "shortcut.bias") and (block != "4" or rest == "conv_in.bias")


def test_the_generator_is_traced_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one graph, forward and backward, as torch.compile wants it."""
    monkeypatch.setattr(launch, "usable", lambda *tensors: True)
    sides = counted(monkeypatch)
    torch.manual_seed(0)
    generator = AadGenerator(AadGenerator.Options(width=0.0625, max_channels=128), 16, 8, [16, 16, 8, 8]).to(DEVICE)
    z_id, *z_att = drawn((2, 8), (2, 16, 2, 2), (2, 16, 4, 4), (2, 8, 8, 8), (2, 8, 8, 8))
    compiled = torch.compile(generator, backend="aot_eager", fullgraph=True)
    found = []
    for paint in (generator, compiled):
        generator.zero_grad()
        swaps = paint(z_id, z_att)
        swaps.square().sum().backward()
        assert generator.affine.weight.grad is not None
        found.append((swaps.detach(), generator.affine.weight.grad))
    agree(list(found[1]), list(found[0]), 1e-5)
    assert sides == [2, 2, 4, 4, 8, 8, 16, 16] * 2


@pytest.mark.parametrize("layers", [1, 2])
def test_the_compiler_is_told_the_truth(layers: int) -> None:
    """Shapes and memory orders that torch.compile counts on, and gradients that it may ask for."""
    h, weight, bias, *more = aad_values(8, 4, layers, True, 2)
    atts, biases, identities = (more[start * layers : (start + 1) * layers] for start in range(3))
    last = torch.channels_last
    pair = [*(att.contiguous(memory_format=last) for att in atts), None][:2]
    names = [*identities, None][:2]
    values = (h.contiguous(memory_format=last), *pair, torch.stack(list(biases)), *names, weight, bias)
    inputs = tuple(value if value is None else value.requires_grad_() for value in values)
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(aad_triton._forward, inputs, test_utils=tests)
    torch.library.opcheck(upsample.upsample2x, (inputs[0],), test_utils=tests)
    torch.library.opcheck(instance_norm._instance_norm, (inputs[0], EPSILON), test_utils=tests)
