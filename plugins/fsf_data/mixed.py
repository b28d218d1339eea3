"""Dataset that mixes others, each with its share of the training targets."""

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
from pydantic import Field, model_validator

from fsframework.core.components import ComponentOptions, Dataset
from fsframework.core.errors import EmptySplitError
from fsframework.core.part import Part, parts, use
from fsframework.core.swapper import Swapper
from fsframework.core.types import Sample
from fsframework.utils.weights import below

PLACES = ("root", "test_root")  # options with the location of a dataset's images


class MixedPart(ComponentOptions):
    """A dataset of a mixture, and its share."""

    data: Annotated[Part, use("datasets")] = Field(description="The dataset.")
    share: float = Field(1.0, gt=0, description="Share of the training targets, relative to those of other parts.")


PartName = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]


class Mixed(Dataset):
    """Several datasets as one, each with a share of the training targets and with people of its own.

    In an epoch, which has as many targets as there are faces, every part gets its share. Faces of a small part are
    then targets several times, and those of a large part are drawn anew in every epoch. Sources are drawn uniformly
    from all faces.

    Names and people begin with the part's name, so that person 0001 of two parts are two people. The test split is the
    union of the parts' test splits. There a part without test people, such as one with `test_share: 0`, is omitted.
    """

    name = "mixed"

    class Options(ComponentOptions):
        parts: dict[PartName, MixedPart] = Field(
            description="The datasets by name: {NAME: {data: {use: ...}, share: NUMBER}, ...}. Shares are relative: 1 "
            "and 3 are a quarter and three quarters."
        )

        @model_validator(mode="after")
        def _are_different(self) -> Self:
            """Raise ValueError without parts, or if two read the same images: their people would count as different."""
            if not self.parts:
                raise ValueError("parts names no dataset; name one at least")
            for (one, first), (other, second) in combinations(self.parts.items(), 2):
                if first.data.dump() == second.data.dump():
                    raise ValueError(f"{one} and {other} are the same dataset; remove one, and increase the share")
                if shared := _places(first.data) & _places(second.data):
                    raise ValueError(f"{one} and {other} both read {min(shared)}; each needs images of its own")
            return self

    options: Options

    def __init__(self, options: Options, size: int, detector: Any, split: str) -> None:
        super().__init__(options, size, detector, split)
        self.parts: dict[str, Dataset] = {
            name: part.data.build(size, detector, split) for name, part in options.parts.items()
        }

    def load(self) -> None:
        """Load all parts.

        Raises
        ------
        UserError
            A part cannot be loaded, or is empty in another split than test; or all are empty.
        """
        empty: list[EmptySplitError] = []
        for name, data in list(self.parts.items()):
            try:
                data.load()
            except EmptySplitError as error:
                if self.split != "test":
                    raise
                empty.append(error)
                del self.parts[name]
        if not self.parts:
            raise empty[0]
        self._names = list(self.parts)
        self._inner = list(self.parts.values())

    @property
    def _ends(self) -> np.ndarray:
        """Return the index behind each part's last face; preparing a part may change its length."""
        return np.cumsum([len(data) for data in self._inner])

    def _locate(self, index: int) -> tuple[int, int]:
        """Return the number of the part that holds a face, and the index in the part."""
        ends = self._ends
        if not 0 <= index < ends[-1]:
            raise IndexError(index)
        part = int(np.searchsorted(ends, index, side="right"))
        return part, index - int(ends[part] - len(self._inner[part]))

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Sample:
        part, inner = self._locate(index)
        return self._named(part, self._inner[part][inner])

    def target(self, index: int, rng: np.random.Generator) -> Sample:
        """Return the face at `index` as a training target of its part."""
        part, inner = self._locate(index)
        return self._named(part, self._inner[part].target(inner, rng))

    def _named(self, part: int, sample: Sample) -> Sample:
        """Return a part's sample with the part's name before its own name and its person."""
        name = self._names[part]
        person = None if sample.person is None else f"{name}/{sample.person}"
        return replace(sample, name=f"{name}/{sample.name}", person=person)

    @property
    def is_closed_set(self) -> bool:
        """Return whether a part tests on people that it trains on."""
        return any(data.is_closed_set for data in self.parts.values())

    def names(self) -> list[str]:
        return [f"{part}/{name}" for part, data in self.parts.items() for name in data.names()]

    def people(self) -> list[str | None]:
        return [
            None if person is None else f"{part}/{person}"
            for part, data in self.parts.items()
            for person in data.people()
        ]

    def persons(self) -> np.ndarray:
        """Return the person of every face (N,) int64; numbers of a part begin behind those of the part before it."""
        result, first = [], 0
        for data in self._inner:
            persons = data.persons()
            result.append(np.where(persons < 0, -1, persons + first))
            first += int(persons.max(initial=-1)) + 1
        return np.concatenate(result)

    def weights(self) -> np.ndarray | None:
        """Return the frequency of every face as a target (N,): a part's share over its faces; None for one part."""
        if len(self._inner) == 1:
            return self._inner[0].weights()
        result, total = [], sum(self.options.parts[name].share for name in self.parts)
        for name, data in self.parts.items():
            weights = data.weights()
            weights = np.ones(len(data)) if weights is None else np.asarray(weights, np.float64)
            result.append(weights * (self.options.parts[name].share / total / weights.sum()))
        return np.concatenate(result)

    def pairs(self) -> list[tuple[int, int]]:
        """Return the parts' own pairs."""
        starts = self._ends - [len(data) for data in self._inner]
        return [
            (start + source, start + target)
            for start, data in zip(starts.tolist(), self._inner, strict=True)
            for source, target in data.pairs()
        ]

    def next_frame(self, index: int) -> int | None:
        """Return the index of the adjacent video frame in the same part."""
        part, inner = self._locate(index)
        frame = self._inner[part].next_frame(inner)
        return None if frame is None else index - inner + frame

    def ground_truth_swap(self, source: int, target: int) -> Sample | None:
        """Return the ground truth of a swap within a part; None between parts."""
        truth = self._of_both(source, target, lambda data, *indices: data.ground_truth_swap(*indices))
        return None if truth is None else self._named(self._locate(target)[0], truth)

    def expected(self, quantity: str, source: int, target: int) -> np.ndarray | None:
        """Return the true value of an estimator's quantity within a part; None between parts."""
        value: np.ndarray | None = self._of_both(
            source, target, lambda data, *indices: data.expected(quantity, *indices)
        )
        return value

    def _of_both(self, source: int, target: int, ask: Callable[[Dataset, int, int], Any]) -> Any:
        """Return the value of `ask` for the part that holds both faces; None if they are in two parts."""
        (part, one), (other, two) = self._locate(source), self._locate(target)
        return ask(self._inner[part], one, two) if part == other else None

    def prepare(self, swapper: Swapper) -> dict[str, np.ndarray]:
        """Prepare every part and return their states; keys begin with the part's name."""
        return {
            f"{name}.{key}": value for name, data in self.parts.items() for key, value in data.prepare(swapper).items()
        }

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Restore the state of every part."""
        for name, data in self.parts.items():
            data.restore(below(name, state))


def _places(data: Part) -> set[Path]:
    """Return the locations of a dataset's images, at any depth."""
    values = (getattr(part.options, option, None) for part in parts(data) for option in PLACES)
    return {value.expanduser().resolve() for value in values if isinstance(value, Path)}
