"""Our Adam is torch's Adam, whatever the order in memory."""

import pytest
import torch
from torch import nn

from fsframework.optimizers import Adam

SHAPES = [(8, 6, 3, 3), (8, 1, 3, 3), (8, 6, 1, 1), (8,), (5, 7)]


def parameters(order: torch.memory_format) -> list[nn.Parameter]:
    torch.manual_seed(0)
    values = [torch.randn(shape) for shape in SHAPES]
    return [nn.Parameter(v.contiguous(memory_format=order) if v.dim() == 4 else v) for v in values]


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_equals_torchs(decay: float) -> None:
    ours, theirs = parameters(torch.channels_last), parameters(torch.contiguous_format)
    strides = [each.stride() for each in ours]
    kind = torch.optim.AdamW if decay else torch.optim.Adam
    other = kind(theirs, lr=0.1, betas=(0.5, 0.9), weight_decay=decay, foreach=False)
    optimizer = Adam(ours, lr=0.1, betas=(0.5, 0.9), weight_decay=decay)
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
        assert optimizer.state[each]["exp_avg"].shape == each.shape


def test_shapes_come_back_after_a_fault() -> None:
    (parameter, *_) = parameters(torch.channels_last)
    parameter.grad = torch.empty_like(parameter).fill_(1)
    optimizer = Adam([parameter], lr=0.1, betas=(0.0, 0.9))

    def broken() -> float:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        optimizer.step(broken)
    assert parameter.shape == SHAPES[0] and parameter.grad.shape == SHAPES[0]
