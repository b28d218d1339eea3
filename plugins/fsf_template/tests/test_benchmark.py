import numpy as np
import torch

from fsf_template.benchmark import TemplateBenchmark
from fsframework.core.types import SwapResult
from fsframework.data.samples import FewFaces
from fsframework.testing.check_component import check_benchmark
from fsframework.testing.samples import batch_of


def test_contract() -> None:
    check_benchmark(TemplateBenchmark)


def test_grey_levels() -> None:
    batch = batch_of([0, 1])
    brighter = batch.target.image + 2 * 10 / 255
    swaps = [(batch, SwapResult(brighter, brighter, torch.zeros(2, 1)))]
    found = TemplateBenchmark(TemplateBenchmark.Options())(swaps, FewFaces())
    np.testing.assert_allclose(found["colour"], 10 * 3**0.5, rtol=1e-3)
