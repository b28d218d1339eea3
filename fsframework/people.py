"""Generators that paint only the people they were trained on, such as an autoencoder with a decoder for each person."""

from collections.abc import Callable
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from fsframework.components import ComponentOptions, Generator, IdentityEncoder
from fsframework.errors import UserError


class PeopleGenerator(Generator):
    """Keeps the mean embedding of each person of the training data, and takes a source for the nearest of them."""

    class Options(ComponentOptions):
        people: Annotated[int, Field(ge=1)] = Field(description="How many people the data show; it paints no others.")

    options: Options
    centres: Tensor  # (people, id_dim), unit length

    def __init__(self, options: Options, size: int, id_dim: int, att_channels: list[int]) -> None:
        super().__init__(options, size, id_dim, att_channels)
        self.register_buffer("centres", torch.zeros(options.people, id_dim))

    def enrol(self, z_id: Tensor, persons: Tensor) -> None:
        """Keep who is who. Raises UserError if the data show another number of people, or do not say whom."""
        if bool((persons < 0).any()):
            raise UserError("the data do not say who is who; use data with a folder for each person")
        count = int(persons.max()) + 1
        if count != self.options.people:
            raise UserError(f"people is {self.options.people}, the data show {count}; make them agree")
        sums = torch.zeros_like(self.centres).index_add_(0, persons, z_id.to(self.centres))
        self.centres.copy_(F.normalize(sums, dim=1))

    def likeness(self, z_id: Tensor) -> Tensor:
        """Cosine (B, people) of each embedding (B, D) to each person's mean."""
        return F.normalize(z_id.float(), dim=1) @ F.normalize(self.centres.float(), dim=1).T

    def knows(self, z_id: Tensor, identity: IdentityEncoder) -> Tensor:
        """Return which embeddings (B, D) match a person's mean: (B,) bool. Raises UserError without a threshold."""
        return self.likeness(z_id).amax(dim=1) >= identity.required_match_threshold()

    def by_person(self, z_id: Tensor, paint: Callable[[int, Tensor], Tensor]) -> Tensor:
        """What `paint` makes of each person, given the number and the rows (n,), in the order of the batch (B, ...)."""
        people = self.people_of(z_id)
        painted = torch.cat([paint(person, rows) for person, rows in people])
        return painted[torch.cat([rows for _, rows in people]).argsort()]

    def people_of(self, z_id: Tensor) -> list[tuple[int, Tensor]]:
        """The people nearest to embeddings (B, D): each person's number and the rows (n,) that are theirs.

        On the meta device, where nobody can be told apart, all rows are the first person's.
        """
        rows = torch.arange(len(z_id), device=z_id.device)
        if z_id.is_meta:
            return [(0, rows)]
        nearest = self.likeness(z_id).argmax(dim=1)
        return [(person, rows[nearest == person]) for person in nearest.unique().tolist()]
