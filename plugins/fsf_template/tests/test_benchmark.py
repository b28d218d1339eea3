import numpy as np
import torch

from fsf_template.benchmark import TemplateBenchmark
from fsframework import SwapResult
from fsframework.testing import FewFaces, batch_of, check_benchmark


def test_contract() -> None:
    check_benchmark(TemplateBenchmark)


def test_grey_levels() -> None:
    batch = batch_of([0, 1])
    brighter = batch.target.image + 2 * 10 / 255
    swaps = [(batch, SwapResult(brighter, brighter, torch.zeros(2, 1)))]
    found = TemplateBenchmark(TemplateBenchmark.Options())(swaps, FewFaces())
    np.testing.assert_allclose(found["colour"], 10 * 3**0.5, rtol=1e-3)
