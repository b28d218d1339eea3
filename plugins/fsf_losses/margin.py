"""Margin loss on pairs of pictures: what a recogniser is trained with where most people have few pictures."""

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from fsf_losses.identity import jitter
from fsframework.components import Loss, Swapper
from fsframework.types import Batch, Faces, SwapResult


class Margin(Loss):
    """Each source must find its target among all targets of the batch, and the other way round.

    Cosines, a margin m off those of right pairs and a scale s, as in CosFace (Wang et al., arXiv:1801.09414, equation
    4), but against the other pictures of the batch instead of a weight for each person, as in Sohn's N-pair loss (NIPS
    2016, equation 6): of the people of LFW two thirds have one picture. A pair is right if both pictures show one
    person, or are one picture, seen in two ways: moved, resized, mirrored, in other light, blurred, partly covered.
    """

    name = "margin"

    class Options(Loss.Options):
        margin: float = Field(0.2, ge=0, le=1, description="Taken off the cosine of right pairs.")
        scale: float = Field(20.0, gt=0, description="Factor of the cosines before the softmax.")
        shift: float = Field(0.05, ge=0, le=0.2, description="Largest random move of a picture, in units of its side.")
        zoom: float = Field(0.1, ge=0, le=0.5, description="Largest random change of its size, as a share.")
        light: float = Field(0.4, ge=0, lt=1, description="Largest random change of contrast and brightness.")

    options: Options

    def forward(self, batch: Batch, output: SwapResult, swapper: Swapper) -> Tensor:
        """A scalar; 0 where a batch holds no right pair."""
        source, target = batch.source, batch.target
        views = self.views(torch.cat([source.image, target.image]))
        one, other = swapper.identity(Faces.of(views)).float().chunk(2)
        right = (source.person[:, None] == target.person) & (target.person >= 0)  # (B, B)
        right |= (source.index[:, None] == target.index) & (target.index >= 0)
        pairs = right.diagonal()
        if not pairs.any():
            return one.sum() * 0
        itself = torch.eye(len(one), dtype=torch.bool, device=one.device)
        logits = self.options.scale * (one @ other.T - self.options.margin * itself)
        logits = logits.masked_fill(right & ~itself, -torch.inf)  # other right answers are not wrong
        answers = torch.arange(len(one), device=one.device)
        found = [F.cross_entropy(each[pairs], answers[pairs]) for each in (logits, logits.T)]
        return torch.stack(found).mean()

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
