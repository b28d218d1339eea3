"""Training pairs: pair number n of a stage is deterministic.

The randomness of a pair depends on (seed, stage, n) alone: not on the number of workers, the order of access or
interruptions of a run.
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
ATTEMPTS = 20  # to draw a source of another person, before any source is accepted


class Pair(NamedTuple):
    """One training pair, before batching."""

    source: Sample
    source_index: int
    target: Sample
    target_index: int
    reversed: bool = False  # the target is a swap, and its ground truth the source's person


class TrainingPairs(TorchDataset[Pair]):
    """Pairs by number. Every face is a target once in each epoch, with a random source.

    `Dataset.weights` changes how often a face is a target; the epoch's length stays the number of faces.

    Parameters
    ----------
    dataset:
        The faces.
    pairs:
        The recipe's fractions of same-image, same-person and reversed pairs, and the random augmentation of targets.
    seed:
        [seed of the run, index of the stage].
    plain:
        Whether the source of a same-image pair is the unaltered image. Otherwise it is the altered target. Needed
        where sources are embedded from the batch.
    """

    def __init__(self, dataset: Dataset, pairs: Pairs, seed: Sequence[int], plain: bool = False) -> None:
        self.dataset = dataset
        self.plain = plain
        self.pairs = pairs
        self.seed = list(seed)
        self.persons = dataset.persons()
        self._by_person = np.argsort(self.persons, kind="stable")  # (N,) indices, grouped by person
        first = np.arange(-1, self.persons.max(initial=-1) + 2)
        self._starts = np.searchsorted(self.persons[self._by_person], first)  # the group of person p begins at [p + 1]
        self._weights = _checked(dataset.weights(), len(dataset))
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)

    def __getitem__(self, number: int) -> Pair:
        epoch, position = divmod(number, len(self.dataset))
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = target_order(len(self.dataset), self._weights, np.random.default_rng([*self.seed, 0, epoch]))
        target_index = int(self._order[position])
        rng = np.random.default_rng([*self.seed, 1, number])
        source_index, is_reversed = self._draw_source(target_index, rng)
        altered = self.dataset.reversed_target if is_reversed else self.dataset.target
        target = altered(target_index, rng)
        if self.pairs.mirror and rng.random() < 0.5:
            target = mirrored(target)
        if self.pairs.grey > 0 and rng.random() < self.pairs.grey:
            truth = None if target.ground_truth is None else grey(target.ground_truth)
            target = replace(target, image=grey(target.image), ground_truth=truth)
        reuse_target = source_index == target_index and not self.plain and not is_reversed
        source = target if reuse_target else self.dataset[source_index]
        return Pair(source, source_index, target, target_index, is_reversed)

    def _draw_source(self, target: int, rng: np.random.Generator) -> tuple[int, bool]:
        """Return the index of a source, and whether the pair is reversed."""
        same, same_person = self.pairs.same, self.pairs.same + self.pairs.same_person
        kind = rng.random()
        if kind < same:
            return target, False
        person = self.persons[target]
        is_reversed = same_person <= kind < same_person + self.pairs.reversed
        if (kind < same_person or is_reversed) and person >= 0:
            others = self._by_person[self._starts[person + 1] : self._starts[person + 2]]
            others = others[others != target]
            if len(others):
                return int(rng.choice(others)), is_reversed
        if is_reversed:
            return target, True
        return draw_stranger(self.persons, target, rng), False

    def batch(self, pairs: list[Pair]) -> SwapPixels:
        """Return pairs as a uint8 batch."""
        targets = [pair.target for pair in pairs]
        source = collate_pixels([pair.source for pair in pairs], [pair.source_index for pair in pairs], self.persons)
        target = collate_pixels(targets, [pair.target_index for pair in pairs], self.persons)
        # In every batch of such a stage, so that a recorded step has one layout.
        reversed_pairs = [pair.reversed for pair in pairs] if self.pairs.reversed > 0 else None
        return collate_pairs(source, target, targets, reversed_pairs)


class NumberedFaces(TorchDataset[tuple[int, Sample]]):
    """Every face once, in order, with its index."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.persons = dataset.persons()

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, number: int) -> tuple[int, Sample]:
        return number, self.dataset[number]

    def batch(self, faces: list[tuple[int, Sample]]) -> FaceBatch:
        """Return numbered faces as a float batch."""
        numbers, samples = zip(*faces, strict=True)
        return collate(samples, numbers, self.persons)


def draw_stranger(persons: np.ndarray, target: int, rng: np.random.Generator) -> int:
    """Return the index of a random face of another person, or of any face after `ATTEMPTS` draws.

    Parameters
    ----------
    persons:
        (N,) int64, the person of each face; -1 where unknown.
    target:
        Index of the face whose person is excluded.
    rng:
        Source of all randomness.
    """
    source = target
    for _ in range(ATTEMPTS):
        source = int(rng.integers(len(persons)))
        if source != target and (persons[target] < 0 or persons[source] != persons[target]):
            break
    return source


def target_order(count: int, weights: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    """Return an epoch's targets (N,) int64: the indices of N faces in random order, each as often as its weight says.

    Systematic sampling: face i occurs N * w_i / sum(w) times, rounded up or down at random. As faces of equal weight
    are neighbours in the sampled sequence, the number of targets of all of them together is exact to one.

    Parameters
    ----------
    count:
        N.
    weights:
        (N,) relative frequencies; None: every face occurs once.
    rng:
        Source of all randomness.
    """
    if weights is None:
        return rng.permutation(count)
    order = np.lexsort((rng.random(count), weights))  # by weight, and faces of equal weight in random order
    ends = np.cumsum(weights[order])
    last = np.floor(ends * (count / ends[-1]) + rng.random()).astype(np.int64)
    last[-1] = count  # rounding may give one more or less
    chosen = np.repeat(order, np.diff(np.minimum(last, count), prepend=0))
    return rng.permutation(chosen)


def _checked(weights: np.ndarray | None, count: int) -> np.ndarray | None:
    """Return a data set's weights. Raise ValueError unless they are a number, 0 or more, for each of `count` faces."""
    if weights is None:
        return None
    weights = np.asarray(weights, np.float64)
    if weights.shape != (count,) or not np.isfinite(weights).all() or (weights < 0).any() or not weights.any():
        raise ValueError(f"Dataset.weights must return {count} finite numbers from 0, not all 0, or None")
    return weights


def mirrored(sample: Sample) -> Sample:
    """Return a sample flipped left to right, with left and right landmarks exchanged."""
    landmarks = sample.landmarks[[1, 0, 2, 4, 3]].copy()
    landmarks[:, 0] = sample.image.shape[1] - 1 - landmarks[:, 0]
    valid_mask = None if sample.valid_mask is None else sample.valid_mask[:, ::-1].copy()
    truth = None if sample.ground_truth is None else sample.ground_truth[:, ::-1].copy()
    return Sample(sample.image[:, ::-1].copy(), sample.name, sample.person, landmarks, valid_mask, truth)


def next_batch(batches: Iterator[T]) -> T:
    """Return a loader's next batch. Raise UserErrors of loader processes with their one line, without the traceback."""
    try:
        return next(batches)
    except UserError as error:
        raise UserError(str(error).rstrip().rpartition(f"{UserError.__name__}: ")[2]) from None
