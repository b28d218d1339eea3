"""Margin loss: what face recognisers are trained with."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from fsf_losses.identity import jitter
from fsframework.core.components import Loss
from fsframework.core.errors import UserError
from fsframework.core.swapper import Swapper
from fsframework.core.types import FaceBatch, SwapBatch, SwapResult

EDGE = 1e-6  # at which cosines end, because the arc cosine has no slope there


class Margin(Loss):
    """Each target must be told from all other people by a direction for each person, which is learned too.

    CosFace: Wang et al., arXiv:1801.09414, equation 4; ArcFace: Deng et al., arXiv:1801.07698, equation 3. Targets are
    seen moved, resized, mirrored, in other light, grey, blurred or partly covered. People with one picture count as
    well: their picture is seen in many ways.
    """

    name = "margin"

    class Options(Loss.Options):
        people: int = Field(10_000, ge=2, description="At least as many as the data show.")
        dim: int = Field(128, ge=2, description="Numbers of the recogniser's embedding.")
        kind: Literal["cosface", "arcface"] = Field(
            "cosface", description="Whether the margin is taken off the cosine, or added to the angle."
        )
        margin: float = Field(
            0.15, ge=0, le=1, description="Taken off the cosine to the right person, or added to its angle, in radians."
        )
        scale: float = Field(24.0, gt=0, description="Factor of the cosines before the softmax.")
        shift: float = Field(0.05, ge=0, le=0.2, description="Largest random move of a picture, in units of its side.")
        zoom: float = Field(0.1, ge=0, le=0.5, description="Largest random change of its size, as a share.")
        light: float = Field(0.2, ge=0, lt=1, description="Largest random change of contrast and brightness.")

    options: Options

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.directions = nn.Parameter(torch.randn(options.people, options.dim) / options.dim**0.5)
        self._seen: list[tuple[Tensor, Tensor]] = []  # by `forward`, for `critic`, which trains the directions

    def forward(self, batch: SwapBatch, output: SwapResult, swapper: Swapper) -> Tensor:
        """The recogniser's term, a scalar; 0 where nobody in the batch is known. Raises UserError: too many people."""
        person = batch.target.person
        if len(person) and person.max() >= self.options.people:
            most = self.options.people
            raise UserError(f"{self.name}: the data show more than {most} people; raise the option people")
        embedding = swapper.identity(FaceBatch.of(self.views(batch.target.image))).float()
        if embedding.shape[1] != self.options.dim:
            dim = embedding.shape[1]
            raise UserError(f"{self.name}: the embedding has {dim} numbers; give the option dim that value")
        self._seen.append((embedding.detach(), person))
        return self.term(embedding, person)

    def critic(self, batch: SwapBatch, output: SwapResult) -> Tensor:
        """The same number, for the directions: on the embeddings that `forward` has seen."""
        return self.term(*self._seen.pop(0))

    def term(self, embedding: Tensor, person: Tensor) -> Tensor:
        """Mean cross entropy of embeddings (B, D) of unit length against people (B,), -1 for unknown ones."""
        embedding, person = embedding[person >= 0], person[person >= 0]
        if not len(person):
            return embedding.sum() * 0
        cosines = embedding @ F.normalize(self.directions, dim=1).T  # (B, people)
        right = F.one_hot(person, self.options.people)
        if self.options.kind == "cosface":
            harder = cosines - self.options.margin * right
        else:
            angles = torch.arccos(cosines.clamp(-1 + EDGE, 1 - EDGE))
            harder = torch.where(right.bool(), torch.cos(angles + self.options.margin), cosines)
        return F.cross_entropy(self.options.scale * harder, person)

    def views(self, images: Tensor) -> Tensor:
        """Images (B, 3, S, S), each seen in a random way."""
        count, size = len(images), images.shape[-1]

        def drawn(low: float, high: float) -> Tensor:
            return torch.empty(count, 1, 1, 1, device=images.device).uniform_(low, high)

        seen = jitter(images, self.options.shift, self.options.zoom)
        grey = seen.mean(dim=1, keepdim=True)
        seen = torch.where(drawn(0, 1) < 0.2, grey.expand_as(seen), seen)
        light = self.options.light
        seen = seen * drawn(1 - light, 1 + light) + drawn(-light, light)
        small = F.interpolate(seen, scale_factor=0.5, mode="area")
        blurred = F.interpolate(small, size=(size, size), mode="bilinear")
        seen = torch.where(drawn(0, 1) < 0.3, blurred, seen)
        rows = torch.arange(size, device=images.device)
        half = drawn(0.0, 0.15) * size * (drawn(0, 1) < 0.5)
        covered = (rows[None, None, :, None] - drawn(0, 1) * size).abs() < half
        covered = covered & ((rows[None, None, None, :] - drawn(0, 1) * size).abs() < half)
        return seen.masked_fill(covered, 0.0).clamp(-1, 1)


class CosFace(Margin):
    """CosFace (Wang et al., arXiv:1801.09414): `margin` whose margin is taken off the cosine (kind: cosface)."""

    name = "cosface"

    class Options(Margin.Options):
        kind: Literal["cosface"] = Field("cosface", description="Fixed: what the name stands for.")


class ArcFace(Margin):
    """ArcFace (Deng et al., arXiv:1801.07698): `margin` whose margin is added to the angle (kind: arcface)."""

    name = "arcface"

    class Options(Margin.Options):
        kind: Literal["arcface"] = Field("arcface", description="Fixed: what the name stands for.")
