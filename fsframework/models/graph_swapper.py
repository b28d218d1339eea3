"""Swapper whose networks run outside of torch, as two graphs: from source to embedding, and from there to the swap.

The cut at the embedding means that a source is embedded once for any number of targets, as in torch. Embedding it for
each target would cost a tenth to a fifth of the time.
"""

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor

from fsframework.core.components import AttributeEncoder, ComponentOptions, Generator, IdentityEncoder
from fsframework.core.registry import component
from fsframework.core.swapper import Swapper
from fsframework.core.types import FaceBatch, SwapBatch, SwapResult
from fsframework.recipe.schema import Recipe

Embed = Callable[[Tensor], Tensor]  # sources (B, 3, S, S) to z_id (B, D)
Generate = Callable[[Tensor, Tensor], Sequence[Tensor]]  # z_id and targets to swaps, and masks if there are any
NONE = ComponentOptions()


class GraphSwapper(Swapper):
    """Swapper of two graphs. It swaps and embeds like the `Swapper` from which they were made.

    Intermediate results are not available: attribute maps, the coarse swap before a refiner, and the mask of a
    generator that a refiner follows.

    Parameters
    ----------
    recipe:
        The method's recipe.
    dim:
        The length D of an embedding.
    embed, generate:
        The graphs. Both take and return float32 tensors on the CPU.
    weights_sha256:
        The digest of the networks' tensors (see `fsframework.utils.weights.digest`).
    """

    def __init__(self, recipe: Recipe, dim: int, embed: Embed, generate: Generate, weights_sha256: str | None) -> None:
        with torch.device("meta"):
            identity: IdentityEncoder = recipe.networks.identity.build()
        encoder = (_Embedding if identity.metric else _IdentityCode)(embed, dim, identity)
        generator = _OpenSetGenerator(NONE, recipe.size, dim, [])
        exported = recipe.networks.generator
        if exported is not None:
            exported_class = cast(type[Generator], component("generators", exported.name))
            generator.composes = exported_class.composes  # type: ignore[misc]
        super().__init__(encoder, _NoMaps(NONE, recipe.size), generator)
        self.generate = generate
        self.weights_sha256 = weights_sha256

    def coarse(self, batch: SwapBatch, z_id: Tensor | None = None, z_att: list[Tensor] | None = None) -> SwapResult:
        """Return the final swap: the graph has no output for the swap before the refiner."""
        if z_id is None:
            z_id = self.identity(batch.source)
        image, *mask = self.generate(z_id, batch.target.image)
        return SwapResult(image=image, coarse=image, z_id=z_id, mask=mask[0] if mask else None)


class _Embedding(IdentityEncoder):
    """Identity encoder that runs the graph up to the embedding."""

    def __init__(self, embed: Embed, dim: int, exported: IdentityEncoder) -> None:
        super().__init__(NONE)
        self.embed, self.dim = embed, dim
        self.name, self.match_threshold = exported.name, exported.match_threshold  # type: ignore[misc]

    def forward(self, faces: FaceBatch) -> Tensor:
        return self.embed(faces.image)


class _IdentityCode(_Embedding):
    """Identity encoder whose output has no metric."""

    metric = False


class _NoMaps(AttributeEncoder):
    """Attribute encoder without maps; the graph computes them itself."""

    channels: list[int] = []  # noqa: RUF012


class _OpenSetGenerator(Generator):
    """Generator for all identities: `fsframework.models.graph_export` rejects closed-set generators."""
