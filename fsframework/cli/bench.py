"""Commands `fsf bench` and `fsf compare`: measure trained methods."""

import json
from pathlib import Path
from typing import Literal

import click

from fsframework.cli.options import (
    DEFAULT_MODEL,
    DEVICE,
    FILE,
    MODEL,
    PAIRS,
    PROTOCOL,
    SETS,
    THREADS,
    command_line,
    complete_models,
    console,
    warn_of_broken_plugins,
)


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option(
    "--model",
    "--run",
    "model",
    metavar="MODEL",
    shell_complete=complete_models,
    help=f"The model: {MODEL}. Default: {DEFAULT_MODEL}.",
)
@PAIRS
@PROTOCOL
@SETS
@click.option(
    "--runtime",
    type=click.Choice(["torch", "openvino", "onnx"]),
    help="Runtime of the measured method. Default: torch, which defines published figures; onnx for .onnx files.",
)
@click.option("--against", metavar="COMMIT", help="With speed: also time the code of that commit.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.option(
    "--save", metavar="FILE", type=FILE, help="Also write JSON to a file, with the command and the environment."
)
@click.option("--details", metavar="CSV", type=FILE, help="Also write the metrics of every pair to a CSV file.")
@DEVICE
@THREADS
def bench(
    names: tuple[str, ...],
    model: str | None,
    pairs: str | None,
    protocol: str | None,
    sets: tuple[str, ...],
    runtime: Literal["torch", "openvino", "onnx"] | None,
    against: str | None,
    as_json: bool,
    save: Path | None,
    details: Path | None,
    device: str | None,
) -> None:
    """Measure a trained method, or the speed of the code.

    NAME is a benchmark; by default, those of the method's recipe run. Change the evaluation by --set, such as
    --set evaluation.batch_size=8.

    `fsf bench speed` needs no model. Set its options in the same way, such as --set size=128 --set batch=4.
    """
    import fsframework as fsf

    warn_of_broken_plugins()
    result: fsf.EvaluationResult | fsf.Measurement
    if model is None and len(names) == 1 and fsf.is_standalone(names[0]):
        if any(value is not None for value in (pairs, details, protocol, runtime)):
            raise click.UsageError(
                "--pairs, --protocol, --runtime and --details are valid only for benchmarks that measure a method."
            )
        options = [*sets, f"against={json.dumps(against)}"] if against else sets
        result = fsf.measure_standalone(names[0], options, device, command_line())
    else:
        if against is not None:
            raise click.UsageError("--against is valid only for speed.")
        result = fsf.evaluate(
            model,
            names,
            pairs=pairs,
            protocol=protocol,
            overrides=sets,
            device=device,
            runtime=runtime,
            details=details,
            command=command_line(),
        )
    if save is not None:
        result.save(save)
    if as_json:
        click.echo(result.to_json())
    else:
        console().print(result)


@click.command()
@click.argument("methods", nargs=-1, required=True, metavar="MODEL...", shell_complete=complete_models)
@PAIRS
@PROTOCOL
@SETS
@click.option("--out", metavar="DIR", type=FILE, default=Path("comparison"), show_default=True, help="Output folder.")
@click.option("--save", metavar="FILE", type=FILE, help="Also write JSON to another file.")
@DEVICE
@THREADS
def compare(
    methods: tuple[str, ...],
    pairs: str | None,
    protocol: str | None,
    sets: tuple[str, ...],
    out: Path,
    save: Path | None,
    device: str | None,
) -> None:
    """Compare several methods on the same pairs.

    Each MODEL is a run's folder, a model's file, or the name of an installed model. Pairs and benchmarks are those of
    the first one's recipe, which --set changes. The command writes comparison.html, comparison.json, and images of up
    to eight pairs to DIR.
    """
    if len(methods) < 2:
        raise click.UsageError("At least two methods are required.")
    import fsframework as fsf

    warn_of_broken_plugins()
    result = fsf.compare(
        methods, out, pairs=pairs, protocol=protocol, overrides=sets, device=device, command=command_line()
    )
    if save is not None:
        result.save(save)
    console().print(result)
    click.echo(f"comparison: {out / 'comparison.html'}")
