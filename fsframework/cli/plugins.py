"""`fsf plugins` and `fsf schema`: what is installed, and what can be written."""

import json
import shlex
from pathlib import Path

import click

from fsframework.cli.options import FILE, console, warn_of_broken_plugins
from fsframework.core.errors import UserError


@click.command()
def schema() -> None:
    """Print the JSON Schema of recipes, for editors.

    Editors use it to complete and check recipes; it knows all installed components and their options.
    """
    import fsframework as fsf

    warn_of_broken_plugins()
    click.echo(json.dumps(fsf.recipe_schema(), indent=2))


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
    import fsframework as fsf

    wanted = [_kind(word.strip(), "--kind") for words in kinds for word in words.split(",")]
    folder = folder or Path(name)
    for file in fsf.new_plugin(name, wanted, folder):
        click.echo(f"  {file}")
    quoted = shlex.quote(str(folder))
    click.echo(f'next: pip install -e "{folder}[test]" && pytest {quoted} && fsf run {quoted}/recipe.yaml')


@plugins.command("list")
@click.argument("kind", required=False)
@click.option("--find", "text", metavar="TEXT", help="Only those with TEXT in their name or sentence, such as SPADE.")
def list_components(kind: str | None, text: str | None) -> None:
    """List all components and the recipes that come along, or those of one KIND, such as losses or recipes."""
    from rich.table import Table
    from rich.text import Text

    import fsframework as fsf

    warn_of_broken_plugins()
    table = Table("kind", "name", "plugin", "what it is", box=None, pad_edge=False)
    for row in fsf.list_components(None if kind is None else _kind(kind, recipes=True)):
        if text is None or any(text.lower() in cell.lower() for cell in row):
            table.add_row(*map(Text, row))
    if text is not None and not table.row_count:
        raise UserError(f"--find {text}: nothing has it in its name or sentence; see all by fsf plugins list")
    console().print(table)


@plugins.command("show")
@click.argument("kind")
@click.argument("name")
def show_component(kind: str, name: str) -> None:
    """Show what the component NAME of a KIND does, and its options."""
    from rich.table import Table
    from rich.text import Text

    import fsframework as fsf

    warn_of_broken_plugins()
    found = fsf.describe_component(_kind(kind), name)
    click.echo(f"{name} ({found.kind}, plugin {found.plugin} of {found.distribution})\n")
    click.echo(f"{found.description}\n")
    table = Table("option", "value", "default", "meaning", box=None, pad_edge=False)
    for row in found.options:
        table.add_row(*map(Text, row._replace(default=row.default or "required")))
    console().print(table if table.row_count else "No options.")


def _kind(word: str, place: str = "KIND", recipes: bool = False) -> str:
    """Return a kind by its plural or singular; recipes are one in lists. Raises click.BadParameter with a hint."""
    import fsframework as fsf

    try:
        return fsf.find_kind(word, recipes)
    except UserError as error:
        raise click.BadParameter(str(error), param_hint=place) from None
