"""List, describe and build installed components, and create plugins."""

import inspect
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from fsframework.core.components import Component
from fsframework.core.errors import UserError, did_you_mean
from fsframework.core.part import part
from fsframework.core.registry import GROUP, KINDS, SINGULAR, component, registry
from fsframework.recipe.reference import Row, rows, schema
from fsframework.recipe.schema import is_alone, shipped
from fsframework.testing.scaffold import write

RECIPES = "recipes"  # listed like a kind of components


class ComponentInfo(NamedTuple):
    """An entry of the list of components."""

    kind: str
    name: str
    plugin: str
    summary: str  # the first line of its docstring


class ComponentDetails(NamedTuple):
    """A component's documentation."""

    kind: str
    name: str
    plugin: str
    distribution: str  # of the plugin, with its version
    description: str
    options: list[Row]


def list_components(kind: str | None = None) -> list[ComponentInfo]:
    """Return the installed components of a kind, such as "losses" or "recipes"; of all kinds by default.

    Raises UserError if there is no such kind.
    """
    return list(_listed(None if kind is None else find_kind(kind, recipes=True)))


def _listed(kind: str | None) -> Iterator[ComponentInfo]:
    for each in KINDS if kind is None else {kind} & KINDS.keys():
        for name, (cls, plugin) in sorted(registry().components[each].items()):
            yield ComponentInfo(each, name, plugin, (cls.__doc__ or "").strip().partition("\n")[0])
    if kind in (None, RECIPES):
        for name, file in shipped().items():
            yield ComponentInfo(RECIPES, name, GROUP, _summary(file.read_text(encoding="utf-8")))


def _summary(recipe: str) -> str:
    """Return the first sentence of the comment at the head of a recipe."""
    head = takewhile(lambda line: line.startswith("#"), recipe.splitlines())
    lines = takewhile(bool, (line.removeprefix("#").strip() for line in head))
    return " ".join(lines).partition(". ")[0].removesuffix(".") + "."


def describe_component(kind: str, name: str) -> ComponentDetails:
    """Return a component's documentation and options. Raise UserError if there is none of that name."""
    plural = find_kind(kind)
    cls = component(plural, name)
    plugin = registry().components[plural][name].plugin
    text = inspect.cleandoc(cls.__doc__ or "")
    return ComponentDetails(plural, name, plugin, registry().distributions[plugin], text, rows(cls.Options))


def is_standalone(benchmark: str) -> bool:
    """Return whether a benchmark measures the code or the machine instead of a method. Raise UserError if unknown."""
    return is_alone(benchmark)


def component_class(kind: str, name: str) -> type[Component]:
    """Return a component's class. Raise UserError if there is none of that name."""
    return component(find_kind(kind), name)


def create_component(kind: str, name: str, /, *args: Any, **options: Any) -> Any:
    """Build a component, load its files, and return it.

    Parameters
    ----------
    kind, name:
        Such as "losses" and "hinge-gan".
    args:
        Arguments of the kind's constructor after the options, such as the size of the crops.
    options:
        The component's options; others keep their defaults.

    Raises
    ------
    UserError
        There is no such component, an option is wrong, or its files cannot be read.
    """
    plural = find_kind(kind)
    try:
        built = part(plural, name, **options).build(*args)
    except ValidationError as error:
        wrong = error.errors()[0]
        option = ".".join(map(str, wrong["loc"])) or "options"
        raise UserError(f"{name}: {option}: {wrong['msg']}; see: fsf plugins show {plural} {name}") from None
    built.load()
    return built


def find_kind(word: str, recipes: bool = False) -> str:
    """Return a kind's plural, given its plural or singular. Raise UserError, with a hint, for other words.

    With `recipes`, "recipes" is a kind, too.
    """
    plurals = {name: kind for kind in KINDS for name in (kind, SINGULAR[kind].replace(" ", "-"))}
    if recipes:
        plurals |= {RECIPES: RECIPES, "recipe": RECIPES}
    plain = word.lower().replace(" ", "-").replace("_", "-")
    if plain in plurals:
        return plurals[plain]
    hint = did_you_mean(plain, plurals, f"there are {', '.join(dict.fromkeys(plurals.values()))}.")
    raise UserError(f"no kind is called {word}; {hint}")


def recipe_schema() -> dict[str, Any]:
    """Return the JSON Schema of recipes, with all installed components and their options."""
    return schema()


def new_plugin(name: str, kinds: Sequence[str], folder: str | Path | None = None) -> list[Path]:
    """Create a plugin with a working component of each kind, and return its files.

    Parameters
    ----------
    name:
        Name of the distribution: lower-case words joined by dashes, such as fsf-demo.
    kinds:
        Such as ["losses", "generators"].
    folder:
        Output folder; by default the name. It must be new or empty.

    Raises
    ------
    UserError
        The name is invalid, or the folder is not empty.
    """
    folder = Path(name if folder is None else folder)
    plural_kinds = list(dict.fromkeys(find_kind(kind) for kind in kinds))
    return [folder / file for file in write(name, plural_kinds, folder)]
