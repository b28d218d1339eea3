"""The assembled method: identity encoder, attribute encoder, generator and refiner."""

from collections.abc import Iterator
from typing import Any, ClassVar, Literal, cast

from torch import Tensor, nn

from fsframework.core.components import AttributeEncoder, Generator, IdentityEncoder, Network, Refiner
from fsframework.core.types import SwapBatch, SwapResult


class _Missing(nn.Module):
    """A placeholder for a network that the recipe does not name."""

    def forward(self, *values: Any) -> Tensor:
        raise RuntimeError("the recipe names no such network, so nothing can be swapped")


class Swapper(nn.Module):
    """An assembled method, built from the four networks that a recipe names.

    Parameters
    ----------
    identity, attributes, generator, refiner:
        The components. `refiner` may be None; in recipes that only train a recogniser, all but `identity` may.
    """

    runtime: ClassVar[Literal["torch", "openvino", "onnx"]] = "torch"  # what runs the networks

    def __init__(
        self,
        identity: IdentityEncoder,
        attributes: AttributeEncoder | None = None,
        generator: Generator | None = None,
        refiner: Refiner | None = None,
    ) -> None:
        super().__init__()
        self.identity = identity
        self.attributes = cast(AttributeEncoder, _Missing() if attributes is None else attributes)
        self.generator = cast(Generator, _Missing() if generator is None else generator)
        self.refiner = refiner

    def coarse(self, batch: SwapBatch, z_id: Tensor | None = None, z_att: list[Tensor] | None = None) -> SwapResult:
        """Return the swap before the refiner, composed with the target if the generator `composes` by its mask.

        Parameters
        ----------
        batch:
            The pairs of sources and targets.
        z_id:
            (B, D) embeddings of the sources; None: they are computed.
        z_att:
            The targets' attribute maps; None: they are computed.
        """
        if z_id is None:
            z_id = self.identity(batch.source)
        if z_att is None:
            z_att = self.attributes(batch.target)
        painted = self.generator(z_id, z_att)  # (B, 3 or 4, S, S)
        image, mask = painted[:, :3], painted[:, 3:] if painted.shape[1] > 3 else None
        if mask is not None and self.generator.composes:
            image = mask * image + (1 - mask) * batch.target.image
        return SwapResult(image=image, coarse=image, z_id=z_id, z_att=z_att, mask=mask)

    def forward(self, batch: SwapBatch, z_id: Tensor | None = None) -> SwapResult:
        """Return the swap, refined if there is a refiner; `z_id` as in `coarse`."""
        result = self.coarse(batch, z_id)
        if self.refiner is None:
            return result
        image = self.refiner(result, batch, self)
        return SwapResult(image=image, coarse=result.coarse, z_id=result.z_id, z_att=result.z_att, mask=result.mask)

    def load(self) -> None:
        """Load the files of all networks."""
        for part in (self.identity, self.attributes, self.generator, self.refiner):
            if isinstance(part, Network):
                part.load()

    def drop_untrained_refiner(self) -> None:
        """Remove the refiner if it needs training (`Refiner.learns`)."""
        if self.refiner is not None and self.refiner.learns:
            self.refiner = None

    def trained_parts(self) -> Iterator[tuple[str, Network]]:
        """Yield the networks that a recipe can train, with their names in the recipe."""
        if self.identity.trainable:
            yield "identity", self.identity
        for name, part in (("attributes", self.attributes), ("generator", self.generator), ("refiner", self.refiner)):
            if isinstance(part, Network):
                yield name, part
