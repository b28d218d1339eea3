from typing import Any

import pytest
import torch

from fsf_template.loss import TemplateLoss
from fsframework import Swapper, SwapResult
from fsframework.testing import SmallIdentity, batch_of, check_loss


@pytest.mark.parametrize("distance", ["squared", "absolute"])
def test_contract(distance: str) -> None:
    check_loss(TemplateLoss, distance=distance)


@pytest.mark.parametrize(("distance", "expected"), [("squared", 0.01), ("absolute", 0.1)])
def test_a_brighter_swap_costs(distance: Any, expected: float) -> None:
    loss, batch = TemplateLoss(TemplateLoss.Options(distance=distance)), batch_of([0, 1])
    brighter = batch.target.image + 0.1
    swap = SwapResult(brighter, brighter, torch.zeros(2, 1))
    assert loss(batch, swap, Swapper(SmallIdentity())).item() == pytest.approx(expected, rel=1e-4)
