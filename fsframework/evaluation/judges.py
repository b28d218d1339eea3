"""The benchmarks of an evaluation, and whether a method was trained against what they measure with."""

from fsframework.core.bases import ClosedSetGenerator
from fsframework.core.components import Benchmark
from fsframework.core.part import Part
from fsframework.core.registry import component
from fsframework.models.store import Trained
from fsframework.recipe.schema import Evaluation, Recipe


def loaded(plan: Evaluation, trained: Trained) -> dict[str, tuple[Benchmark, bool]]:
    """The benchmarks, loaded, by heading; and whether the method was trained against what they measure with."""
    against = dict.fromkeys(own_identity(trained.recipe))  # in order, each once
    for part in (part for stage in trained.recipe.stages for part in stage.losses):
        against |= dict.fromkeys(judges(part))
    found: dict[str, tuple[Benchmark, bool]] = {}
    for part in plan.benchmarks:
        benchmark: Benchmark = part.build()
        benchmark.load()
        benchmark.to(trained.device).eval().requires_grad_(False)
        heading = benchmark.label(None)
        own = next((label for name in against if (label := benchmark.label(name)) != heading), None)
        heading = wanted = own or heading
        number = 1
        while heading in found:
            number += 1
            heading = f"{wanted} {number}"
        found[heading] = benchmark, own is not None
    return found


def own_identity(recipe: Recipe) -> list[str]:
    """The identity encoder that swaps are made from or trained by; none where it only says whose decoder paints."""
    generator = recipe.networks.generator
    only_chooses = generator is not None and issubclass(component(generator.kind, generator.name), ClosedSetGenerator)
    losses = [component(part.kind, part.name) for stage in recipe.stages for part in stage.losses]
    asked = any(loss.asks_identity for loss in losses)  # type: ignore[attr-defined]
    return [] if only_chooses and not asked else [recipe.networks.identity.name]


def judges(loss: Part) -> list[str]:
    """Whose networks a loss judges by: the identity encoders among its options, and its own `network`."""
    encoders = [v.name for _, v in loss.options if isinstance(v, Part) and v.kind == "identity-encoders"]
    own: str | None = component("losses", loss.name).network  # type: ignore[attr-defined]
    return encoders if own is None else [*encoders, own]
