"""The command line, `fsf`. A command parses, calls one function, prints.

Everything that needs torch is imported inside the commands, so that help comes at once. A user's mistake ends with
exit status 1 and a line on standard error (2 for a mistake in the command itself), Ctrl-C with 130, SIGTERM with 143.
"""

import os
import signal
import sys
from types import FrameType
from typing import NoReturn

import click

from fsframework.cli import bench, plugins, run, serve, swap
from fsframework.core.errors import UserError


def main() -> None:
    """Run `fsf` and leave the process."""
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
    os.write(2, b"fsf: terminated\n")  # a handler must not enter Python's buffers, which may be in use
    raise SystemExit(128 + number)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="fsframework", prog_name="fsf")
def fsf() -> None:
    """Train, measure and use face swappers.

    A recipe says what is trained, plugins bring the parts. `fsf plugins list` shows what is installed.
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
