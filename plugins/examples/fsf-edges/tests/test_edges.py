import pytest
import torch

from fsf_edges.edges import Edges
from fsframework import FaceBatch, SwapBatch, Swapper, SwapResult
from fsframework.testing import SmallIdentity, batch_of, check_loss


def test_contract() -> None:
    check_loss(Edges)


def test_brightness_costs_nothing_and_a_step_costs_its_height() -> None:
    loss, batch = Edges(Edges.Options(blur=1)), batch_of([0, 1])
    swapper = Swapper(SmallIdentity())

    def of(image: torch.Tensor, batch: SwapBatch) -> float:
        return float(loss(batch, SwapResult(image, image, torch.zeros(2, 1)), swapper))

    assert of(batch.target.image + 0.1, batch) == pytest.approx(0, abs=1e-6)
    flat = FaceBatch.of(torch.zeros(2, 3, 8, 8))
    step = torch.zeros(2, 3, 8, 8)
    step[..., 4:] = 0.5  # half of the 2 x 6 x 6 gradients are across, and 2 of 6 columns see a step of 0.25
    assert of(step, SwapBatch.of(flat, flat)) == pytest.approx(0.25 * 2 / 6 / 2)
