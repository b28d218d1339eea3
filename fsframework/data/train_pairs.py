"""Training pairs: sample number n of a stage is the same whoever computes it, whenever, in whichever order.

Everything random about a pair follows from (seed, stage, n), so it depends neither on the number of workers nor on
where a run was interrupted.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple, TypeVar

import numpy as np
from torch.utils.data import Dataset as TorchDataset

from fsframework.core.components import Dataset
from fsframework.core.errors import UserError
from fsframework.core.types import FaceBatch, Sample
from fsframework.data.collate import SwapPixels, collate, collate_pairs, collate_pixels
from fsframework.media.tensor import grey
from fsframework.recipe.schema import Pairs

T = TypeVar("T")
ATTEMPTS = 20  # to draw a source who is somebody else, before anybody will do


class Pair(NamedTuple):
    """One training pair, before batching."""

    source: Sample
    source_index: int
    target: Sample
    target_index: int


class TrainingPairs(TorchDataset[Pair]):
    """Pairs by number. Every face is a target once an epoch; its source is drawn.

    Parameters
    ----------
    dataset:
        The faces.
    pairs:
        The recipe's shares of same pictures and same people, and how targets are altered by chance.
    seed:
        Of the run and the stage: [seed, place of the stage].
    plain:
        Whether a source is the picture as it is also where it is the target's own, which may be altered: for those who
        embed sources from the batch.
    """

    def __init__(self, dataset: Dataset, pairs: Pairs, seed: Sequence[int], plain: bool = False) -> None:
        self.dataset = dataset
        self.plain = plain
        self.pairs = pairs
        self.seed = list(seed)
        self.persons = dataset.persons()
        self._by_person = np.argsort(self.persons, kind="stable")  # (N,) places, one person's behind another's
        first = np.arange(-1, self.persons.max(initial=-1) + 2)
        self._starts = np.searchsorted(self.persons[self._by_person], first)  # of person p at p + 1
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)

    def __getitem__(self, number: int) -> Pair:
        epoch, place = divmod(number, len(self.dataset))
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = np.random.default_rng([*self.seed, 0, epoch]).permutation(len(self.dataset))
        target_index = int(self._order[place])
        rng = np.random.default_rng([*self.seed, 1, number])
        source_index = self._draw_source(target_index, rng)
        target = self.dataset.target(target_index, rng)
        if self.pairs.mirror and rng.random() < 0.5:
            target = mirrored(target)
        if self.pairs.grey > 0 and rng.random() < self.pairs.grey:
            truth = None if target.ground_truth is None else grey(target.ground_truth)
            target = replace(target, image=grey(target.image), ground_truth=truth)
        own = source_index == target_index and not self.plain
        source = target if own else self.dataset[source_index]
        return Pair(source, source_index, target, target_index)

    def _draw_source(self, target: int, rng: np.random.Generator) -> int:
        kind = rng.random()
        if kind < self.pairs.same:
            return target
        person = self.persons[target]
        if kind < self.pairs.same + self.pairs.same_person and person >= 0:
            others = self._by_person[self._starts[person + 1] : self._starts[person + 2]]
            others = others[others != target]
            if len(others):
                return int(rng.choice(others))
        source = target
        for _ in range(ATTEMPTS):
            source = int(rng.integers(len(self.dataset)))
            if source != target and (person < 0 or self.persons[source] != person):
                break
        return source

    def batch(self, pairs: list[Pair]) -> SwapPixels:
        """Return pairs as a batch of bytes."""
        targets = [pair.target for pair in pairs]
        source = collate_pixels([pair.source for pair in pairs], [pair.source_index for pair in pairs], self.persons)
        target = collate_pixels(targets, [pair.target_index for pair in pairs], self.persons)
        return collate_pairs(source, target, targets)


class NumberedFaces(TorchDataset[tuple[int, Sample]]):
    """Every face once, in order, with its number."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.persons = dataset.persons()

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, number: int) -> tuple[int, Sample]:
        return number, self.dataset[number]

    def batch(self, faces: list[tuple[int, Sample]]) -> FaceBatch:
        """Faces as networks take them."""
        numbers, samples = zip(*faces, strict=True)
        return collate(samples, numbers, self.persons)


def mirrored(sample: Sample) -> Sample:
    """The sample seen in a mirror. Left and right landmarks change places, so that viewer's left stays first."""
    landmarks = sample.landmarks[[1, 0, 2, 4, 3]].copy()
    landmarks[:, 0] = sample.image.shape[1] - 1 - landmarks[:, 0]
    known = None if sample.valid_mask is None else sample.valid_mask[:, ::-1].copy()
    truth = None if sample.ground_truth is None else sample.ground_truth[:, ::-1].copy()
    return Sample(sample.image[:, ::-1].copy(), sample.name, sample.person, landmarks, known, truth)


def next_batch(batches: Iterator[T]) -> T:
    """A loader's next batch. What is wrong with data is said in one line, also by another process that reads them."""
    try:
        return next(batches)
    except UserError as error:
        raise UserError(str(error).rstrip().rpartition(f"{UserError.__name__}: ")[2]) from None
