# mypy: disable-error-code="empty-body"
"""Hook specifications. Every hook has no parameters and returns a list of component classes or of models.

A plugin is a module, named by an entry point of the group `fsframework`, that implements at least one hook:

    from fsframework import Loss, hookimpl

    @hookimpl
    def register_losses() -> list[type[Loss]]:
        return [MyLoss]

`fsframework` exports the base classes; plugins/README.md has a section for each hook.
"""

import pluggy

from fsframework.core.components import (
    AttributeEncoder,
    Benchmark,
    Dataset,
    Detector,
    Estimator,
    Generator,
    IdentityEncoder,
    Loss,
    Model,
    Refiner,
)

hookspec = pluggy.HookspecMarker("fsframework")


@hookspec
def register_detectors() -> list[type[Detector]]:
    """Return `Detector` classes, from frames to faces with five landmarks."""


@hookspec
def register_identity_encoders() -> list[type[IdentityEncoder]]:
    """Return `IdentityEncoder` classes, from aligned crops to embeddings."""


@hookspec
def register_attribute_encoders() -> list[type[AttributeEncoder]]:
    """Return `AttributeEncoder` classes, from aligned crops to attribute maps."""


@hookspec
def register_generators() -> list[type[Generator]]:
    """Return `Generator` classes, from an embedding and attribute maps to an aligned crop."""


@hookspec
def register_refiners() -> list[type[Refiner]]:
    """Return `Refiner` classes, from a coarse swap to a refined one."""


@hookspec
def register_losses() -> list[type[Loss]]:
    """Return `Loss` classes."""


@hookspec
def register_datasets() -> list[type[Dataset]]:
    """Return `Dataset` classes: collections of aligned crops."""


@hookspec
def register_estimators() -> list[type[Estimator]]:
    """Return `Estimator` classes, from aligned crops to a quantity such as head pose."""


@hookspec
def register_benchmarks() -> list[type[Benchmark]]:
    """Return `Benchmark` classes, from swaps to metrics."""


@hookspec
def register_models() -> list[Model]:
    """Return `Model` values: files of `fsf export`, which `--model` takes by name."""
