"""Convolutions that take another way on CPUs: equal to torch's in float64, forward and backward, whichever way."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fsframework.ops import conv, winograd
from fsframework.ops.conv import Conv2d

CASES = {
    "large maps": ("_Winograd", 3, 1, 1, (3, 64, 36, 36), 64),
    "sides that are no multiple of a tile's": ("_Winograd", 3, 1, 1, (2, 64, 35, 37), 40),
    "narrow layers": ("_Winograd", 3, 1, 1, (2, 16, 48, 48), 24),
    "one image": ("_Winograd", 3, 1, 1, (1, 64, 32, 32), 64),
    "many weights": ("_Winograd", 3, 1, 1, (3, 272, 7, 9), 256),
    "many weights, fewer inputs": ("_Winograd", 3, 1, 1, (11, 176, 5, 4), 392),
    "two pixels a side": ("", 3, 1, 1, (4, 64, 2, 2), 32),
    "halving": ("", 4, 2, 1, (4, 24, 8, 8), 16),
    "odd channels": ("", 3, 1, 1, (2, 5, 6, 7), 3),
    "1x1": ("", 1, 1, 0, (2, 5, 6, 7), 3),
    "wide maps with three outputs": ("", 3, 1, 1, (2, 16, 48, 48), 3),
    "wide maps, halving": ("", 4, 2, 1, (2, 16, 48, 48), 8),
}
ORDERS = [torch.channels_last, torch.contiguous_format]


@pytest.mark.parametrize("order", ORDERS, ids=str)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("bias", [True, False])
def test_equals_torch(case: tuple, order: torch.memory_format, bias: bool) -> None:
    way, kernel, stride, padding, shape, outputs = case
    if way == "_Winograd" and not winograd.KERNELS.suit():
        pytest.skip("needs a C compiler")
    torch.manual_seed(0)
    fast = Conv2d(shape[1], outputs, kernel, stride=stride, padding=padding, bias=bias).to(memory_format=order)
    exact = nn.Conv2d(shape[1], outputs, kernel, stride=stride, padding=padding, bias=bias).double()
    exact.load_state_dict(fast.state_dict())
    images = torch.randn(shape)
    x = images.clone(memory_format=order).requires_grad_()
    y = images.double().requires_grad_()
    found, right = fast(x), exact(y)
    assert type(found.grad_fn).__name__.startswith(way or "Convolution")
    direction = torch.randn(right.shape)
    found.backward(direction)
    right.backward(direction.double())
    pairs: list[tuple[Tensor | None, Tensor | None]] = [(found, right), (x.grad, y.grad)]
    pairs += [(one.grad, other.grad) for one, other in zip(fast.parameters(), exact.parameters(), strict=True)]
    for one, other in pairs:
        assert one is not None and other is not None
        assert one.shape == other.shape
        assert (one - other).abs().max() < 2e-4 * other.std()


@pytest.mark.parametrize("shape", [(2, 64, 35, 37), (1, 72, 32, 48)], ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_winograd_on_maps_in_bfloat16(shape: tuple[int, ...], bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its arithmetic is float32: nothing is rounded but the maps that it writes."""
    if not winograd.KERNELS.suit():
        pytest.skip("needs a C compiler")
    monkeypatch.setattr(conv, "has_bf16", lambda device: True)
    monkeypatch.setattr(conv, "_bf16_is_fastest", lambda: False)
    torch.manual_seed(0)
    fast = Conv2d(shape[1], 80, 3, padding=1, bias=bias)
    exact = nn.Conv2d(shape[1], 80, 3, padding=1, bias=bias).double()
    exact.load_state_dict(fast.state_dict())
    x = torch.randn(shape).bfloat16().requires_grad_()
    y = x.detach().double().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        found = fast(x)
    right = exact(y)
    assert type(found.grad_fn).__name__.startswith("_Winograd") and found.dtype == torch.bfloat16
    direction = torch.randn(right.shape).bfloat16()
    found.backward(direction)
    right.backward(direction.double())
    assert x.grad is not None and y.grad is not None
    for one, other in ((found, right), (x.grad, y.grad)):
        assert ((one - other).abs() < 2**-8 * other.abs() + 2e-4 * other.std()).all()  # half a unit in the last place
    for one, other in zip(fast.parameters(), exact.parameters(), strict=True):
        assert one.grad is not None and other.grad is not None
        assert (one.grad - other.grad).abs().max() < 2e-4 * other.grad.std()


