"""The contracts of datasets and benchmarks."""

import pickle
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fsframework.core.bases import DatasetWrapper
from fsframework.core.components import Dataset, MetricInfo
from fsframework.core.part import part
from fsframework.core.types import Sample, SwapResult
from fsframework.data.samples import SIZE, FewFaces
from fsframework.testing.checks import COMPONENT, same
from fsframework.testing.samples import PAIRS, batch_of
from fsframework.testing.subject import Check, Subject

CHECKED_FACES = 4  # faces of a dataset that are read; all faces of a large one would take too long


class DatasetSubject(Subject):
    """A dataset in each of its splits; a `DatasetWrapper` without the option `data` wraps `orl`."""

    kind = "datasets"
    signature = ("size", "detector", "split")

    def __init__(self, cls: type[Any], options: Any, networks: Any, split: str = "all") -> None:
        wraps = issubclass(cls, DatasetWrapper) and "data" not in options
        super().__init__(cls, {**options, "data": {"use": "orl"}} if wraps else options, networks)
        self.split = split

    def arguments(self) -> tuple[Any, ...]:
        """Return the crop size, the detector and the split."""
        return SIZE, part("detectors", "mtcnn"), self.split

    @cached_property
    def splits(self) -> dict[str, Any]:
        """Return the loaded dataset of each split. An empty split may raise ContractError."""
        datasets = {}
        for split in ("train", "test", "all"):
            datasets[split] = type(self)(self.cls, self.given, self.networks, split).loaded()
        return datasets

    @property
    def indices(self) -> range:
        """Return the indices of the faces to check."""
        return range(min(CHECKED_FACES, len(self.component)))


def holds_faces(subject: Subject) -> None:
    """Check that the dataset has a length, and returns samples of the right size."""
    assert isinstance(subject, DatasetSubject)
    with subject.running("len()"):
        count = len(subject.component)
    if count < 1:
        raise subject.broken("the dataset must hold faces", "its length is 0")
    for index in subject.indices:
        with subject.running(f"[{index}]"):
            _check_sample(subject, subject.component[index], f"[{index}]")


def _check_sample(subject: Subject, sample: Any, what: str) -> None:
    if not isinstance(sample, Sample):
        raise subject.broken(f"{what} must be a Sample", f"it is a {type(sample).__name__}")
    image = sample.image
    if not isinstance(image, np.ndarray) or image.shape != (SIZE, SIZE, 3) or image.dtype != np.uint8:
        actual = f"{image.shape} {image.dtype}" if isinstance(image, np.ndarray) else type(image).__name__
        raise subject.broken(f"the image of {what} must be ({SIZE}, {SIZE}, 3) uint8 at size {SIZE}", f"it is {actual}")
    points = np.asarray(sample.landmarks)
    if points.shape != (5, 2):
        raise subject.broken(f"the landmarks of {what} must be (5, 2), in crop pixels", f"they are {points.shape}")
    if not (points[0, 0] < points[1, 0] and points[3, 0] < points[4, 0]):
        raise subject.broken(
            f"the landmarks of {what} must be eye, eye, nose, mouth corner, mouth corner, the viewer's left first",
            f"they are {points.round().tolist()}",
        )


def repeats(subject: Subject) -> None:
    """Check that an index returns the same face on every call and instance, and `target` depends on `rng` only."""
    assert isinstance(subject, DatasetSubject)
    one, other = subject.component, subject.loaded()
    for index in subject.indices:
        first, again = one[index], other[index]
        if first.name != again.name or not np.array_equal(first.image, again.image):
            raise subject.broken("an index must return the same face on every call", f"[{index}] differs")
        with subject.running(f"target({index}, rng)"):
            targets = [dataset.target(index, np.random.default_rng(7)) for dataset in (one, other)]
        _check_sample(subject, targets[0], f"target({index}, rng)")
        if not np.array_equal(targets[0].image, targets[1].image):
            raise subject.broken(
                "target(index, rng) must take all randomness from rng, so that runs resume exactly",
                f"target({index}, rng) returns different images for two equal generators",
            )


