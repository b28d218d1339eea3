"""Base class of benchmarks on a masked region."""

from typing import Annotated

from pydantic import Field
from torch import Tensor

from fsframework.core.components import Benchmark, ComponentOptions, Estimator
from fsframework.core.part import Part, use


class MaskedBenchmark(Benchmark):
    """Benchmark with an estimator of the target's face mask."""

    class Options(ComponentOptions):
        mask: Annotated[Part, use("estimators")] = Field(
            default={"use": "hull-mask"}, validate_default=True, description="Estimator of the target's face mask."
        )

    options: Options

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.mask: Estimator = options.mask.build_estimator("mask", "mask")

    def load(self) -> None:
        """Load the mask estimator."""
        self.mask.load()


def mean_where(values: Tensor, where: Tensor) -> Tensor:
    """Return the mean (B,) of values (B, 1, S, S), weighted by a mask (B, 1, S, S); NaN for an empty mask."""
    return (values * where).sum(dim=(1, 2, 3)).double() / where.sum(dim=(1, 2, 3)).double()
