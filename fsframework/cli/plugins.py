"""`fsf plugins` and `fsf schema`."""

import json
import shlex
from pathlib import Path

import click

from fsframework.cli.options import FILE, console, warn_of_broken_plugins
from fsframework.core.errors import UserError, did_you_mean


@click.command()
def schema() -> None:
    """Print the JSON Schema of recipes, for editors.

    Editors use it to complete and check recipes. It contains all installed components and their options.
    """
    import fsframework as fsf

    warn_of_broken_plugins()
    click.echo(json.dumps(fsf.recipe_schema(), indent=2))


@click.group()
def plugins() -> None:
    """List the components of plugins, and create new plugins."""


@plugins.command("new")
@click.argument("name")
@click.option(
    "--kind",
    "kinds",
    metavar="KIND[,KIND]...",
    multiple=True,
    required=True,
    help="Its components: detector, identity-encoder, attribute-encoder, generator, refiner, loss, dataset, estimator, "
    "benchmark.",
)
@click.option("--out", "folder", metavar="DIR", type=FILE, help="The package's folder. Default: its name.")
def new_plugin(name: str, kinds: tuple[str, ...], folder: Path | None) -> None:
    """Create a plugin NAME, such as fsf-demo.

    It is a Python package with a working component of each KIND, with tests, a README and a recipe.
    Nothing is overwritten.
    """
    import fsframework as fsf

    plural_kinds = [_kind(word.strip(), "--kind") for words in kinds for word in words.split(",")]
    folder = folder or Path(name)
    for file in fsf.new_plugin(name, plural_kinds, folder):
        click.echo(f"  {file}")
    quoted = shlex.quote(str(folder))
    click.echo(f'next: pip install -e "{folder}[test]" && pytest {quoted} && fsf run {quoted}/recipe.yaml')


@plugins.command("list")
@click.argument("kind", required=False)
@click.option("--find", "text", metavar="TEXT", help="Only those with TEXT in a column, such as SPADE.")
def list_components(kind: str | None, text: str | None) -> None:
    """List all components and bundled recipes, or those of one KIND, such as losses or recipes."""
    from rich.table import Table
    from rich.text import Text

    import fsframework as fsf

    warn_of_broken_plugins()
    table = Table("kind", "name", "plugin", "what it is", box=None, pad_edge=False)
    for row in fsf.list_components(None if kind is None else _kind(kind, recipes=True)):
        if text is None or any(text.lower() in cell.lower() for cell in row):
            table.add_row(*map(Text, row))
    if text is not None and not table.row_count:
        remedy = did_you_mean(text, [row[1] for row in fsf.list_components()], "list all by fsf plugins list")
        raise UserError(f"--find {text}: no component matches; {remedy}")
    console().print(table)


@plugins.command("show")
@click.argument("kind")
@click.argument("name")
def show_component(kind: str, name: str) -> None:
    """Show the documentation and the options of the component NAME of a KIND."""
    from rich.table import Table
    from rich.text import Text

    import fsframework as fsf

    warn_of_broken_plugins()
    details = fsf.describe_component(_kind(kind), name)
    click.echo(f"{name} ({details.kind}, plugin {details.plugin} of {details.distribution})\n")
    click.echo(f"{details.description}\n")
    table = Table("option", "value", "default", "meaning", box=None, pad_edge=False)
    for row in details.options:
        table.add_row(*map(Text, row._replace(default=row.default or "required")))
    console().print(table if table.row_count else "No options.")


def _kind(word: str, place: str = "KIND", recipes: bool = False) -> str:
    """Return a kind's plural, given its plural or singular. Raise click.BadParameter with a hint."""
    import fsframework as fsf

    try:
        return fsf.find_kind(word, recipes)
    except UserError as error:
        raise click.BadParameter(str(error), param_hint=place) from None