@pytest.mark.parametrize("threads", [1, 2, 40])
@pytest.mark.parametrize(
    "shape", [(2, 64, 20, 20, 64), (2, 136, 13, 14, 72), (1, 8, 3, 5, 264), (9, 264, 16, 16, 264)], ids=str
)
def test_winograd_in_any_number_of_threads(
    shape: tuple[int, ...], threads: int, set_threads: Callable[[int], None]
) -> None:
    """The same at each call, whichever thread is first, also where there are more threads than tiles."""
    if not winograd.KERNELS.suit():
        pytest.skip("needs a C compiler")
    set_threads(threads)
    count, inputs, height, width, outputs = shape
    torch.manual_seed(0)
    images, gradient = (
        torch.randn(count, channels, height, width).to(memory_format=torch.channels_last)
        for channels in (inputs, outputs)
    )
    weight, bias = torch.randn(outputs, inputs, 3, 3), torch.randn(outputs)
    makes: list[Callable[[], tuple[Tensor, ...]]] = [
        lambda: (winograd.convolve(images, weight, bias), winograd.gradient_of_images(gradient, weight)),
        lambda: winograd.gradient_of_weight(images, gradient),
    ]
    found = [each for make in makes for each in make()]
    exact = weight.double().requires_grad_(), bias.double().requires_grad_(), images.double().requires_grad_()
    right = nn.functional.conv2d(exact[2], exact[0], exact[1], padding=1)
    right.backward(gradient.double())
    for one, other in zip(found, [right, exact[2].grad, exact[0].grad, exact[1].grad], strict=True):
        assert other is not None and (one - other).abs().max() < 2e-4 * other.std()
    again = [each for make in makes for each in make()]
    assert all(torch.equal(one, other) for one, other in zip(found, again, strict=True))


