import torch

from fsf_template.refiner import TemplateRefiner
from fsframework import Swapper, SwapResult
from fsframework.testing import SmallIdentity, batch_of, check_refiner


def test_contract() -> None:
    check_refiner(TemplateRefiner)


def test_it_starts_from_the_coarse_swap() -> None:
    refiner, batch = TemplateRefiner(TemplateRefiner.Options(), 64), batch_of([0, 1])
    coarse = SwapResult(batch.source.image, batch.source.image, torch.zeros(2, 1))
    assert torch.equal(refiner(coarse, batch, Swapper(SmallIdentity())), coarse.image)
