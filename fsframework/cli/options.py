"""Options and helpers that several commands of `fsf` share."""

import os
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem
    from rich.console import Console

FILE = click.Path(path_type=Path)
MODEL = "a run's folder, a model's file, or the name of an installed model"
DEFAULT_MODEL = "faceshifter-mixed-128; faceshifter-lfw-64 is faster"


def complete_models(context: click.Context, parameter: click.Parameter, incomplete: str) -> "list[CompletionItem]":
    """Return the shell's completions of a model: names of installed models, and files and folders."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file"), *map(CompletionItem, _model_names(incomplete))]


def complete_sets(context: click.Context, parameter: click.Parameter, incomplete: str) -> "list[CompletionItem]":
    """Return the shell's completions of `--set`: names of installed models for the key `init` of a stage."""
    if (match := re.fullmatch(r"(stages\.\d+\.init=)(.*)", incomplete)) is None:
        return []
    from click.shell_completion import CompletionItem

    return [CompletionItem(f"{match[1]}{name}") for name in _model_names(match[2])]


def _model_names(start: str) -> list[str]:
    from fsframework.core.registry import registry

    return [name for name in sorted(registry().models) if name.startswith(start)]


MODEL_OPTION = click.option(
    "--model",
    metavar="MODEL",
    shell_complete=complete_models,
    help=f"The trained method: {MODEL}. Default: {DEFAULT_MODEL}.",
)
SETS = click.option(
    "--set",
    "sets",
    metavar="KEY=VALUE",
    multiple=True,
    shell_complete=complete_sets,
    help="Override a value of the recipe, such as stages.0.batch_size=8; may be repeated.",
)
DEVICE = click.option("--device", metavar="NAME", help="cpu, cuda or cuda:N. Default: the GPU if there is one.")


def _set_threads(context: click.Context, parameter: click.Parameter, threads: int | None) -> None:
    """Set OMP_NUM_THREADS, which torch reads when it is imported."""
    if threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(threads)


THREADS = click.option(
    "--threads",
    type=click.IntRange(1),
    metavar="N",
    expose_value=False,
    callback=_set_threads,
    help="Number of threads of the networks on a CPU, as OMP_NUM_THREADS. Default: one for each CPU of this process.",
)
RUNTIME = click.option(
    "--runtime",
    type=click.Choice(["auto", "torch", "openvino", "onnx"]),
    default="auto",
    show_default=True,
    help="Runtime of the swapping networks. auto: OpenVINO on CPUs, where it is installed and can run the model, else "
    "torch; onnxruntime for .onnx files.",
)
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
