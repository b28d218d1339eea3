"""Build the components of a recipe."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fsframework.core.errors import UserError
from fsframework.core.part import Part
from fsframework.core.registry import GROUP, component, line_of, registry
from fsframework.core.swapper import Swapper
from fsframework.recipe.schema import Recipe


def build_swapper(recipe: Recipe) -> Swapper:
    """Return the swapper of a recipe, allocated on the current device, without weights.

    The sizes of the encoders' outputs are passed to the generator. Raises UserError, with the part's path, if a part
    cannot be built.
    """
    parts = recipe.networks
    identity = build("networks.identity", parts.identity)
    if parts.attributes is None or parts.generator is None:
        return Swapper(identity)
    attributes = build("networks.attributes", parts.attributes, recipe.size)
    generator = build("networks.generator", parts.generator, recipe.size, identity.dim, attributes.channels)
    refiner = None if parts.refiner is None else build("networks.refiner", parts.refiner, recipe.size)
    return Swapper(identity, attributes, generator, refiner)


def build(path: str, part: Part, *sizes: Any) -> Any:
    """Return a component, allocated, without weights.

    Raises UserError, with its path in the recipe, if that fails.
    """
    with component_error_context(path, part):
        return part.build(*sizes)


@contextmanager
def component_error_context(path: str, part: Part) -> Iterator[None]:
    """Raise any error of a component as UserError with its path in the recipe."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{path}: {part.name}: {error}") from error
    except Exception as error:
        cls = component(part.kind, part.name)
        message = str(error).partition("\n")[0]
        reason = message if isinstance(error, ValueError) else f"{type(error).__name__}: {message}".rstrip(": ")
        where = f"{path}: {part.name} ({line_of(error, cls)})"
        raise UserError(f"{where} cannot be used: {reason}{_test_hint(part)}") from error


def _test_hint(part: Part) -> str:
    """Return the test command for a third-party plugin, "" for a bundled one."""
    plugin = registry().components[part.kind][part.name].plugin
    ours = registry().distributions[plugin].partition(" ")[0] == GROUP
    return "" if ours else f"; pytest --fsf-plugin {plugin} gives details"
