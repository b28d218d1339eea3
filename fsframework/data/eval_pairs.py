"""Who is swapped with whom: people as numbers, samples as batches, and lists of pairs."""

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
    """A list of pairs as batches, in order. It can be walked many times; images are read at each walk.

    Targets are as the data set alters them (`Dataset.target`), with randomness from the pair's place in the list. Where
    the data set knows the right swaps (`Dataset.swapped`), they are `Batch.truth`, known everywhere.
    """

    dataset: Dataset
    pairs: Sequence[tuple[int, int]]  # places of source and target in the data set
    batch_size: int

    def __len__(self) -> int:
        """Batches, the last of which may be smaller."""
        return -(-len(self.pairs) // self.batch_size)

    def __iter__(self) -> Iterator[SwapBatch]:
        persons = self.dataset.persons()
        for start in range(0, len(self.pairs), self.batch_size):
            sources, targets = zip(*self.pairs[start : start + self.batch_size], strict=True)
            rngs = (np.random.default_rng(start + row) for row in range(len(targets)))
            samples = [self._target(*each) for each in zip(sources, targets, rngs, strict=True)]
            target = collate_pixels(samples, targets, persons)
            alone = [
                sample if source == target else self.dataset[source]
                for source, target, sample in zip(sources, targets, samples, strict=True)
            ]
            source = collate_pixels(alone, sources, persons)
            yield collate_pairs(source, target, samples).to_float()

    def _target(self, source: int, target: int, rng: np.random.Generator) -> Sample:
        """A target as it is shown, with the right swap where the data set knows it."""
        sample, right = self.dataset.target(target, rng), self.dataset.ground_truth_swap(source, target)
        if right is None:
            return sample
        return replace(sample, ground_truth=right.image, valid_mask=np.ones(right.image.shape[:2], bool))


def pairs_file(where: str) -> Path:
    """The CSV file of a list of pairs: a path, or the name of a list that comes with the framework (`orl`).

    Raises
    ------
    UserError
        There is neither such a file nor such a list.
    """
    return named(where, packed("fsf_pairs", ".csv"), "list of pairs", "CSV")


def read_pairs(path: str | Path, dataset: Dataset) -> list[tuple[int, int]]:
    """A list of pairs as places in a data set.

    Parameters
    ----------
    path:
        A CSV file with the columns `source` and `target`: names of samples, which may leave out a file's suffix.
    dataset:
        Where they are looked up.

    Raises
    ------
    UserError
        The file cannot be read, has other columns, holds no pair, or names a sample that the data set lacks.
    """
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file, strict=True)
            lines = [(rows.line_num, row) for row in rows if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be read: {reason}; give a CSV file in UTF-8") from error
    if not lines or lines[0][1] != COLUMNS:
        raise UserError(f"{path}: line 1: is not the heading {','.join(COLUMNS)}; begin with it")
    if len(lines) == 1:
        raise UserError(f"{path}: holds no pairs; add lines like NAME,NAME")
    places = _places(dataset)
    pairs = []
    for line, row in lines[1:]:
        if len(row) != len(COLUMNS):
            raise UserError(f"{path}: line {line}: has {len(row)} values; write {','.join(COLUMNS)}")
        if missing := [name for name in row if name not in places]:
            raise UserError(
                f"{path}: line {line}: the data set has no face called {missing[0]}; "
                "use the data that this list was made for, or another list"
            )
        pairs.append((places[row[0]], places[row[1]]))
    return pairs


def _places(dataset: Dataset) -> dict[str, int]:
    """Where every name is, and every name without its suffix where only one sample is called so."""
    names = dataset.names()
    stems = [str(PurePosixPath(name).with_suffix("")) if PurePosixPath(name).name else name for name in names]
    times = Counter(stems)
    short = {stem: place for place, stem in enumerate(stems) if times[stem] == 1}
    return short | {name: place for place, name in enumerate(names)}


def pairs_text(pairs: Sequence[tuple[int, int]], dataset: Dataset) -> str:
    """What a CSV file that `read_pairs` reads holds."""
    names = dataset.names()
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows((names[source], names[target]) for source, target in pairs)
    return text.getvalue()


def draw_pairs(dataset: Dataset, count: int, seed: int) -> list[tuple[int, int]]:
    """Pairs of different people, drawn at random from a seed.

    Every person is a source, and a target, about equally often, and so is every picture of a person. No pair comes
    twice while the target's person has other pictures. A picture of an unknown person counts as a person of its own.

    Raises
    ------
    UserError
        The data set shows fewer than two people.
    """
    persons = dataset.persons()
    order = np.argsort(persons, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(persons[order])) + 1)
    if len(order) and persons[order[0]] == -1:
        groups = [*groups[1:], *groups[0][:, None]]
    if len(groups) < 2:
        raise UserError(f"evaluation.pairs: pairs need at least 2 people, the data set shows {len(groups)}; add faces")
    rng = np.random.default_rng(seed)
    sources, targets = ([_turns(group, rng) for group in groups] for _ in range(2))
    pairs: list[tuple[int, int]] = []
    drawn: set[tuple[int, int]] = set()
    while len(pairs) < count:
        # In a random circle of all people each is the source of the next: everyone is both, once, and never alone.
        circle = rng.permutation(len(groups))
        for one, other in zip(circle, np.roll(circle, -1), strict=True):
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
    """Pairs of each target and another picture of its person, the next one in turn; with itself where there is none."""
    persons = dataset.persons()
    pairs = []
    for target in targets:
        same = np.flatnonzero(persons == persons[target]) if persons[target] >= 0 else np.array([target])
        place = int(np.flatnonzero(same == target)[0])
        pairs.append((int(same[(place + 1) % len(same)]), target))
    return pairs


def _turns(group: np.ndarray, rng: np.random.Generator) -> Iterator[int]:
    """The places of a person's pictures for ever, each once before any comes again."""
    while True:
        yield from (int(place) for place in rng.permutation(group))
