"""Our Adam is torch's Adam, whatever the order in memory."""

from typing import Any

import pytest
import torch
from torch import nn

from fsframework.training import optim
from fsframework.training.optim import Adam, stepping

SHAPES = [(8, 6, 3, 3), (8, 1, 3, 3), (8, 6, 1, 1), (8,), (5, 7)]


def parameters(order: torch.memory_format) -> list[nn.Parameter]:
    torch.manual_seed(0)
    values = [torch.randn(shape) for shape in SHAPES]
    return [nn.Parameter(v.contiguous(memory_format=order) if v.dim() == 4 else v) for v in values]


@pytest.mark.parametrize("first", [0.0, 0.5])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_equals_torchs(decay: float, first: float) -> None:
    ours, theirs = parameters(torch.channels_last), parameters(torch.contiguous_format)
    strides = [each.stride() for each in ours]
    kind = torch.optim.AdamW if decay else torch.optim.Adam
    other = kind(theirs, lr=0.1, betas=(first, 0.9), weight_decay=decay, foreach=False)
    optimizer = Adam(ours, lr=0.1, betas=(first, 0.9), weight_decay=decay)
    for step in range(4):
        torch.manual_seed(step)
        for one, two in zip(ours, theirs, strict=True):
            two.grad = torch.randn(two.shape)
            one.grad = torch.empty_like(one).copy_(two.grad)
        if step == 1:
            ours[0].grad = theirs[0].grad = None  # a parameter may have none
        if step == 2:
            ours[0].grad = ours[0].grad.contiguous() if ours[0].grad is not None else None  # or in another order
        optimizer.step()
        other.step()
    for one, two in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.detach(), two.detach())
    assert [each.stride() for each in ours] == strides
    assert [each.shape for each in ours] == [torch.Size(shape) for shape in SHAPES]
    for each in ours:
        kept = optimizer.state[each]
        assert kept["exp_avg_sq"].shape == each.shape and kept["exp_avg_sq"].stride() == each.stride()
        assert ("exp_avg" in kept) == (first > 0)  # else it is the gradient


def test_means_of_gradients_from_before_are_dropped() -> None:
    """Checkpoints of older versions have them where the first beta is 0, too."""
    (parameter, *_) = parameters(torch.channels_last)
    optimizer = Adam([parameter], lr=0.1, betas=(0.0, 0.9))
    optimizer.state[parameter] = {
        "step": torch.tensor(1.0),
        "exp_avg": torch.full_like(parameter, torch.nan, requires_grad=False),
        "exp_avg_sq": torch.ones_like(parameter, requires_grad=False),
    }
    parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert parameter.isfinite().all() and "exp_avg" not in optimizer.state[parameter]


def test_shapes_come_back_after_a_fault() -> None:
    (parameter, *_) = parameters(torch.channels_last)
    parameter.grad = torch.empty_like(parameter).fill_(1)
    optimizer = Adam([parameter], lr=0.1, betas=(0.0, 0.9))

    def broken() -> float:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        optimizer.step(broken)
    assert parameter.shape == SHAPES[0] and parameter.grad.shape == SHAPES[0]


def test_a_step_inside_the_backward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same weights bit for bit, of a layer that is used twice, too; large gradients are freed at once."""
    monkeypatch.setattr(optim, "LARGE", 30)
    networks: list[Any] = [
        nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Linear(8, 2)) for _ in range(2)
    ]
    networks[1].load_state_dict(networks[0].state_dict())
    seen: list[list[bool]] = [[], []]
    for network, inside, freed in zip(networks, (True, False), seen, strict=True):
        middle = network[2].weight
        network[0].weight.register_hook(lambda gradient, middle=middle, freed=freed: freed.append(middle.grad is None))
        optimizer = Adam(network.parameters(), lr=0.1, betas=(0.0, 0.9))
        for step in range(3):
            torch.manual_seed(step)
            hidden = network[2](network[2](network[1](network[0](torch.randn(5, 6)))))
            loss = network[3](hidden).square().mean()
            optimizer.zero_grad(set_to_none=True)
            if inside:
                with stepping(optimizer):
                    loss.backward()
            else:
                loss.backward()
                optimizer.step()
    assert seen == [[True] * 3, [False] * 3]
    for one, other in zip(*(network.parameters() for network in networks), strict=True):
        assert torch.equal(one, other)


def test_a_backward_pass_that_fails_steps_no_further() -> None:
    layer = nn.Linear(2, 2)
    before = layer.weight.detach().clone()
    with pytest.raises(RuntimeError), stepping(Adam(layer.parameters(), lr=0.1, betas=(0.0, 0.9))):
        layer(torch.randn(1, 2)).sum().backward()
        raise RuntimeError
    assert torch.equal(layer.weight, before)
