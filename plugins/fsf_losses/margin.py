"""Margin losses for the training of face recognisers: CosFace and ArcFace."""

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

EDGE = 1e-6  # distance of clamped cosines from -1 and 1, where the gradient of the arc cosine is infinite


class Margin(Loss):
    """Margin softmax loss: classify each target's identity, with a learned class centre for each person.

    CosFace: Wang et al., arXiv:1801.09414, equation 4; ArcFace: Deng et al., arXiv:1801.07698, equation 3. Targets are
    augmented by shift, scale, mirroring, brightness, contrast, greyscale, blur and random erasing. People with a single
    image contribute too, by its augmentations.
    """

    name = "margin"

    class Options(Loss.Options):
        people: int = Field(10_000, ge=2, description="Number of classes; at least the number of people in the data.")
        dim: int = Field(128, ge=2, description="Dimension of the recogniser's embedding.")
        kind: Literal["cosface", "arcface"] = Field(
            "cosface", description="Whether the margin is subtracted from the cosine or added to the angle."
        )
        margin: float = Field(
            0.15, ge=0, le=1, description="Margin on the true class: subtracted from the cosine, or added in radians."
        )
        scale: float = Field(24.0, gt=0, description="Factor of the cosines before the softmax.")
        shift: float = Field(0.05, ge=0, le=0.2, description="Maximum random shift of an image, in units of its side.")
        zoom: float = Field(0.1, ge=0, le=0.5, description="Maximum random relative change of its size.")
        light: float = Field(0.2, ge=0, lt=1, description="Maximum random change of contrast and brightness.")

    options: Options

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.directions = nn.Parameter(torch.randn(options.people, options.dim) / options.dim**0.5)
        self._pending: list[tuple[Tensor, Tensor]] = []  # embeddings and people of `forward`, consumed by `critic`

    def forward(self, batch: SwapBatch, output: SwapResult, swapper: Swapper) -> Tensor:
        """Return the recogniser's loss, a scalar; 0 if the batch has no labelled person.

        Raises
        ------
        UserError
            The data have more people than the option `people`, or the embedding's dimension differs from `dim`.
        """
        person = batch.target.person
        if len(person) and person.max() >= self.options.people:
            most = self.options.people
            raise UserError(f"{self.name}: the data have more than {most} people; raise the option people")
        embedding = swapper.identity(FaceBatch.of(self.views(batch.target.image))).float()
        if embedding.shape[1] != self.options.dim:
            dim = embedding.shape[1]
            raise UserError(f"{self.name}: the embedding has {dim} dimensions; set the option dim to that value")
        self._pending.append((embedding.detach(), person))
        return self.term(embedding, person)

    def critic(self, batch: SwapBatch, output: SwapResult) -> Tensor:
        """Return the loss of the class centres, a scalar, on the embeddings of the last `forward`."""
        return self.term(*self._pending.pop(0))

    def term(self, embedding: Tensor, person: Tensor) -> Tensor:
        """Return the mean cross entropy, a scalar, of unit embeddings (B, D) with class labels (B,); -1: no label."""
        embedding, person = embedding[person >= 0], person[person >= 0]
        if not len(person):
            return embedding.sum() * 0
        cosines = embedding @ F.normalize(self.directions, dim=1).T  # (B, people)
        true = F.one_hot(person, self.options.people)
        if self.options.kind == "cosface":
            logits = cosines - self.options.margin * true
        else:
            angles = torch.arccos(cosines.clamp(-1 + EDGE, 1 - EDGE))
            logits = torch.where(true.bool(), torch.cos(angles + self.options.margin), cosines)
        return F.cross_entropy(self.options.scale * logits, person)

    def views(self, images: Tensor) -> Tensor:
        """Return randomly augmented images (B, 3, S, S)."""
        count, size = len(images), images.shape[-1]

        def uniform(low: float, high: float) -> Tensor:
            return torch.empty(count, 1, 1, 1, device=images.device).uniform_(low, high)

        augmented = jitter(images, self.options.shift, self.options.zoom)
        grey = augmented.mean(dim=1, keepdim=True)
        augmented = torch.where(uniform(0, 1) < 0.2, grey.expand_as(augmented), augmented)
        light = self.options.light
        augmented = augmented * uniform(1 - light, 1 + light) + uniform(-light, light)
        small = F.interpolate(augmented, scale_factor=0.5, mode="area")
        blurred = F.interpolate(small, size=(size, size), mode="bilinear")
        augmented = torch.where(uniform(0, 1) < 0.3, blurred, augmented)
        rows = torch.arange(size, device=images.device)
        half = uniform(0.0, 0.15) * size * (uniform(0, 1) < 0.5)
        erased = (rows[None, None, :, None] - uniform(0, 1) * size).abs() < half
        erased = erased & ((rows[None, None, None, :] - uniform(0, 1) * size).abs() < half)
        return augmented.masked_fill(erased, 0.0).clamp(-1, 1)


class CosFace(Margin):
    """CosFace (Wang et al., arXiv:1801.09414): `margin` whose margin is taken off the cosine (kind: cosface)."""

    name = "cosface"

    class Options(Margin.Options):
        kind: Literal["cosface"] = Field("cosface", description="Fixed by the loss's name.")


class ArcFace(Margin):
    """ArcFace (Deng et al., arXiv:1801.07698): `margin` whose margin is added to the angle (kind: arcface)."""

    name = "arcface"

    class Options(Margin.Options):
        kind: Literal["arcface"] = Field("arcface", description="Fixed by the loss's name.")
