"""Generators that paint only the people they were trained on, such as an autoencoder with a decoder for each person."""

from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from fsframework.core.components import ComponentOptions, Dataset, Estimator, Generator, IdentityEncoder
from fsframework.core.errors import UserError
from fsframework.core.part import Part, use
from fsframework.core.swapper import Swapper
from fsframework.core.types import FaceBatch, Sample


class ClosedSetGenerator(Generator):
    """Keeps the mean embedding of each person of the training data, and takes a source for the nearest of them."""

    class Options(ComponentOptions):
        people: Annotated[int, Field(ge=1)] = Field(description="How many people the data show; it paints no others.")

    options: Options
    centres: Tensor  # (people, id_dim), unit length

    def __init__(self, options: Options, size: int, id_dim: int, att_channels: list[int]) -> None:
        super().__init__(options, size, id_dim, att_channels)
        self.register_buffer("centres", torch.zeros(options.people, id_dim))

    def enroll(self, z_id: Tensor, persons: Tensor) -> None:
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

    def supports(self, z_id: Tensor, identity: IdentityEncoder) -> Tensor:
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


class DatasetWrapper(Dataset):
    """Passes everything on to the data set `inner`; derived classes change what they are for."""

    class Options(ComponentOptions):
        data: Annotated[Part, use("datasets")] | None = Field(
            None, description="The data set to wrap; null: the recipe's."
        )

    options: Options

    def __init__(self, options: Options, size: int, detector: Any, split: str) -> None:
        super().__init__(options, size, detector, split)
        if options.data is None:
            raise ValueError("there is no data set to wrap; name one as `data`")
        self.inner: Dataset = options.data.build(size, detector, split)

    def load(self) -> None:
        """Load the inner data set."""
        self.inner.load()

    def __len__(self) -> int:
        return len(self.inner)

    def __getitem__(self, index: int) -> Sample:
        """The inner data set's."""
        return self.inner[index]

    @property
    def is_closed_set(self) -> bool:
        """The inner data set's."""
        return self.inner.is_closed_set

    def names(self) -> list[str]:
        """The inner data set's."""
        return self.inner.names()

    def people(self) -> list[str | None]:
        """The inner data set's."""
        return self.inner.people()

    def persons(self) -> np.ndarray:
        """The inner data set's, unless `people` are others."""
        return self.inner.persons() if type(self).people is DatasetWrapper.people else super().persons()

    def pairs(self) -> list[tuple[int, int]]:
        """The inner data set's."""
        return self.inner.pairs()

    def next_frame(self, index: int) -> int | None:
        """The inner data set's."""
        return self.inner.next_frame(index)

    def ground_truth_swap(self, source: int, target: int) -> Sample | None:
        """The inner data set's."""
        return self.inner.ground_truth_swap(source, target)

    def expected(self, quantity: str, source: int, target: int) -> np.ndarray | None:
        """The inner data set's."""
        return self.inner.expected(quantity, source, target)

    def prepare(self, swapper: Swapper) -> dict[str, np.ndarray]:
        """The inner data set's."""
        return self.inner.prepare(swapper)

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Give it to the inner data set."""
        self.inner.restore(state)


class LandmarkEstimator(Estimator):
    """Has another estimator find the landmarks; derived classes say what follows from them."""

    class Options(ComponentOptions):
        landmarks: Annotated[Part, use("estimators")] = Field(
            default={"use": "dlib-landmarks"}, validate_default=True, description="Finds the 68 landmarks."
        )

    options: Options

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.landmarks: Estimator = options.landmarks.build_estimator("landmarks68", "landmarks")

    def load(self) -> None:
        """Load the landmarks' estimator."""
        self.landmarks.load()

    def points(self, faces: FaceBatch) -> np.ndarray:
        """The landmarks (B, 68, 2) float64 in crop pixels; NaN where none were found."""
        found: np.ndarray = self.landmarks(faces).double().cpu().numpy()
        return found


def timm_network(backbone: str, **arguments: Any) -> Any:
    """A network of timm's with random weights.

    Parameters
    ----------
    backbone:
        Its name in timm, as the option `backbone` has it.
    arguments:
        What `timm.create_model` is given besides.

    Raises
    ------
    UserError
        timm knows no such network.
    """
    import timm  # takes a second, which components without such a network need not wait

    if not timm.is_model(backbone):
        raise UserError(f"backbone: timm knows no {backbone}; see timm.list_models()")
    return timm.create_model(backbone, pretrained=False, **arguments)
