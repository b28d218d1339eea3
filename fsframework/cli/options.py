"""Options that several commands of `fsf` take, and what several do."""

import json
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
    "--set", "sets", metavar="KEY=VALUE", multiple=True, help="Change one value, such as stages.0.batch_size=8."
)
DEVICE = click.option("--device", metavar="NAME", help="cpu, cuda or cuda:N. By default the GPU, if there is one.")
PAIRS = click.option("--pairs", metavar="CSV|N", help="A list of pairs, or how many to draw; in place of the recipe's.")
PROTOCOL = click.option(
    "--protocol", metavar="NAME|FILE", help="Measure as a protocol says, such as orl or lfw, instead of the recipe."
)


def with_pairs(sets: tuple[str, ...], pairs: str | None) -> list[str]:
    """The overrides, with that of --pairs."""
    if pairs is None:
        return list(sets)
    return [*sets, f"evaluation.pairs={pairs if pairs.isdecimal() else json.dumps(pairs)}"]


def command_line() -> str:
    """This command, as it could be typed again."""
    return shlex.join(["fsf", *sys.argv[1:]])


def warn_of_broken_plugins() -> None:
    from fsframework.core.registry import registry

    for problem in registry().problems:
        click.echo(f"warning: {problem}", err=True)


def console() -> "Console":
    """For tables on standard output; wide where there is no terminal to fit."""
    from rich.console import Console

    settings: dict[str, Any] = {} if sys.stdout.isatty() else {"width": 160}
    return Console(highlight=False, markup=False, **settings)
