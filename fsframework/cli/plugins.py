"""`fsf plugins` and `fsf schema`: what is installed, and what can be written."""

import difflib
import json
import shlex
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path

import click

from fsframework.cli.options import FILE, console, warn_of_broken_plugins
from fsframework.core.errors import UserError

RECIPES = "recipes"  # listed beside the components: whole systems


@click.command()
def schema() -> None:
    """Print the JSON Schema of recipes, for editors.

    Editors use it to complete and check recipes; it knows all installed components and their options.
    """
    from fsframework.recipe.reference import schema

    warn_of_broken_plugins()
    click.echo(json.dumps(schema(), indent=2))


@click.group()
def plugins() -> None:
    """Show the components that plugins bring, and write new plugins."""


@plugins.command("new")
@click.argument("name")
@click.option(
    "--kind",
    "kinds",
    metavar="KIND[,KIND]...",
    multiple=True,
    required=True,
    help="What it brings: detector, identity-encoder, attribute-encoder, generator, refiner, loss, dataset, estimator, "
    "benchmark.",
)
@click.option("--out", "folder", metavar="DIR", type=FILE, help="The package's folder. By default its name.")
def new_plugin(name: str, kinds: tuple[str, ...], folder: Path | None) -> None:
    """Write a new plugin NAME, such as fsf-demo.

    It is a Python package with a working component of each KIND, with tests, a README, and a recipe that uses it.
    Nothing is overwritten.
    """
    from fsframework.testing.scaffold import write

    wanted = list(dict.fromkeys(_kind(word.strip(), "--kind") for words in kinds for word in words.split(",")))
    folder = folder or Path(name)
    for file in write(name, wanted, folder):
        click.echo(f"  {folder / file}")
    quoted = shlex.quote(str(folder))
    click.echo(f'next: pip install -e "{folder}[test]" && pytest {quoted} && fsf run {quoted}/recipe.yaml')


@plugins.command("list")
@click.argument("kind", required=False)
@click.option("--find", "text", metavar="TEXT", help="Only those with TEXT in their name or sentence, such as SPADE.")
def list_components(kind: str | None, text: str | None) -> None:
    """List all components and the recipes that come along, or those of one KIND, such as losses or recipes."""
    from rich.table import Table
    from rich.text import Text

    warn_of_broken_plugins()
    table = Table("kind", "name", "plugin", "what it is", box=None, pad_edge=False)
    for row in _listed(None if kind is None else _kind(kind, more=(RECIPES, "recipe"))):
        if text is None or any(text.lower() in cell.lower() for cell in row):
            table.add_row(*map(Text, row))
    if text is not None and not table.row_count:
        raise UserError(f"--find {text}: nothing has it in its name or sentence; see all by fsf plugins list")
    console().print(table)


def _listed(kind: str | None) -> Iterator[tuple[str, str, str, str]]:
    """Yield kind, name, plugin and sentence of every component and recipe, or of those of one kind."""
    from fsframework.core.registry import GROUP, KINDS, registry
    from fsframework.recipe.schema import shipped

    for each in KINDS if kind is None else {kind} & KINDS.keys():
        for name, (cls, plugin) in sorted(registry().components[each].items()):
            yield each, name, plugin, (cls.__doc__ or "").strip().partition("\n")[0]
    if kind in (None, RECIPES):
        for name, file in shipped().items():
            yield RECIPES, name, GROUP, _sentence(file.read_text(encoding="utf-8"))


def _sentence(recipe: str) -> str:
    """Return the first sentence of the comment at the head of a recipe."""
    head = takewhile(lambda line: line.startswith("#"), recipe.splitlines())
    lines = takewhile(bool, (line.removeprefix("#").strip() for line in head))
    return " ".join(lines).partition(". ")[0].removesuffix(".") + "."


@plugins.command("show")
@click.argument("kind")
@click.argument("name")
def show_component(kind: str, name: str) -> None:
    """Show what the component NAME of a KIND does, and its options."""
    import inspect

    from rich.table import Table
    from rich.text import Text

    from fsframework.core.registry import component, registry
    from fsframework.recipe.reference import rows

    warn_of_broken_plugins()
    plural = _kind(kind)
    cls = component(plural, name)
    plugin = registry().components[plural][name].plugin
    click.echo(f"{name} ({plural}, plugin {plugin} of {registry().distributions[plugin]})\n")
    click.echo(f"{inspect.cleandoc(cls.__doc__ or '')}\n")
    table = Table("option", "value", "default", "meaning", box=None, pad_edge=False)
    for row in rows(cls.Options):
        table.add_row(*map(Text, row._replace(default=row.default or "required")))
    console().print(table if table.row_count else "No options.")


def _kind(word: str, place: str = "KIND", more: Sequence[str] = ()) -> str:
    """Return a kind by its plural or singular; `more` are another plural and its singulars.

    Raises click.BadParameter with a hint.
    """
    from fsframework.core.registry import KINDS, SINGULAR

    known = {name: kind for kind in KINDS for name in (kind, SINGULAR[kind].replace(" ", "-"))}
    known |= {name: more[0] for name in more}
    plain = word.lower().replace(" ", "-").replace("_", "-")
    if plain in known:
        return known[plain]
    close = difflib.get_close_matches(plain, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join([*KINDS, *more[:1]])}."
    raise click.BadParameter(f"no kind is called {word}; {hint}", param_hint=place)
