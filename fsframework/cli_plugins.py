"""`fsf plugins` and `fsf schema`: what is installed, and what can be written."""

import difflib
import json
import shlex
from pathlib import Path

import click

from fsframework.cli_options import FILE, console, warn_of_broken_plugins


@click.command()
def schema() -> None:
    """Print the JSON Schema of recipes, for editors.

    Editors use it to complete and check recipes; it knows all installed components and their options.
    """
    from fsframework.reference import schema

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
    from fsframework.scaffold import write

    wanted = list(dict.fromkeys(_kind(word.strip(), "--kind") for words in kinds for word in words.split(",")))
    folder = folder or Path(name)
    for file in write(name, wanted, folder):
        click.echo(f"  {folder / file}")
    quoted = shlex.quote(str(folder))
    click.echo(f'next: pip install -e "{folder}[test]" && pytest {quoted} && fsf run {quoted}/recipe.yaml')


@plugins.command("list")
@click.argument("kind", required=False)
def list_components(kind: str | None) -> None:
    """List all components, or those of one KIND, such as losses."""
    from rich.table import Table
    from rich.text import Text

    from fsframework.plugins import KINDS, registry

    warn_of_broken_plugins()
    table = Table("kind", "name", "plugin", "what it is", box=None, pad_edge=False)
    for each in KINDS if kind is None else [_kind(kind)]:
        for name, (cls, plugin) in sorted(registry().components[each].items()):
            first_line = (cls.__doc__ or "").strip().partition("\n")[0]
            table.add_row(*map(Text, (each, name, plugin, first_line)))
    console().print(table)


@plugins.command("show")
@click.argument("kind")
@click.argument("name")
def show_component(kind: str, name: str) -> None:
    """Show what the component NAME of a KIND does, and its options."""
    import inspect

    from rich.table import Table
    from rich.text import Text

    from fsframework.plugins import component, registry
    from fsframework.reference import rows

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


def _kind(word: str, place: str = "KIND") -> str:
    """A kind by its plural or singular. Raises click.BadParameter with a hint."""
    from fsframework.plugins import KINDS, SINGULAR

    known = {name: kind for kind in KINDS for name in (kind, SINGULAR[kind].replace(" ", "-"))}
    plain = word.lower().replace(" ", "-").replace("_", "-")
    if plain in known:
        return known[plain]
    close = difflib.get_close_matches(plain, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(KINDS)}."
    raise click.BadParameter(f"no kind is called {word}; {hint}", param_hint=place)
