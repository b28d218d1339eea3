"""More base classes: closed-set generators, data set wrappers, landmark estimators, timm networks."""

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
    """Generates only people of its training data: the one whose mean embedding is nearest to the source's."""

    class Options(ComponentOptions):
        people: Annotated[int, Field(ge=1)] = Field(
            description="Number of people in the data; no others can be generated."
        )

    options: Options
    centres: Tensor  # (people, id_dim), unit length

    def __init__(self, options: Options, size: int, id_dim: int, att_channels: list[int]) -> None:
        super().__init__(options, size, id_dim, att_channels)
        self.register_buffer("centres", torch.zeros(options.people, id_dim))

    def enroll(self, z_id: Tensor, persons: Tensor) -> None:
        """Store each person's mean embedding. Raise UserError if people are unlabelled or their number is not `people`.

        Parameters
        ----------
        z_id:
            Embeddings (N, D) of all faces.
        persons:
            (N,) int64, the person's number of each face, from 0.
        """
        if bool((persons < 0).any()):
            raise UserError("the data have no labels of people; use data with a folder for each person")
        count = int(persons.max()) + 1
        if count != self.options.people:
            raise UserError(f"people is {self.options.people}, the data have {count}; set people to {count}")
        sums = torch.zeros_like(self.centres).index_add_(0, persons, z_id.to(self.centres))
        self.centres.copy_(F.normalize(sums, dim=1))

    def similarity(self, z_id: Tensor) -> Tensor:
        """Return the cosine similarity (B, people) of each embedding (B, D) to each person's mean."""
        return F.normalize(z_id.float(), dim=1) @ F.normalize(self.centres.float(), dim=1).T

    def supports(self, z_id: Tensor, identity: IdentityEncoder) -> Tensor:
        """Return which embeddings (B, D) match a person's mean: (B,) bool. Raises UserError without a threshold."""
        return self.similarity(z_id).amax(dim=1) >= identity.required_match_threshold()

    def by_person(self, z_id: Tensor, paint: Callable[[int, Tensor], Tensor]) -> Tensor:
        """Call `paint(person, rows)` for each person's rows (n,) and return the images in batch order (B, ...)."""
        people = self.people_of(z_id)
        painted = torch.cat([paint(person, rows) for person, rows in people])
        return painted[torch.cat([rows for _, rows in people]).argsort()]

    def people_of(self, z_id: Tensor) -> list[tuple[int, Tensor]]:
        """Return the people nearest to embeddings (B, D): each person's number and batch rows (n,).

        Tensors on the meta device have no values; there all rows are assigned to person 0.
        """
        rows = torch.arange(len(z_id), device=z_id.device)
        if z_id.is_meta:
            return [(0, rows)]
        nearest = self.similarity(z_id).argmax(dim=1)
        return [(person, rows[nearest == person]) for person in nearest.unique().tolist()]


class DatasetWrapper(Dataset):
    """Forwards every method to the data set `inner`; derived classes override some of them."""

    class Options(ComponentOptions):
        data: Annotated[Part, use("datasets")] | None = Field(
            None, description="The wrapped data set; null: the recipe's."
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
        """Return a sample of the inner data set."""
        return self.inner[index]

    @property
    def is_closed_set(self) -> bool:
        """Return whether the inner data set tests on people that it trains on."""
        return self.inner.is_closed_set

    def names(self) -> list[str]:
        """Return the names of the inner data set's samples, in order."""
        return self.inner.names()

    def people(self) -> list[str | None]:
        """Return the people of the inner data set's samples, in order."""
        return self.inner.people()

    def persons(self) -> np.ndarray:
        """Return the inner data set's person numbers (N,); those of `people` where a derived class overrides it."""
        return self.inner.persons() if type(self).people is DatasetWrapper.people else super().persons()

    def weights(self) -> np.ndarray | None:
        """Return the inner data set's frequencies of faces as training targets."""
        return self.inner.weights()

    def pairs(self) -> list[tuple[int, int]]:
        """Return the inner data set's own pairs of source and target indices."""
        return self.inner.pairs()

    def next_frame(self, index: int) -> int | None:
        """Return the index of the adjacent video frame in the inner data set."""
        return self.inner.next_frame(index)

    @property
    def is_reversible(self) -> bool:
        """Return whether the inner data set has reversed targets."""
        return self.inner.is_reversible

    def reversed_target(self, index: int, rng: np.random.Generator) -> Sample:
        """Return the sample with another person's face from the inner data set."""
        return self.inner.reversed_target(index, rng)

    def ground_truth_swap(self, source: int, target: int) -> Sample | None:
        """Return the ground truth of a swap from the inner data set."""
        return self.inner.ground_truth_swap(source, target)

    def expected(self, quantity: str, source: int, target: int) -> np.ndarray | None:
        """Return the true value of an estimator's quantity from the inner data set."""
        return self.inner.expected(quantity, source, target)

    def prepare(self, swapper: Swapper) -> dict[str, np.ndarray]:
        """Prepare the inner data set and return its state."""
        return self.inner.prepare(swapper)

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Restore the state of the inner data set."""
        self.inner.restore(state)


class LandmarkEstimator(Estimator):
    """Detects 68 landmarks by another estimator; derived classes compute their quantity from them."""

    class Options(ComponentOptions):
        landmarks: Annotated[Part, use("estimators")] = Field(
            default={"use": "dlib-landmarks"}, validate_default=True, description="Estimator of the 68 landmarks."
        )

    options: Options

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.landmarks: Estimator = options.landmarks.build_estimator("landmarks68", "landmarks")

    def load(self) -> None:
        """Load the landmark estimator."""
        self.landmarks.load()

    def points(self, faces: FaceBatch) -> np.ndarray:
        """Return the landmarks (B, 68, 2) float64 in crop pixels; NaN where detection failed."""
        landmarks: np.ndarray = self.landmarks(faces).double().cpu().numpy()
        return landmarks


def timm_network(backbone: str, **arguments: Any) -> Any:
    """Return a timm network with random weights.

    Parameters
    ----------
    backbone:
        A model name of timm, from the option `backbone`.
    arguments:
        Further arguments of `timm.create_model`.

    Raises
    ------
    UserError
        timm has no such model.
    """
    import timm  # takes a second, so components without a timm network do not import it

    if not timm.is_model(backbone):
        raise UserError(f"backbone: timm has no model {backbone}; see timm.list_models()")
    return timm.create_model(backbone, pretrained=False, **arguments)
