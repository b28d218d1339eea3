"""Small convolutions in C equal torch's, whatever the tiles."""

import copy
from collections.abc import Callable

import pytest
import torch
from fsf_detectors import small_convolutions
from fsf_detectors.small_convolutions import SmallConvolutions
from torch import Tensor, nn

NETWORKS: dict[str, list[nn.Module]] = {
    "shallow": [
        *(nn.Conv2d(3, 10, 3), nn.PReLU(10), nn.MaxPool2d(2, 2, ceil_mode=True)),
        *(nn.Conv2d(10, 20, 3), nn.PReLU()),
    ],
    "deep": [
        *(nn.Conv2d(5, 48, 2), nn.MaxPool2d(3, 2, ceil_mode=True)),
        *(nn.Conv2d(48, 16, 3), nn.PReLU(16), nn.MaxPool2d(3, 2, ceil_mode=True)),
        *(nn.Conv2d(16, 8, 1), nn.Conv2d(8, 33, 2), nn.PReLU(33)),
    ],
}


def by_torch(network: SmallConvolutions, images: Tensor) -> Tensor:
    made: Tensor = nn.Sequential.forward(network, images)
    return made


def packed(name: str) -> SmallConvolutions:
    network = SmallConvolutions(*copy.deepcopy(NETWORKS[name])).requires_grad_(False)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    network.pack()
    return network


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("shallow", (1, 3, 8, 8)),
        ("shallow", (2, 3, 9, 11)),
        ("shallow", (2, 3, 73, 75)),  # 35 x 36 pixels, in four tiles
        ("shallow", (1, 3, 70, 261)),
        ("shallow", (0, 3, 20, 20)),
        ("deep", (3, 5, 22, 22)),
        ("deep", (1, 5, 150, 22)),
        ("deep", (1, 5, 149, 151)),
    ],
    ids=str,
)
@pytest.mark.parametrize("order", [torch.channels_last, torch.contiguous_format], ids=str)
def test_equals_torch(name: str, shape: tuple[int, ...], order: torch.memory_format) -> None:
    if not small_convolutions.KERNELS.suit():
        pytest.skip("needs a C compiler")
    torch.manual_seed(0)
    network, images = packed(name), torch.randn(shape).contiguous(memory_format=order)
    made, right = network(images), by_torch(network.double(), images.double())
    assert made.dtype == torch.float32 and made.shape == right.shape
    if len(images):
        assert (made - right).abs().max() < 1e-5 * right.abs().max()


def test_in_any_number_of_threads(set_threads: Callable[[int], None]) -> None:
    network, images = packed("shallow"), torch.randn(2, 3, 140, 70)
    made = []
    for threads in (1, 5):
        set_threads(threads)
        made.append(network(images))
    assert torch.equal(*made)


def test_what_c_cannot_do_is_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients, other precisions, weights that were not laid out, and machines without a compiler."""
    network, images = packed("shallow"), torch.randn(1, 3, 12, 12)
    network(images.clone().requires_grad_()).sum().backward()
    assert network.half()(images.half()).dtype == torch.float16
    network.float()
    next(network.parameters()).zero_()  # the kernel does not know it
    if small_convolutions.KERNELS.suit():
        assert not torch.equal(network(images), by_torch(network, images))
    monkeypatch.setattr(small_convolutions.KERNELS, "suit", lambda: False)
    assert torch.equal(network(images), by_torch(network, images))
    monkeypatch.undo()
    network.packed = None
    assert torch.equal(network(images), by_torch(network, images))