def names_match(subject: Subject) -> None:
    """Check that names are unique, match the samples, and people() and persons() agree."""
    assert isinstance(subject, DatasetSubject)
    data = subject.component
    with subject.running("names() and people()"):
        names, people = data.names(), data.people()
    for what, values in (("names", names), ("people", people)):
        if len(values) != len(data):
            raise subject.broken(f"{what}() must have an entry for each face", f"{len(values)} for {len(data)} faces")
    with subject.running("persons()"):
        persons = data.persons()
    if persons.tolist() != Dataset.persons(data).tolist():
        raise subject.broken(
            "persons() must number people() by their first appearance, -1 where unknown",
            f"it returns {persons.tolist()}",
        )
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise subject.broken("names must be unique in the dataset", f"{twice} occurs twice")
    for index in subject.indices:
        sample = data[index]
        if (sample.name, sample.person) != (names[index], people[index]):
            raise subject.broken(
                "names() and people() must match the samples",
                f"[{index}] is {sample.name} of {sample.person}, and they return {names[index]} of {people[index]}",
            )


def splits_are_disjoint(subject: Subject) -> None:
    """Check that train and test share no person, unless `is_closed_set`, and `all` is their union."""
    assert isinstance(subject, DatasetSubject)
    names = {split: data.names() for split, data in subject.splits.items()}
    both = set(names["train"]) & set(names["test"])
    if both:
        raise subject.broken("no image may be in both splits, train and test", f"{min(both)} is in both")
    if set(names["train"]) | set(names["test"]) != set(names["all"]):
        raise subject.broken("the split all must be the union of train and test", "it is not")
    people = {
        split: {person for person in data.people() if person is not None} for split, data in subject.splits.items()
    }
    if (shared := people["train"] & people["test"]) and not subject.splits["test"].is_closed_set:
        raise subject.broken("no person may be in both splits, train and test", f"{min(shared)} is in both")


def weights_fit(subject: Subject) -> None:
    """Check that frequencies by `weights` are None, or a number from 0 for each face, not all of them 0."""
    assert isinstance(subject, DatasetSubject)
    with subject.running("weights()"):
        weights = subject.component.weights()
    if weights is None:
        return
    contract = "weights() must return None, or (N,) finite numbers from 0, not all 0"
    if not isinstance(weights, np.ndarray) or weights.shape != (len(subject.component),):
        actual = f"{weights.shape}" if isinstance(weights, np.ndarray) else type(weights).__name__
        raise subject.broken(contract, f"it returns {actual} for {len(subject.component)} faces")
    if not np.isfinite(weights).all() or (weights < 0).any() or not weights.any():
        raise subject.broken(contract, f"it returns {weights.min()} to {weights.max()}")


def can_be_pickled(subject: Subject) -> None:
    """Check that the dataset can be pickled for worker processes."""
    with subject.running("pickling it (pickle.dumps) for worker processes"):
        pickle.dumps(subject.component)


def prepares(subject: Subject) -> None:
    """Check that `prepare` returns arrays, and `restore` transfers its result to another instance."""
    assert isinstance(subject, DatasetSubject)
    first, other = subject.loaded(), subject.loaded()
    with torch.no_grad(), subject.running("prepare(swapper)"):
        state = first.prepare(subject.swapper())
    if not isinstance(state, dict) or not all(isinstance(value, np.ndarray) for value in state.values()):
        raise subject.broken("prepare must return a dict of arrays, which the run stores", f"it returns {state!r}")
    with subject.running("restore(prepared)"):
        first.restore(state)
        other.restore(state)
        one, two = (instance.target(0, np.random.default_rng(3)) for instance in (first, other))
    if not np.array_equal(one.image, two.image):
        raise subject.broken(
            "restore must transfer the result of prepare to another process",
            "an instance that restored it returns other targets",
        )


def reverses(subject: Subject) -> None:
    """Check that a dataset that `is_reversible` returns reversed targets: other images, whose ground truth is its own.

    Other instances return equal ones after `restore`.
    """
    assert isinstance(subject, DatasetSubject)
    if not subject.component.is_reversible:
        return
    first, other = subject.loaded(), subject.loaded()
    with torch.no_grad(), subject.running("prepare(swapper)"):
        state = first.prepare(subject.swapper())
    for instance in (first, other):
        instance.restore(state)
    for index in subject.indices:
        what = f"reversed_target({index}, rng)"
        with subject.running(what):
            one, two = (instance.reversed_target(index, np.random.default_rng(5)) for instance in (first, other))
        _check_sample(subject, one, what)
        if not np.array_equal(one.image, two.image):
            raise subject.broken(f"{what} must take all randomness from rng", "two instances return different images")
        if one.ground_truth is None or np.array_equal(one.image, one.ground_truth):
            raise subject.broken(f"{what} must have a ground_truth that is another image", "it has none or the same")
        if one.valid_mask is None or not one.valid_mask.all():
            raise subject.broken(f"the valid_mask of {what} must be True everywhere", "it is not")


