"""What benchmarks share that look inside or outside a region."""

from typing import Annotated

from pydantic import Field
from torch import Tensor

from fsframework.core.components import Benchmark, ComponentOptions, Estimator
from fsframework.core.part import Part, use


class MaskedBenchmark(Benchmark):
    """Has an estimator say where the target's face is."""

    class Options(ComponentOptions):
        mask: Annotated[Part, use("estimators")] = Field(
            default={"use": "hull-mask"}, validate_default=True, description="Says where the target's face is."
        )

    options: Options

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.mask: Estimator = options.mask.build_estimator("mask", "mask")

    def load(self) -> None:
        """Load the masks' estimator."""
        self.mask.load()


def mean_where(values: Tensor, where: Tensor) -> Tensor:
    """The mean of each image's values (B, 1, S, S) where a mask of the same shape is 1: (B,), NaN if nowhere."""
    return (values * where).sum(dim=(1, 2, 3)).double() / where.sum(dim=(1, 2, 3)).double()
