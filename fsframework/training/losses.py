"""The losses of a stage, with their keys in the recipe for error messages."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from fsframework.core.components import Loss
from fsframework.core.part import Part
from fsframework.core.swapper import Swapper
from fsframework.core.types import SwapBatch, SwapResult
from fsframework.recipe.build import component_error_context


@dataclass(frozen=True, eq=False)
class StageLoss:
    """A loss of a stage. Its terms raise UserError, with the key in the recipe, if the component fails."""

    module: Loss
    part: Part
    name: str  # unique in the stage, for logs
    key: str  # in the recipe, such as stages.0.losses.1
    has_critic: bool  # it has its own parameters, which `critic` trains

    def generator_term(self, batch: SwapBatch, output: SwapResult, swapper: Swapper) -> Tensor:
        """Return the unweighted loss, a scalar."""
        with component_error_context(self.key, self.part):
            return _scalar(self.module(batch, output, swapper), "forward")

    def critic_term(self, batch: SwapBatch, output: SwapResult) -> Tensor:
        """Return the critic's loss, a scalar."""
        with component_error_context(self.key, self.part):
            return _scalar(self.module.critic(batch, output), "critic")


def numbered(names: Sequence[str]) -> list[str]:
    """Return the names, with a number after the second and further uses of one: identity, identity 2."""
    return [f"{name} {names[: n + 1].count(name)}" if name in names[:n] else name for n, name in enumerate(names)]


def _scalar(value: object, method: str) -> Tensor:
    if not isinstance(value, Tensor) or value.shape != ():
        shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"{method} must return a scalar, and returns {shape}; take the mean")
    return value