@pytest.mark.parametrize(
    ("amx", "inputs", "outputs", "side", "way"),
    [
        (False, 64, 64, 32, "_Winograd"),
        (True, 64, 64, 32, "Convolution"),
        (False, 56, 64, 32, "Convolution"),
        (False, 64, 64, 28, "Convolution"),
        (False, 64, 512, 32, "_Winograd"),
        (False, 64, 512, 31, "Convolution"),
        (False, 136, 512, 20, "_Winograd"),
        (False, 136, 512, 19, "Convolution"),
        (True, 136, 512, 20, "Convolution"),
    ],
)
def test_where_winograd_is_faster_than_bfloat16(
    amx: bool, inputs: int, outputs: int, side: int, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not where AMX multiplies, nor on narrow layers or small maps.

    Of layers of many weights maps may be smaller.
    """
    if not winograd.KERNELS.suit():
        pytest.skip("needs a C compiler")
    monkeypatch.setattr(conv, "has_bf16", lambda device: True)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    with torch.autocast("cpu", torch.bfloat16):
        made = Conv2d(inputs, outputs, 3, padding=1)(torch.randn(1, inputs, side, side))
    assert type(made.grad_fn).__name__.startswith(way)


def test_bfloat16_is_left_to_torch_where_it_is_emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conv, "has_bf16", lambda device: False)
    with torch.autocast("cpu", torch.bfloat16):
        made = Conv2d(8, 8, 3, padding=1)(torch.randn(1, 8, 4, 4))
    assert type(made.grad_fn).__name__.startswith("Convolution")


def test_gradients_only_where_they_are_asked_for() -> None:
    layer = Conv2d(64, 64, 3, padding=1).requires_grad_(False)
    x = torch.randn(1, 64, 32, 32, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad is not None and layer.weight.grad is None
    layer.requires_grad_(True)
    x = x.detach()
    layer(x).sum().backward()
    assert x.grad is None and layer.weight.grad is not None


def test_weight_gradients_keep_the_weights_order() -> None:
    """Else every step would copy all gradients."""
    for shape in ((1, 64, 32, 32), (1, 64, 4, 4)):
        layer = Conv2d(64, 64, 3, padding=1).to(memory_format=torch.channels_last)
        layer(torch.randn(shape)).sum().backward()
        assert layer.weight.grad is not None
        assert layer.weight.grad.stride() == layer.weight.stride()


def test_without_kernels_it_is_torchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd.KERNELS, "suit", lambda *channels: False)
    layer, x = Conv2d(64, 64, 3, padding=1), torch.randn(2, 64, 32, 32)
    assert torch.equal(layer(x), nn.functional.conv2d(x, layer.weight, layer.bias, padding=1))


def test_autocast_and_other_types_are_torchs_own() -> None:
    layer, x = Conv2d(8, 8, 3, padding=1), torch.randn(1, 8, 4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    assert layer.double()(x.double()).dtype == torch.float64
    with torch.device("meta"):
        assert Conv2d(8, 8, 3)(torch.empty(1, 8, 4, 4)).device.type == "meta"


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_follows_may_work_in_place(case: tuple) -> None:
    _, kernel, stride, padding, shape, outputs = case
    layer = Conv2d(shape[1], outputs, kernel, stride=stride, padding=padding)
    layer(torch.randn(shape)).relu_().sum().backward()
    assert layer.weight.grad is not None


def test_state_dict_is_torchs() -> None:
    assert Conv2d(3, 4, 3).state_dict().keys() == nn.Conv2d(3, 4, 3).state_dict().keys()


def test_winograd_is_not_taken_on_maps_smaller_than_its_tiles() -> None:
    layer = Conv2d(272, 256, 3, padding=1)
    x = torch.randn(100, 272, 3, 4)
    assert not conv._suits_winograd(x, layer.weight, 1, 1, x.dtype)


def test_winograd_is_taken_for_3x3_alone() -> None:
    layers = [Conv2d(64, 64, 3, stride=2, padding=1), Conv2d(64, 64, 3), Conv2d(64, 64, 5, padding=1)]
    x = torch.randn(1, 64, 48, 48)
    for layer in layers:
        assert not conv._suits_winograd(x, layer.weight, layer.stride[0], int(layer.padding[0]), x.dtype)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_kept_weights(case: tuple, precision: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is made of them is made once, and gives the same bit for bit, until somebody says that they change."""
    monkeypatch.setattr(conv, "has_bf16", lambda device: True)
    monkeypatch.setattr(conv, "_bf16_is_fastest", lambda: False)
    _, kernel, stride, padding, shape, outputs = case
    torch.manual_seed(0)
    layer = Conv2d(shape[1], outputs, kernel, stride=stride, padding=padding).requires_grad_(False)
    x = torch.randn(shape)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16), torch.inference_mode():
        plain = layer(x)
        conv.cache_weights(layer)
        assert layer.cached is not None
        first, made = layer(x), dict(layer.cached)
        assert torch.equal(first, plain) and torch.equal(layer(x), plain)
        assert layer.cached.keys() == made.keys() and all(layer.cached[key] is made[key] for key in made)
        layer.weight.mul_(2)
        conv.cache_weights(layer, False)
        assert layer.cached is None and not torch.equal(layer(x), plain)


def test_a_network_keeps_its_weights_in_all_layers() -> None:
    if not winograd.KERNELS.suit():
        pytest.skip("needs a C compiler")
    first, second = Conv2d(64, 64, 3, padding=1), Conv2d(64, 64, 3, padding=1)
    network = nn.Sequential(first, nn.Sequential(second))
    conv.cache_weights(network)
    with torch.no_grad():
        network(torch.randn(1, 64, 32, 32))
    assert first.cached and second.cached and first.cached.keys() == second.cached.keys() == {"winograd"}
