"""Contract checks for component authors: verify that a class fulfils the contract of its kind.

    from fsframework.testing import check_component

    def test_my_loss():
        check_component(MyLoss, gain=2.0)

A failed check raises `ContractError`, an AssertionError of one line: the class's name and location, the contract, and
the observed behaviour. `pytest --fsf-plugin PLUGIN` runs all checks over every component of an installed plugin.

Nothing is downloaded: the images are those of `fsframework.testing`, 64 px wide.
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
    cls.kind: cls
    for cls in (
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
    """Return the checks of a class of a kind (`losses`), ordered so that the most basic mistake is reported first."""
    return ALONE if kind == "benchmarks" and getattr(cls, "standalone", False) else CHECKS[kind]


def subject(
    kind: str, cls: type[Any], options: Mapping[str, Any], networks: Mapping[str, Part] | None = None
) -> Subject:
    """Return the argument of a kind's checks: the class, its options, and its companion networks (`Subject`)."""
    return SUBJECTS[kind](cls, options, networks or {})


def check_component(cls: type[Any], /, networks: Mapping[str, Part] | None = None, **options: Any) -> None:
    """Check a component class of any kind.

    Parameters
    ----------
    cls:
        The class.
    networks:
        Companion networks, by the keys of a recipe's `networks`, such as {"attributes": part(...)} for a generator that
        supports one encoder's maps only. Small networks replace the others.
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
    checked = subject(kind, cls, options, networks)
    for check in checks(kind, cls):
        check.run(checked)


def check_detector(cls: type[Any], /, **options: Any) -> None:
    """Check a detector class with these options. Raise ContractError if it fails."""
    _run("detectors", cls, None, options)


def check_identity_encoder(cls: type[Any], /, **options: Any) -> None:
    """Check an identity encoder class with these options. Raise ContractError if it fails."""
    _run("identity-encoders", cls, None, options)


def check_attribute_encoder(cls: type[Any], /, **options: Any) -> None:
    """Check an attribute encoder class with these options. Raise ContractError if it fails."""
    _run("attribute-encoders", cls, None, options)


def check_generator(cls: type[Any], /, networks: Mapping[str, Part] | None = None, **options: Any) -> None:
    """Check a generator class; `networks` as in `check_component`. Raise ContractError if it fails."""
    _run("generators", cls, networks, options)


def check_refiner(cls: type[Any], /, networks: Mapping[str, Part] | None = None, **options: Any) -> None:
    """Check a refiner class; `networks` as in `check_component`. Raise ContractError if it fails."""
    _run("refiners", cls, networks, options)


def check_loss(cls: type[Any], /, networks: Mapping[str, Part] | None = None, **options: Any) -> None:
    """Check a loss class; `networks` as in `check_component`. Raise ContractError if it fails."""
    _run("losses", cls, networks, options)


def check_dataset(cls: type[Any], /, **options: Any) -> None:
    """Check a dataset class with these options. Raise ContractError if it fails."""
    _run("datasets", cls, None, options)


def check_estimator(cls: type[Any], /, **options: Any) -> None:
    """Check an estimator class with these options. Raise ContractError if it fails."""
    _run("estimators", cls, None, options)


def check_benchmark(cls: type[Any], /, **options: Any) -> None:
    """Check a benchmark class with these options. Raise ContractError if it fails."""
    _run("benchmarks", cls, None, options)
