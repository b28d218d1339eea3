"""The contracts of data sets and benchmarks."""

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

LOOKED_AT = 4  # faces of a data set: reading all of a large one would take long


class DatasetSubject(Subject):
    """A data set, in each of its splits; one that wraps another and is given none wraps `orl`."""

    kind = "datasets"
    signature = ("size", "detector", "split")

    def __init__(self, cls: type[Any], options: Any, networks: Any, split: str = "all") -> None:
        wraps = issubclass(cls, DatasetWrapper) and "data" not in options
        super().__init__(cls, {**options, "data": {"use": "orl"}} if wraps else options, networks)
        self.split = split

    def arguments(self) -> tuple[Any, ...]:
        """Side, detector, split."""
        return SIZE, part("detectors", "mtcnn"), self.split

    @cached_property
    def splits(self) -> dict[str, Any]:
        """The data set of each split, loaded; a split that is empty may refuse."""
        made = {}
        for split in ("train", "test", "all"):
            made[split] = type(self)(self.cls, self.given, self.networks, split).loaded()
        return made

    @property
    def places(self) -> range:
        """The faces that are looked at."""
        return range(min(LOOKED_AT, len(self.component)))


def holds_faces(subject: Subject) -> None:
    """It has a length, and yields samples of the right size."""
    assert isinstance(subject, DatasetSubject)
    with subject.running("len()"):
        count = len(subject.component)
    if count < 1:
        raise subject.broken("the data set must hold faces", "its length is 0")
    for index in subject.places:
        with subject.running(f"[{index}]"):
            _check_sample(subject, subject.component[index], f"[{index}]")


def _check_sample(subject: Subject, sample: Any, what: str) -> None:
    if not isinstance(sample, Sample):
        raise subject.broken(f"{what} must be a Sample", f"it is a {type(sample).__name__}")
    image = sample.image
    if not isinstance(image, np.ndarray) or image.shape != (SIZE, SIZE, 3) or image.dtype != np.uint8:
        seen = f"{image.shape} {image.dtype}" if isinstance(image, np.ndarray) else type(image).__name__
        raise subject.broken(f"the image of {what} must be ({SIZE}, {SIZE}, 3) uint8 at size {SIZE}", f"it is {seen}")
    points = np.asarray(sample.landmarks)
    if points.shape != (5, 2):
        raise subject.broken(f"the landmarks of {what} must be (5, 2), in crop pixels", f"they are {points.shape}")
    if not (points[0, 0] < points[1, 0] and points[3, 0] < points[4, 0]):
        raise subject.broken(
            f"the landmarks of {what} must be eye, eye, nose, mouth corner, mouth corner, the viewer's left first",
            f"they are {points.round().tolist()}",
        )


def repeats(subject: Subject) -> None:
    """A place holds the same face at every call, in another instance too; a target follows from its generator."""
    assert isinstance(subject, DatasetSubject)
    one, other = subject.component, subject.loaded()
    for index in subject.places:
        first, again = one[index], other[index]
        if first.name != again.name or not np.array_equal(first.image, again.image):
            raise subject.broken("a place must hold the same face at every call", f"[{index}] differs")
        with subject.running(f"target({index}, rng)"):
            targets = [each.target(index, np.random.default_rng(7)) for each in (one, other)]
        _check_sample(subject, targets[0], f"target({index}, rng)")
        if not np.array_equal(targets[0].image, targets[1].image):
            raise subject.broken(
                "target(index, rng) must take all randomness from rng, so that runs resume exactly",
                f"of two equal generators target({index}, rng) makes two pictures",
            )


def names_faces(subject: Subject) -> None:
    """Names are unique, and agree with the samples, as people do, and as persons() does with people()."""
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
            "persons() must number people() by their first appearance, -1 where unknown", f"it says {persons.tolist()}"
        )
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise subject.broken("names must be unique in the data set", f"{twice} is there twice")
    for index in subject.places:
        sample = data[index]
        if (sample.name, sample.person) != (names[index], people[index]):
            raise subject.broken(
                "names() and people() must say what the samples say",
                f"[{index}] is {sample.name} of {sample.person}, and they say {names[index]} of {people[index]}",
            )


def keeps_people_apart(subject: Subject) -> None:
    """Nobody is in both train and test, unless it says `seen`; together they are everybody."""
    assert isinstance(subject, DatasetSubject)
    names = {split: data.names() for split, data in subject.splits.items()}
    both = set(names["train"]) & set(names["test"])
    if both:
        raise subject.broken("no picture may be in both splits, train and test", f"{min(both)} is in both")
    if set(names["train"]) | set(names["test"]) != set(names["all"]):
        raise subject.broken("the split all must hold what train and test hold", "it holds something else")
    people = {split: {who for who in data.people() if who is not None} for split, data in subject.splits.items()}
    if (shared := people["train"] & people["test"]) and not subject.splits["test"].is_closed_set:
        raise subject.broken("no person may be in both splits, train and test", f"{min(shared)} is in both")


def travels(subject: Subject) -> None:
    """It can be pickled, as worker processes need."""
    with subject.running("pickling it (pickle.dumps) for worker processes"):
        pickle.dumps(subject.component)


