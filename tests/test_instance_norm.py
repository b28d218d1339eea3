"""Instance normalisation: equal to the formula and to torch, with gradients, on any order of memory."""

import pytest
import torch
from torch.nn import functional as F

from fsframework.ops import instance_norm as module
from fsframework.ops.instance_norm import EPSILON, instance_norm


def by_formula(h: torch.Tensor) -> torch.Tensor:
    mean = h.mean(dim=(2, 3), keepdim=True)
    return (h - mean) / ((h - mean).square().mean(dim=(2, 3), keepdim=True) + EPSILON).sqrt()


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize(
    "shape", [(3, 16, 19, 17), (2, 8, 2, 2), (1, 24, 64, 33), (2, 80, 20, 20), (2, 8, 1, 1), (2, 5, 4, 4)]
)
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_equals_the_formula(
    native: bool, shape: tuple[int, ...], order: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    if native and not module.KERNELS.suit():
        pytest.skip("needs a C compiler")
    if not native:
        monkeypatch.setattr(module.KERNELS, "suit", lambda *channels: False)
    generator = torch.Generator().manual_seed(0)
    given = (3 * torch.randn(shape, generator=generator) + 20).contiguous(memory_format=order)
    direction = torch.randn(shape, generator=generator)
    if shape[2:] == (1, 1):  # torch refuses single pixels in training; they become 0
        assert not instance_norm(given).any()
        return
    h, exact = given.clone().requires_grad_(), given.double().requires_grad_()
    out, truth = instance_norm(h), by_formula(exact)
    assert ("InstanceNorm" in type(out.grad_fn).__name__) == (native and shape[1] % 8 == 0)
    torch.testing.assert_close(out.double(), truth, rtol=1e-4, atol=1e-4)
    out.backward(direction)
    truth.backward(direction.double())
    assert h.grad is not None and exact.grad is not None
    torch.testing.assert_close(h.grad.double(), exact.grad, rtol=1e-3, atol=1e-4)


def test_a_flat_channel_stays_finite() -> None:
    h = torch.full((1, 8, 4, 4), 7.0).requires_grad_()
    out = instance_norm(h)
    out.sum().backward()
    assert h.grad is not None
    assert torch.equal(out, torch.zeros_like(out)) and h.grad.isfinite().all()


def test_other_precisions_take_torchs_way() -> None:
    h = torch.randn(2, 8, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(instance_norm(h), F.instance_norm(h))


@pytest.mark.parametrize("channels", [16, 5])
@pytest.mark.parametrize("autocast", [True, False])
def test_half_precision_is_kept(channels: int, autocast: bool) -> None:
    """Also under autocast, which makes torch's own norms write float32; sums are made in float32."""
    numbers = torch.Generator().manual_seed(0)
    given = (3 * torch.randn(2, channels, 9, 8, generator=numbers) + 20).bfloat16()
    direction = torch.randn(2, channels, 9, 8, generator=numbers)
    h, exact = given.clone().requires_grad_(), given.double().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        out = instance_norm(h)
    truth = by_formula(exact)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.double(), truth, rtol=1e-2, atol=1e-2)
    out.backward(direction.bfloat16())
    truth.backward(direction.double())
    assert h.grad is not None and exact.grad is not None and h.grad.dtype == torch.bfloat16
    torch.testing.assert_close(h.grad.double(), exact.grad, rtol=2e-2, atol=1e-2)
