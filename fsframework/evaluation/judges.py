"""Load the benchmarks of an evaluation, and detect judges that took part in the training of a method."""

from fsframework.core.bases import ClosedSetGenerator
from fsframework.core.components import Benchmark
from fsframework.core.part import Part
from fsframework.core.registry import component
from fsframework.models.store import Trained
from fsframework.recipe.schema import Evaluation, Recipe


def loaded(plan: Evaluation, trained: Trained) -> dict[str, tuple[Benchmark, bool]]:
    """Return loaded benchmarks by heading, each with whether the method was trained against its judge network."""
    against = dict.fromkeys(own_identity(trained.recipe))  # an ordered set
    for part in (part for stage in trained.recipe.stages for part in stage.losses):
        against |= dict.fromkeys(judges(part))
    result: dict[str, tuple[Benchmark, bool]] = {}
    for part in plan.benchmarks:
        benchmark: Benchmark = part.build()
        benchmark.load()
        benchmark.to(trained.device).eval().requires_grad_(False)
        heading = benchmark.label(None)
        own_label = next((label for name in against if (label := benchmark.label(name)) != heading), None)
        heading = base = own_label or heading
        number = 1
        while heading in result:
            number += 1
            heading = f"{base} {number}"
        result[heading] = benchmark, own_label is not None
    return result


def own_identity(recipe: Recipe) -> list[str]:
    """Return the name of the identity encoder in a list; empty where it only selects the decoder of a person."""
    generator = recipe.networks.generator
    only_selects = generator is not None and issubclass(component(generator.kind, generator.name), ClosedSetGenerator)
    losses = [component(part.kind, part.name) for stage in recipe.stages for part in stage.losses]
    is_used_by_loss = any(loss.asks_identity for loss in losses)  # type: ignore[attr-defined]
    return [] if only_selects and not is_used_by_loss else [recipe.networks.identity.name]


def judges(loss: Part) -> list[str]:
    """Return the names of a loss's networks: the identity encoders among its options, and its own `network`."""
    encoders = [v.name for _, v in loss.options if isinstance(v, Part) and v.kind == "identity-encoders"]
    network: str | None = component("losses", loss.name).network  # type: ignore[attr-defined]
    return encoders if network is None else [*encoders, network]
