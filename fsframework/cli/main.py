"""The command line, `fsf`. A command parses options, calls one function, and prints the result.

Modules that need torch are imported inside the commands, so that help is fast. Exit statuses: 1 and a line on standard
error for a UserError, 2 for wrong usage, 130 for Ctrl-C, 143 for SIGTERM.
"""

import os
import signal
import sys
from types import FrameType
from typing import NoReturn

import click

from fsframework.cli import bench, plugins, run, serve, swap
from fsframework.core.errors import UserError

# Iterations for which a thread of GNU's OpenMP, which torch's wheels have, waits before it sleeps. By default threads
# that wait for each other keep CPUs busy: beside busy processes, steps and swaps took up to 50 times as long. With
# 3000, a swap on two idle cores takes 4 % longer.
SPIN = "3000"


def main() -> None:
    """Run `fsf` and exit the process."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPIN)  # read when torch is imported
    signal.signal(signal.SIGTERM, _terminate)
    try:
        sys.exit(fsf.main(prog_name="fsf", standalone_mode=False))
    except UserError as error:
        click.echo(error, err=True)
        sys.exit(1)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        click.echo("fsf: interrupted", err=True)
        sys.exit(130)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    os.write(2, b"fsf: terminated\n")  # handlers must not use Python's buffers, which may be locked
    raise SystemExit(128 + number)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="fsframework", prog_name="fsf")
def fsf() -> None:
    """Train, measure and use face swappers.

    A recipe describes a method and its training; plugins provide the components. `fsf plugins list` lists them.
    """


for command in (
    run.run,
    run.status,
    run.check,
    run.export_model,
    bench.bench,
    bench.compare,
    swap.swap,
    swap.extract_faces,
    swap.verify,
    serve.serve_swaps,
    serve.study,
    plugins.plugins,
    plugins.schema,
):
    fsf.add_command(command)