def prepares(subject: Subject) -> None:
    """What `prepare` returns are arrays, and another instance works with them."""
    assert isinstance(subject, DatasetSubject)
    made, other = subject.loaded(), subject.loaded()
    with torch.no_grad(), subject.running("prepare(swapper)"):
        state = made.prepare(subject.swapper())
    if not isinstance(state, dict) or not all(isinstance(value, np.ndarray) for value in state.values()):
        raise subject.broken("prepare must return arrays by name, for the run to keep", f"it returns {state!r}")
    with subject.running("restore(prepared)"):
        made.restore(state)
        other.restore(state)
        one, two = (each.target(0, np.random.default_rng(3)) for each in (made, other))
    if not np.array_equal(one.image, two.image):
        raise subject.broken(
            "restore must bring what prepare found to another process",
            "one that restored it makes other targets",
        )


class BenchmarkSubject(Subject):
    """A benchmark, shown three swaps that are half source and half target."""

    kind = "benchmarks"

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """What it says of the swaps."""
        return self.measured(len(PAIRS))

    def measured(self, batch_size: int) -> dict[str, Any]:
        """Return the metrics of the swaps in batches."""
        faces, parts = FewFaces(), []
        for start in range(0, len(PAIRS), batch_size):
            batch = batch_of(range(start, min(start + batch_size, len(PAIRS))))
            image = (batch.source.image + batch.target.image) / 2
            swap = SwapResult(image=image, coarse=image, z_id=torch.zeros(len(image), 1))
            with torch.no_grad(), self.running("measure_batch(batch, swap, faces)"):
                part = self.component.measure_batch(batch, swap, faces)
            if not isinstance(part, dict):
                seen = f"it returns a {type(part).__name__}"
                raise self.broken("measure_batch must return values by name, a dict", seen)
            parts.append(part)
        with self.running("combine(parts, faces)"):
            found = self.component.combine(parts, faces)
        if not isinstance(found, dict):
            raise self.broken("combine must return metrics by name, a dict", f"it returns a {type(found).__name__}")
        return found


def declares(subject: Subject) -> None:
    """Each figure has a unit, a direction and a meaning."""
    metrics = getattr(subject.cls, "metrics", None)
    if subject.cls.standalone and not metrics:
        return
    contract = 'a benchmark must declare metrics, {"name": MetricInfo("deg", "lower", "A sentence.")}'
    if not isinstance(metrics, dict) or not metrics:
        raise subject.broken(contract, f"metrics is {metrics!r}")
    for key, figure in metrics.items():
        if not isinstance(figure, MetricInfo) or figure.better not in ("higher", "lower") or not figure.meaning:
            raise subject.broken(contract, f"of {key} it says {figure!r}")


def measures(subject: Subject) -> None:
    """It returns what it declares: a value for each pair, or a number."""
    assert isinstance(subject, BenchmarkSubject)
    found = subject.metrics
    undeclared = found.keys() - subject.cls.metrics.keys()
    if undeclared or not found:
        seen = f"it returns {', '.join(sorted(undeclared))} besides" if undeclared else "it returns none"
        raise subject.broken(f"the metrics must be those declared, {', '.join(subject.cls.metrics)}", seen)
    for key, value in found.items():
        if np.isinf(np.asarray(value, dtype=np.float64)).any():
            raise subject.broken("metrics must be finite, or NaN where a pair failed", f"{key} is {value}")
    for key, value in found.items():
        if isinstance(value, float | int):
            continue
        if not isinstance(value, np.ndarray) or value.shape != (len(PAIRS),):
            seen = f"{value.shape}" if isinstance(value, np.ndarray | Tensor) else type(value).__name__
            raise subject.broken(
                f"{key} must be a number, or an array with a value for each of the {len(PAIRS)} pairs", f"it is {seen}"
            )


def measures_alike(subject: Subject) -> None:
    """A second call and other batches give the same."""
    assert isinstance(subject, BenchmarkSubject)
    for what, again in (("a second call", subject.measured(len(PAIRS))), ("batches of one", subject.measured(1))):
        for key, value in subject.metrics.items():
            one, other = (torch.as_tensor(np.asarray(each, dtype=np.float64)) for each in (value, again[key]))
            if not same(one, other):
                raise subject.broken(f"{what} must give the same metrics", f"{key} is {value}, and {again[key]} then")


def alone(subject: Subject) -> None:
    """A benchmark that is `alone` returns rows."""
    with subject.running("measure(device)"):
        found = subject.component.measure(torch.device("cpu"))
    rows = found.get("rows") if isinstance(found, dict) else None
    if not isinstance(rows, Sequence) or not rows or not all(isinstance(row, dict) for row in rows):
        raise subject.broken('measure must return {"rows": [{...}, ...]}', f"it returns {found!r}"[:120])


DATASET = (
    *COMPONENT,
    Check("faces", holds_faces),
    Check("names", names_faces),
    Check("repeats", repeats),
    Check("splits", keeps_people_apart),
    Check("pickle", travels),
    Check("prepare", prepares),
)
BENCHMARK = (*COMPONENT, Check("declares", declares), Check("metrics", measures), Check("alike", measures_alike))
ALONE = (*COMPONENT, Check("declares", declares), Check("rows", alone))
