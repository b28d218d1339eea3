"""Fréchet distance between swaps and real images (Heusel et al., arXiv:1706.08500, section 2)."""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field

from fsf_benchmarks.gallery import Gallery
from fsframework.core.components import Benchmark, ComponentOptions, Dataset, IdentityEncoder, MetricInfo
from fsframework.core.part import Part, use
from fsframework.core.types import FaceBatch, SwapBatch, SwapResult


class Frechet(Benchmark):
    """Measure the Fréchet distance of the distributions of swaps and of the dataset's images; lower is better.

    Features are fitted by normal distributions. This is not FID, whose network is not redistributable: features are
    those of a selectable encoder, and figures are comparable for one encoder only. The distance is biased upwards for
    small samples: compare methods on equal numbers of pairs.
    """

    name = "frechet"
    metrics: ClassVar = {
        "frechet": MetricInfo("", "lower", "Fréchet distance of the features of swaps and real pictures.")
    }

    class Options(ComponentOptions):
        extractor: Annotated[Part, use("identity-encoders")] = Field(
            default={"use": "lfw-recogniser"}, validate_default=True, description="Encoder whose features are compared."
        )

    options: Options

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.extractor: IdentityEncoder = options.extractor.build()
        self.gallery = Gallery(self.extractor, self.name)

    def load(self) -> None:
        """Load the extractor's weights."""
        self.extractor.load()

    def label(self, trained_against: str | None) -> str:
        own = self.options.extractor.name == trained_against
        return f"{self.name} (own network)" if own else self.name

    @torch.no_grad()
    def measure_batch(self, batch: SwapBatch, swap: SwapResult, faces: Dataset) -> dict[str, Any]:
        return {"vectors": self.extractor(FaceBatch.of(swap.image)).double().cpu()}

    @torch.no_grad()
    def combine(self, parts: Sequence[dict[str, Any]], faces: Dataset) -> dict[str, np.ndarray | float]:
        swapped = torch.cat([part["vectors"] for part in parts]).numpy()
        real = self.gallery.vectors(faces, next(self.extractor.parameters()).device).double().cpu().numpy()
        return {"frechet": distance(swapped[np.isfinite(swapped).all(axis=1)], real[np.isfinite(real).all(axis=1)])}


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """Return |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) of samples (n, D) and (m, D); NaN if n or m is below 2."""
    # torchmetrics agrees within 2e-8, but takes seconds to import and needs an adapter, because its input is images.
    if min(len(one), len(other)) < 2:
        return float("nan")
    difference = one.mean(axis=0) - other.mean(axis=0)
    first, second = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    values, vectors = np.linalg.eigh(np.atleast_2d(first))
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    # C1 C2 has the eigenvalues of C1^(1/2) C2 C1^(1/2), which is symmetric.
    shared = np.linalg.eigvalsh(root @ np.atleast_2d(second) @ root)
    total = np.trace(np.atleast_2d(first)) + np.trace(np.atleast_2d(second))
    return float(difference @ difference + total - 2 * np.sqrt(np.maximum(shared, 0)).sum())
