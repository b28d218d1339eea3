"""`fsf serve` and `fsf study`: web servers."""

import json
from pathlib import Path
from typing import Literal

import click

from fsframework.cli.options import (
    DEVICE,
    FILE,
    MODEL_OPTION,
    PAIRS,
    RUNTIME,
    SETS,
    THREADS,
    command_line,
    complete_models,
    console,
    warn_of_broken_plugins,
)
from fsframework.core.errors import UserError

HOST = click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 accepts other machines."
)
PORT = click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="Port to listen on.")


@click.command("serve")
@MODEL_OPTION
@HOST
@PORT
@click.option(
    "--token",
    metavar="TEXT",
    envvar="FSF_SERVE_TOKEN",
    show_envvar=True,
    help="Token that requests must send. Default: none on 127.0.0.1, a random one on other addresses.",
)
@RUNTIME
@DEVICE
@THREADS
def serve_swaps(
    model: str | None,
    host: str,
    port: int,
    token: str | None,
    runtime: Literal["auto", "torch", "openvino", "onnx"],
    device: str | None,
) -> None:
    """Swap faces in the browser, or over HTTP.

    The page takes two pictures, by mouse, touch or keyboard. /openapi.json describes the HTTP interface for other
    programs. By default only this machine can connect. On other addresses requests must send a token, which is part of
    the printed URL. Results are marked like those of `fsf swap`.
    """
    _check_web("fsf serve", "serve")
    from fsframework.inference.face_swapper import FaceSwapper
    from fsframework.models.store import DEFAULT
    from fsframework.web.serve.app import serve

    warn_of_broken_plugins()

    def load() -> FaceSwapper:
        return FaceSwapper(DEFAULT if model is None else model, device, runtime=runtime)

    serve(load, host, port, token, click.echo)


@click.group()
def study() -> None:
    """Ask people which method is best.

    As in FaceShifter's user study, people choose among the results of several methods: which looks most like the
    source, which is most like the target in pose, expression and lighting, and which is most realistic.
    """


@study.command("new")
@click.argument("methods", nargs=-1, required=True, metavar="MODEL...", shell_complete=complete_models)
@click.option("-o", "folder", metavar="DIR", type=FILE, required=True, help="The study's folder, which is created.")
@click.option(
    "--trials",
    type=click.IntRange(1),
    default=30,
    show_default=True,
    help="Number of pairs, without the attention checks.",
)
@PAIRS
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Random seed of the pairs and all orders."
)
@SETS
@DEVICE
@THREADS
def new_study(
    methods: tuple[str, ...],
    folder: Path,
    trials: int,
    pairs: str | None,
    seed: int,
    sets: tuple[str, ...],
    device: str | None,
) -> None:
    """Swap pairs by all methods and write the files of a study.

    Each MODEL is a run's folder, a model's file, or the name of an installed model. All swap the same pairs, those of
    the first one's recipe, which --set changes. DIR gets the pictures, study.json, and consent.txt, the consent form
    of the participants, which should be edited.
    """
    from fsframework.recipe.overrides import with_pairs
    from fsframework.web.study.new import make

    warn_of_broken_plugins()
    created = make(methods, folder, trials, seed, with_pairs(sets, pairs), device, command_line())
    checks = sum(trial.is_check for trial in created.trials)
    click.echo(f"study: {folder} ({trials} trials, {checks} attention checks)")
    click.echo(f"next: edit {folder / 'consent.txt'}, then: fsf study serve {folder}")


@study.command("serve")
@click.argument("folder", metavar="DIR", type=FILE)
@HOST
@PORT
def serve_study(folder: Path, host: str, port: int) -> None:
    """Serve a study to participants and store their answers.

    DIR is a folder of `fsf study new`. The page supports large and small screens. Every answer is on the disk before it
    is confirmed, so the server may be stopped and started again at any time.
    """
    _check_web("fsf study serve", "study")
    from fsframework.web.study.server import serve

    serve(folder, host, port, click.echo)


@study.command("results")
@click.argument("folder", metavar="DIR", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.option("--csv", "csv", metavar="FILE", type=FILE, help="Also write every answer to a CSV file.")
def study_results(folder: Path, as_json: bool, csv: Path | None) -> None:
    """Show the results of a study.

    DIR is a study's folder, which may be served at the same time. For each question, the share of each method is shown
    with its 95 % interval, and the agreement of the participants. Those who fail the attention checks are excluded and
    counted.
    """
    from fsframework.utils.files import write_text
    from fsframework.web.study.results import answers_text, results, table

    outcome = results(folder)
    if csv is not None:
        write_text(csv, answers_text(folder))
    if as_json:
        click.echo(json.dumps(outcome, indent=2))
    else:
        console().print(table(outcome))


def _check_web(command: str, extra: str) -> None:
    """Raise UserError if the web packages are not installed."""
    from importlib.util import find_spec

    needed = ["fastapi", "uvicorn"] if extra == "study" else ["fastapi", "uvicorn", "python_multipart"]
    if any(find_spec(name) is None for name in needed):
        raise UserError(f'{command} needs FastAPI: pip install "fsframework[{extra}]"')
