"""Check whether a method can be exported to other runtimes, and compare a graph with torch."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from fsframework.core.components import Generator
from fsframework.core.errors import UserError
from fsframework.core.swapper import Swapper
from fsframework.core.types import FaceBatch, SwapBatch
from fsframework.data.samples import FewFaces
from fsframework.media.tensor import to_tensor
from fsframework.recipe.schema import Recipe

TOLERANCE = 1e-4  # largest difference of torch and a float32 graph, for values in [-1, 1]
BATCHES = (1, 3)  # batch sizes of the comparison
REMEDY = "use the model with torch"


class Checked(NamedTuple):
    """Result of a comparison of a file with torch."""

    difference: float  # the largest absolute one, of all outputs
    batches: tuple[int, ...]  # batch sizes


class Swap(nn.Module):
    """Swapper with tensors as inputs and outputs: swap, z_id, and mask if the generator's mask applies.

    `z_id` are known embeddings; `source` is not read then.
    """

    def __init__(self, swapper: Swapper) -> None:
        super().__init__()
        self.swapper = swapper

    def forward(self, source: Tensor, target: Tensor, z_id: Tensor | None = None) -> tuple[Tensor, ...]:
        result = self.swapper(SwapBatch.of(FaceBatch.of(source), FaceBatch.of(target)), z_id)
        if result.mask is None or self.swapper.refiner is not None:
            return result.image, result.z_id
        return result.image, result.z_id, result.mask


def check_parts(recipe: Recipe, swapper: Swapper, goal: str) -> None:
    """Raise UserError, with the part's name, unless all parts of the method can be exported.

    `goal` completes "cannot be" in the message.
    """
    if recipe.networks.generator is None:
        raise UserError(f"{recipe.name}: contains only an identity encoder and cannot swap faces; choose another model")
    for role in ("identity", "attributes", "generator", "refiner"):
        part = getattr(swapper, role)
        if part is not None and not part.traceable:
            what = f"{role} {part.name} does not consist of torch operations only (its class is not traceable)"
            raise UserError(f"{recipe.name}: cannot be {goal}: the {what}; {REMEDY}")
    if type(swapper.generator).supports is not Generator.supports:
        what = f"generator {swapper.generator.name} supports only some identities, which a graph cannot express"
        raise UserError(f"{recipe.name}: cannot be {goal}: the {what}; {REMEDY}")


@torch.inference_mode()
def difference(swapper: Swapper, outputs: Callable[[Tensor, Tensor], Sequence[Tensor]], size: int) -> Checked:
    """Compare outputs for source and target with torch's, on noise and on aligned crops of a photograph."""
    noise = torch.rand(2, max(BATCHES), 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    crops = to_tensor(np.stack([sample.image for sample in FewFaces(size).samples]))
    pairs = [(noise[0], noise[1]), (crops[[0, 2, 4]], crops[[3, 5, 1]])]
    worst = 0.0
    for count in BATCHES:
        for source, target in pairs:
            expected = Swap(swapper)(source[:count], target[:count])
            found = outputs(source[:count], target[:count])
            differences = [(output - reference).abs().max() for output, reference in zip(found, expected, strict=True)]
            worst = max(worst, *(float(value.nan_to_num(torch.inf)) for value in differences))
    return Checked(worst, BATCHES)


def reason_of(error: Exception) -> str:
    """Return the first line of an error's message, or else the name of its type."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
