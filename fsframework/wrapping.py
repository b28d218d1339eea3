"""Data sets that stand before another one."""

from typing import Annotated, Any

import numpy as np
from pydantic import Field

from fsframework.components import ComponentOptions, Dataset, Swapper
from fsframework.plugins import Part, use
from fsframework.types import Sample


class Wrapping(Dataset):
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
    def seen(self) -> bool:
        """The inner data set's."""
        return self.inner.seen

    def names(self) -> list[str]:
        """The inner data set's."""
        return self.inner.names()

    def people(self) -> list[str | None]:
        """The inner data set's."""
        return self.inner.people()

    def persons(self) -> np.ndarray:
        """The inner data set's, unless `people` are others."""
        return self.inner.persons() if type(self).people is Wrapping.people else super().persons()

    def pairs(self) -> list[tuple[int, int]]:
        """The inner data set's."""
        return self.inner.pairs()

    def neighbour(self, index: int) -> int | None:
        """The inner data set's."""
        return self.inner.neighbour(index)

    def swapped(self, source: int, target: int) -> Sample | None:
        """The inner data set's."""
        return self.inner.swapped(source, target)

    def expected(self, quantity: str, source: int, target: int) -> np.ndarray | None:
        """The inner data set's."""
        return self.inner.expected(quantity, source, target)

    def prepare(self, swapper: Swapper) -> dict[str, np.ndarray]:
        """The inner data set's."""
        return self.inner.prepare(swapper)

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Give it to the inner data set."""
        self.inner.restore(state)
