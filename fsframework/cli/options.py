"""Options and helpers that several commands of `fsf` share."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

FILE = click.Path(path_type=Path)
MODEL = "a run's folder, a model's file, or the name of an installed model"
SETS = click.option(
    "--set",
    "sets",
    metavar="KEY=VALUE",
    multiple=True,
    help="Override a value of the recipe, such as stages.0.batch_size=8; may be repeated.",
)
DEVICE = click.option("--device", metavar="NAME", help="cpu, cuda or cuda:N. Default: the GPU if there is one.")
PAIRS = click.option(
    "--pairs", metavar="CSV|N", help="A list of pairs, or a number of random pairs, instead of the recipe's."
)
PROTOCOL = click.option(
    "--protocol", metavar="NAME|FILE", help="Evaluation protocol, such as orl or lfw, instead of the recipe's."
)


def command_line() -> str:
    """Return the current command as a shell line."""
    return shlex.join(["fsf", *sys.argv[1:]])


def warn_of_broken_plugins() -> None:
    """Print a warning for each plugin that was skipped."""
    from fsframework.core.registry import registry

    for problem in registry().problems:
        click.echo(f"warning: {problem}", err=True)


def console() -> "Console":
    """Return a console for tables on standard output, 160 columns wide if it is not a terminal."""
    from rich.console import Console

    settings: dict[str, Any] = {} if sys.stdout.isatty() else {"width": 160}
    return Console(highlight=False, markup=False, **settings)
