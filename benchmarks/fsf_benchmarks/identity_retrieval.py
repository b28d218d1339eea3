"""Identity retrieval, the identity metric of FaceShifter (arXiv:1912.13457, section 4.1) and later work.

The paper retrieves swapped frames of 1000 videos among all original frames. A hit is a nearest frame of the source's
video. Here people replace videos, and the dataset's images replace frames.
"""

from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from fsf_benchmarks.gallery import Gallery
from fsframework.core.components import Benchmark, ComponentOptions, Dataset, IdentityEncoder, MetricInfo
from fsframework.core.errors import UserError
from fsframework.core.part import Part, use
from fsframework.core.types import FaceBatch, SwapBatch, SwapResult

NEAREST = 5


class IdentityRetrieval(Benchmark):
    """Measure how often the nearest original image of a swap shows the source's person, in %; higher is better.

    The gallery holds all original images, including source and target. Distances are those of the judge, an identity
    encoder. Swaps that the judge cannot embed are misses. The judge should differ from the encoder of the training,
    which a method can overfit to; the heading marks a judge that was trained against.
    """

    name = "id-retrieval"
    fails = "The judge could not embed the swap, which counts as a miss, or an original picture."
    metrics: ClassVar = {
        "top1": MetricInfo("%", "higher", "Swaps whose nearest original picture shows the source's person."),
        "top5": MetricInfo("%", "higher", "Swaps with the source's person among the five nearest original pictures."),
        "cosine": MetricInfo("", "higher", "Cosine of the judge's embeddings of swap and source picture."),
        "cosine_target": MetricInfo("", "lower", "Cosine of the judge's embeddings of swap and target picture."),
    }

    class Options(ComponentOptions):
        judge: Annotated[Part, use("identity-encoders")] = Field(
            description="Identity encoder for retrieval; other than the encoder of the training."
        )

        batch_size: int = Field(32, ge=1, description="Original pictures per batch.")

    options: Options

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.judge: IdentityEncoder = options.judge.build()
        if not self.judge.metric:
            raise UserError(f"{self.name}: judge {options.judge.name}: cannot compare faces; choose another encoder")
        self.gallery = Gallery(self.judge, self.name, options.batch_size)
        self._held: tuple[Dataset, Tensor] | None = None

    def load(self) -> None:
        """Load the judge's weights."""
        self.judge.load()

    def label(self, trained_against: str | None) -> str:
        judge = self.options.judge.name
        return f"{self.name} (own network)" if judge == trained_against else f"{self.name} (judge: {judge})"

    @torch.no_grad()
    def measure_batch(self, batch: SwapBatch, swap: SwapResult, faces: Dataset) -> dict[str, Any]:
        device = swap.image.device
        gallery, people = self.gallery.vectors(faces, device), self._people(faces).to(device)
        vectors = self.judge(FaceBatch.of(swap.image)).float()  # (B, D)
        cosines = vectors @ gallery.T  # (B, N)
        nearest = cosines.nan_to_num(-torch.inf).topk(min(NEAREST, len(gallery)), dim=1).indices
        hits = people[nearest] == people[batch.source.index][:, None]  # (B, 5)
        hits &= vectors.isfinite().all(dim=1, keepdim=True)
        rows = torch.arange(len(vectors), device=device)
        return {
            "top1": 100 * hits[:, 0],
            "top5": 100 * hits.any(dim=1),
            "cosine": cosines[rows, batch.source.index],
            "cosine_target": cosines[rows, batch.target.index],
        }

    def _people(self, faces: Dataset) -> Tensor:
        """Return the person of every picture (N,), on the CPU; somebody unknown is like nobody else."""
        if self._held is None or self._held[0] is not faces:
            numbers = faces.persons()
            self._held = faces, torch.from_numpy(np.where(numbers < 0, -1 - np.arange(len(numbers)), numbers))
        return self._held[1]
