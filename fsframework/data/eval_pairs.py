"""Evaluation pairs: batches, CSV lists, and random draws."""

import csv
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from fsframework.core.components import Dataset
from fsframework.core.errors import UserError
from fsframework.core.types import Sample, SwapBatch
from fsframework.data.collate import collate_pairs, collate_pixels
from fsframework.utils.files import named, packed

COLUMNS = ["source", "target"]  # of a list of pairs


@dataclass(frozen=True)
class EvaluationPairs:
    """A list of pairs as batches, in order. Every iteration reads the images again.

    Targets are altered by `Dataset.target`, with randomness from the pair's index in the list. Where the data set has
    ground truths (`Dataset.ground_truth_swap`), they are `SwapBatch.ground_truth`, valid everywhere.
    """

    dataset: Dataset
    pairs: Sequence[tuple[int, int]]  # indices of source and target in the data set
    batch_size: int

    def __len__(self) -> int:
        """Return the number of batches, the last of which may be smaller."""
        return -(-len(self.pairs) // self.batch_size)

    def __iter__(self) -> Iterator[SwapBatch]:
        persons = self.dataset.persons()
        for start in range(0, len(self.pairs), self.batch_size):
            sources, targets = zip(*self.pairs[start : start + self.batch_size], strict=True)
            rngs = (np.random.default_rng(start + row) for row in range(len(targets)))
            samples = [self._target(*pair) for pair in zip(sources, targets, rngs, strict=True)]
            target = collate_pixels(samples, targets, persons)
            source_samples = [
                sample if source == target else self.dataset[source]
                for source, target, sample in zip(sources, targets, samples, strict=True)
            ]
            source = collate_pixels(source_samples, sources, persons)
            yield collate_pairs(source, target, samples).to_float()

    def _target(self, source: int, target: int, rng: np.random.Generator) -> Sample:
        """Return the altered target, with the ground truth of the swap where the data set has one."""
        sample, truth = self.dataset.target(target, rng), self.dataset.ground_truth_swap(source, target)
        if truth is None:
            return sample
        return replace(sample, ground_truth=truth.image, valid_mask=np.ones(truth.image.shape[:2], bool))


def pairs_file(where: str) -> Path:
    """Return the CSV file of a list of pairs, given its path or the name of a bundled list (`orl`).

    Raises
    ------
    UserError
        There is neither such a file nor such a list.
    """
    return named(where, packed("fsf_pairs", ".csv"), "list of pairs", "CSV")


def read_pairs(path: str | Path, dataset: Dataset) -> list[tuple[int, int]]:
    """Read a list of pairs and return their indices in a data set.

    Parameters
    ----------
    path:
        A CSV file with the columns `source` and `target`: names of samples, with or without a file's suffix, and in a
        mixture of data sets with or without the part's name.
    dataset:
        The data set of the samples.

    Raises
    ------
    UserError
        The file cannot be read, has other columns, has no pairs, or names a sample that is not in the data set.
    """
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file, strict=True)
            lines = [(rows.line_num, row) for row in rows if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be read: {reason}; give a CSV file in UTF-8") from error
    if not lines or lines[0][1] != COLUMNS:
        raise UserError(f"{path}: line 1: is not the header {','.join(COLUMNS)}; begin with it")
    if len(lines) == 1:
        raise UserError(f"{path}: has no pairs; add lines like NAME,NAME")
    indices = _indices(dataset)
    pairs = []
    for line, row in lines[1:]:
        if len(row) != len(COLUMNS):
            raise UserError(f"{path}: line {line}: has {len(row)} values; write {','.join(COLUMNS)}")
        if missing := [name for name in row if name not in indices]:
            raise UserError(
                f"{path}: line {line}: the data set has no face named {missing[0]}; "
                "use the data set of this list, or another list"
            )
        pairs.append((indices[row[0]], indices[row[1]]))
    return pairs


def _indices(dataset: Dataset) -> dict[str, int]:
    """Return the index of every name.

    Shorter forms are included where they are unique: names without their suffix, and both without the first
    of three levels or more, which in a mixture is the part.
    """
    names = dataset.names()
    stems = [str(PurePosixPath(name).with_suffix("")) if PurePosixPath(name).name else name for name in names]
    inner = [[name.partition("/")[2] for name in each] for each in (stems, names)]
    of_parts = [{name: index for name, index in _unique(each).items() if "/" in name} for each in inner]
    return of_parts[0] | of_parts[1] | _unique(stems) | {name: index for index, name in enumerate(names)}


def _unique(names: Sequence[str]) -> dict[str, int]:
    """Return the index of each name that occurs once."""
    counts = Counter(names)
    return {name: index for index, name in enumerate(names) if counts[name] == 1}


def pairs_text(pairs: Sequence[tuple[int, int]], dataset: Dataset) -> str:
    """Return pairs as CSV text, which `read_pairs` reads."""
    names = dataset.names()
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows((names[source], names[target]) for source, target in pairs)
    return text.getvalue()


def draw_pairs(dataset: Dataset, count: int, seed: int) -> list[tuple[int, int]]:
    """Return `count` random pairs of different people.

    Every person is a source, and a target, about equally often, and so is every image of a person. No pair repeats
    while the target's person has other images. An image of an unknown person counts as a person of its own.

    Raises
    ------
    UserError
        The data set has fewer than two people.
    """
    persons = dataset.persons()
    order = np.argsort(persons, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(persons[order])) + 1)
    if len(order) and persons[order[0]] == -1:
        groups = [*groups[1:], *groups[0][:, None]]
    if len(groups) < 2:
        problem = f"pairs need at least 2 people, the split has {len(groups)}"
        remedy = "hold out more for tests, such as by data.test_share=0.5, or add faces"
        raise UserError(f"evaluation.pairs: {problem}; {remedy}")
    rng = np.random.default_rng(seed)
    sources, targets = ([_shuffled_forever(group, rng) for group in groups] for _ in range(2))
    pairs: list[tuple[int, int]] = []
    drawn: set[tuple[int, int]] = set()
    while len(pairs) < count:
        # In a random cycle of all people each is the source of the next: everyone is source and target once.
        cycle = rng.permutation(len(groups))
        for one, other in zip(cycle, np.roll(cycle, -1), strict=True):
            source = next(sources[one])
            pair = source, next(targets[other])
            for _ in groups[other]:
                if pair not in drawn:
                    break
                pair = source, next(targets[other])
            drawn.add(pair)
            pairs.append(pair)
    return pairs[:count]


def same_identity_pairs(dataset: Dataset, targets: Sequence[int]) -> list[tuple[int, int]]:
    """Return pairs of each target and the next image of its person as source, or itself if it is the only one."""
    persons = dataset.persons()
    pairs = []
    for target in targets:
        same = np.flatnonzero(persons == persons[target]) if persons[target] >= 0 else np.array([target])
        position = int(np.flatnonzero(same == target)[0])
        pairs.append((int(same[(position + 1) % len(same)]), target))
    return pairs


def _shuffled_forever(group: np.ndarray, rng: np.random.Generator) -> Iterator[int]:
    """Yield the indices of a person's images without end, in a new random order each time all were used."""
    while True:
        yield from (int(index) for index in rng.permutation(group))
