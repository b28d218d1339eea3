"""Build the components that a recipe names."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fsframework.core.errors import UserError
from fsframework.core.part import Part
from fsframework.core.registry import GROUP, component, line_of, registry
from fsframework.core.swapper import Swapper
from fsframework.recipe.schema import Recipe


def build_swapper(recipe: Recipe) -> Swapper:
    """The swapper that a recipe names, allocated on the current device and not loaded.

    Encoders declare the sizes of what they return, and the generator is told. Raises UserError, naming the part, if
    one cannot be built.
    """
    parts = recipe.networks
    identity = build("networks.identity", parts.identity)
    if parts.attributes is None or parts.generator is None:
        return Swapper(identity)
    attributes = build("networks.attributes", parts.attributes, recipe.size)
    generator = build("networks.generator", parts.generator, recipe.size, identity.dim, attributes.channels)
    refiner = None if parts.refiner is None else build("networks.refiner", parts.refiner, recipe.size)
    return Swapper(identity, attributes, generator, refiner)


def build(place: str, part: Part, *sizes: Any) -> Any:
    """A component, allocated and not loaded. Raises UserError, naming its place in the recipe, if that fails."""
    with component_error_context(place, part):
        return part.build(*sizes)


@contextmanager
def component_error_context(place: str, part: Part) -> Iterator[None]:
    """Say which part of a recipe failed; a component may fail in any way."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{place}: {part.name}: {error}") from error
    except Exception as error:
        cls = component(part.kind, part.name)
        said = str(error).partition("\n")[0]
        reason = said if isinstance(error, ValueError) else f"{type(error).__name__}: {said}".rstrip(": ")
        who = f"{place}: {part.name} ({line_of(error, cls)})"
        raise UserError(f"{who} does not work here: {reason}{_more(part)}") from error


def _more(part: Part) -> str:
    """How to learn more of what fails in somebody's plugin; nothing for ours."""
    plugin = registry().components[part.kind][part.name].plugin
    ours = registry().distributions[plugin].partition(" ")[0] == GROUP
    return "" if ours else f"; pytest --fsf-plugin {plugin} says more"