class BenchmarkSubject(Subject):
    """A benchmark, evaluated on three swaps, each the mean of its source and target."""

    kind = "benchmarks"

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """Return the metrics of all swaps in one batch."""
        return self.measured(len(PAIRS))

    def measured(self, batch_size: int) -> dict[str, Any]:
        """Return the metrics of the swaps in batches of `batch_size`."""
        faces, parts = FewFaces(), []
        for start in range(0, len(PAIRS), batch_size):
            batch = batch_of(range(start, min(start + batch_size, len(PAIRS))))
            image = (batch.source.image + batch.target.image) / 2
            swap = SwapResult(image=image, coarse=image, z_id=torch.zeros(len(image), 1))
            with torch.no_grad(), self.running("measure_batch(batch, swap, faces)"):
                part = self.component.measure_batch(batch, swap, faces)
            if not isinstance(part, dict):
                actual = f"it returns a {type(part).__name__}"
                raise self.broken("measure_batch must return values by name, a dict", actual)
            parts.append(part)
        with self.running("combine(parts, faces)"):
            metrics = self.component.combine(parts, faces)
        if not isinstance(metrics, dict):
            raise self.broken("combine must return metrics by name, a dict", f"it returns a {type(metrics).__name__}")
        return metrics


def declares(subject: Subject) -> None:
    """Check that each metric declares a unit, a direction and a meaning."""
    metrics = getattr(subject.cls, "metrics", None)
    if subject.cls.standalone and not metrics:
        return
    contract = 'a benchmark must declare metrics, {"name": MetricInfo("deg", "lower", "A sentence.")}'
    if not isinstance(metrics, dict) or not metrics:
        raise subject.broken(contract, f"metrics is {metrics!r}")
    for key, info in metrics.items():
        if not isinstance(info, MetricInfo) or info.better not in ("higher", "lower") or not info.meaning:
            raise subject.broken(contract, f"{key} is {info!r}")


def measures(subject: Subject) -> None:
    """Check that forward returns the declared metrics: one value for each pair, or a number."""
    assert isinstance(subject, BenchmarkSubject)
    metrics = subject.metrics
    undeclared = metrics.keys() - subject.cls.metrics.keys()
    if undeclared or not metrics:
        actual = f"it returns {', '.join(sorted(undeclared))} besides" if undeclared else "it returns none"
        raise subject.broken(f"the metrics must be those declared, {', '.join(subject.cls.metrics)}", actual)
    for key, value in metrics.items():
        if np.isinf(np.asarray(value, dtype=np.float64)).any():
            raise subject.broken("metrics must be finite, or NaN where a pair failed", f"{key} is {value}")
    for key, value in metrics.items():
        if isinstance(value, float | int):
            continue
        if not isinstance(value, np.ndarray) or value.shape != (len(PAIRS),):
            actual = f"{value.shape}" if isinstance(value, np.ndarray | Tensor) else type(value).__name__
            raise subject.broken(
                f"{key} must be a number, or an array with a value for each of the {len(PAIRS)} pairs",
                f"it is {actual}",
            )


def measures_alike(subject: Subject) -> None:
    """Check that metrics are the same in a second call and for other batch sizes."""
    assert isinstance(subject, BenchmarkSubject)
    for what, again in (("a second call", subject.measured(len(PAIRS))), ("batches of one", subject.measured(1))):
        for key, value in subject.metrics.items():
            one, other = (torch.as_tensor(np.asarray(metric, dtype=np.float64)) for metric in (value, again[key]))
            if not same(one, other):
                raise subject.broken(f"{what} must return the same metrics", f"{key} is {value}, and {again[key]} then")


def alone(subject: Subject) -> None:
    """Check that `measure` of a standalone benchmark returns rows."""
    with subject.running("measure(device)"):
        result = subject.component.measure(torch.device("cpu"))
    rows = result.get("rows") if isinstance(result, dict) else None
    if not isinstance(rows, Sequence) or not rows or not all(isinstance(row, dict) for row in rows):
        raise subject.broken('measure must return {"rows": [{...}, ...]}', f"it returns {result!r}"[:120])


DATASET = (
    *COMPONENT,
    Check("faces", holds_faces),
    Check("names", names_match),
    Check("repeats", repeats),
    Check("splits", splits_are_disjoint),
    Check("weights", weights_fit),
    Check("pickle", can_be_pickled),
    Check("prepare", prepares),
    Check("reversed", reverses),
)
BENCHMARK = (*COMPONENT, Check("declares", declares), Check("metrics", measures), Check("alike", measures_alike))
ALONE = (*COMPONENT, Check("declares", declares), Check("rows", alone))
