"""Checks of components, for their authors: does a class keep the contract of its kind?

    from fsframework.testing import check_component

    def test_my_loss():
        check_component(MyLoss, gain=2.0)

A check that fails raises `ContractError`, an AssertionError whose one line says where the class stands, what must hold
and what was seen. `pytest --fsf-plugin PLUGIN` runs all checks over everything that an installed plugin brings.

Nothing is downloaded: the pictures are those of `fsframework.testing`, 64 px wide.
"""

from collections.abc import Mapping
from typing import Any

from fsframework.core.part import Part
from fsframework.core.registry import KINDS
from fsframework.testing.data_checks import ALONE, BENCHMARK, DATASET, BenchmarkSubject, DatasetSubject
from fsframework.testing.network_checks import (
    ATTRIBUTES,
    DETECTOR,
    ESTIMATOR,
    GENERATOR,
    IDENTITY,
    LOSS,
    REFINER,
    AttributeSubject,
    DetectorSubject,
    EstimatorSubject,
    GeneratorSubject,
    IdentitySubject,
    LossSubject,
    RefinerSubject,
)
from fsframework.testing.subject import Check, ContractError, Subject

__all__ = [
    "Check",
    "ContractError",
    "Subject",
    "check_attribute_encoder",
    "check_benchmark",
    "check_component",
    "check_dataset",
    "check_detector",
    "check_estimator",
    "check_generator",
    "check_identity_encoder",
    "check_loss",
    "check_refiner",
    "checks",
    "subject",
]

SUBJECTS: dict[str, type[Subject]] = {
    each.kind: each
    for each in (
        DetectorSubject,
        IdentitySubject,
        AttributeSubject,
        GeneratorSubject,
        RefinerSubject,
        LossSubject,
        DatasetSubject,
        EstimatorSubject,
        BenchmarkSubject,
    )
}
CHECKS: dict[str, tuple[Check, ...]] = {
    "detectors": DETECTOR,
    "identity-encoders": IDENTITY,
    "attribute-encoders": ATTRIBUTES,
    "generators": GENERATOR,
    "refiners": REFINER,
    "losses": LOSS,
    "datasets": DATASET,
    "estimators": ESTIMATOR,
    "benchmarks": BENCHMARK,
}


def checks(kind: str, cls: type[Any]) -> tuple[Check, ...]:
    """The checks of a class of a kind (`losses`), in the order in which a mistake is best found."""
    return ALONE if kind == "benchmarks" and getattr(cls, "standalone", False) else CHECKS[kind]


def subject(
    kind: str, cls: type[Any], options: Mapping[str, Any], networks: Mapping[str, Part] | None = None
) -> Subject:
    """What the checks of a kind take: the class, its options, and what stands beside it (`Subject`)."""
    return SUBJECTS[kind](cls, options, networks or {})


def check_component(cls: type[Any], /, networks: Mapping[str, Part] | None = None, **options: Any) -> None:
    """Check a component class of whatever kind.

    Parameters
    ----------
    cls:
        The class.
    networks:
        What it needs beside it, by the keys of a recipe's `networks`, such as {"attributes": part(...)} for a
        generator that takes the maps of one encoder only; small networks stand in for the others.
    options:
        Its options; the defaults otherwise.

    Raises
    ------
    ContractError
        The first check that fails.
    """
    kinds = [kind for kind, base in KINDS.items() if isinstance(cls, type) and issubclass(cls, base)]
    if not kinds:
        bases = ", ".join(base.__name__ for base in KINDS.values())
        name = getattr(cls, "__name__", repr(cls))
        raise ContractError(f"{name}: a component must derive from one of fsframework.{{{bases}}}; it does not")
    _run(kinds[0], cls, networks, options)


def _run(kind: str, cls: type[Any], networks: Mapping[str, Part] | None, options: Mapping[str, Any]) -> None:
    about = subject(kind, cls, options, networks)
    for check in checks(kind, cls):
        check.run(about)


def check_detector(cls: type[Any], /, **options: Any) -> None:
    """Check a detector class with these options. Raises ContractError."""
    _run("detectors", cls, None, options)


def check_identity_encoder(cls: type[Any], /, **options: Any) -> None:
    """Check an identity encoder class with these options. Raises ContractError."""
    _run("identity-encoders", cls, None, options)


def check_attribute_encoder(cls: type[Any], /, **options: Any) -> None:
    """Check an attribute encoder class with these options. Raises ContractError."""
    _run("attribute-encoders", cls, None, options)


def check_generator(cls: type[Any], /, networks: Mapping[str, Part] | None = None, **options: Any) -> None:
    """Check a generator class; `networks` as in `check_component`. Raises ContractError."""
    _run("generators", cls, networks, options)


def check_refiner(cls: type[Any], /, networks: Mapping[str, Part] | None = None, **options: Any) -> None:
    """Check a refiner class; `networks` as in `check_component`. Raises ContractError."""
    _run("refiners", cls, networks, options)


def check_loss(cls: type[Any], /, networks: Mapping[str, Part] | None = None, **options: Any) -> None:
    """Check a loss class; `networks` as in `check_component`. Raises ContractError."""
    _run("losses", cls, networks, options)


def check_dataset(cls: type[Any], /, **options: Any) -> None:
    """Check a data set class with these options. Raises ContractError."""
    _run("datasets", cls, None, options)


def check_estimator(cls: type[Any], /, **options: Any) -> None:
    """Check an estimator class with these options. Raises ContractError."""
    _run("estimators", cls, None, options)


def check_benchmark(cls: type[Any], /, **options: Any) -> None:
    """Check a benchmark class with these options. Raises ContractError."""
    _run("benchmarks", cls, None, options)
