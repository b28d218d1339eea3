# mypy: disable-error-code="empty-body"
"""The hooks. Every hook takes nothing and returns a list: of component classes, or of models.

A plugin is a module, named by an entry point of the group `fsframework`, that implements one hook or more:

    from fsframework import Loss, hookimpl

    @hookimpl
    def register_losses() -> list[type[Loss]]:
        return [MyLoss]

`fsframework` offers the base classes; plugins/README.md has a section for each hook.
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
    """Return `Detector` classes: frames to faces with five landmarks."""


@hookspec
def register_identity_encoders() -> list[type[IdentityEncoder]]:
    """Return `IdentityEncoder` classes: aligned crops to embeddings."""


@hookspec
def register_attribute_encoders() -> list[type[AttributeEncoder]]:
    """Return `AttributeEncoder` classes: aligned crops to maps of everything but the identity."""


@hookspec
def register_generators() -> list[type[Generator]]:
    """Return `Generator` classes: an embedding and attribute maps to an aligned crop."""


@hookspec
def register_refiners() -> list[type[Refiner]]:
    """Return `Refiner` classes: a coarse swap to a better one."""


@hookspec
def register_losses() -> list[type[Loss]]:
    """Return `Loss` classes."""


@hookspec
def register_datasets() -> list[type[Dataset]]:
    """Return `Dataset` classes: collections of aligned crops."""


@hookspec
def register_estimators() -> list[type[Estimator]]:
    """Return `Estimator` classes: a quantity, such as head pose, read from aligned crops."""


@hookspec
def register_benchmarks() -> list[type[Benchmark]]:
    """Return `Benchmark` classes: swaps to figures."""


@hookspec
def register_models() -> list[Model]:
    """Return `Model` values: files that `fsf export` wrote, which `--model` knows by name."""
