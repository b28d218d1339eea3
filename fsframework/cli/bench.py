"""`fsf bench` and `fsf compare`: figures."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fsframework.cli.options import (
    DEVICE,
    FILE,
    MODEL,
    PAIRS,
    PROTOCOL,
    SETS,
    command_line,
    console,
    warn_of_broken_plugins,
    with_pairs,
)

if TYPE_CHECKING:
    from rich.console import RenderableType


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--model", "--run", "model", metavar="MODEL", help=f"What is measured: {MODEL}. By default the last.")
@PAIRS
@PROTOCOL
@SETS
@click.option("--against", metavar="COMMIT", help="With speed: time that commit's code beside today's.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.option("--save", metavar="FILE", type=FILE, help="Write JSON to a file, too, with the command and the machine.")
@click.option("--details", metavar="CSV", type=FILE, help="Write every pair's figures to a file, too.")
@DEVICE
def bench(
    names: tuple[str, ...],
    model: str | None,
    pairs: str | None,
    protocol: str | None,
    sets: tuple[str, ...],
    against: str | None,
    as_json: bool,
    save: Path | None,
    details: Path | None,
    device: str | None,
) -> None:
    """Measure a trained method, or the speed of the code.

    NAME is a benchmark; without one, those of the method's recipe measure. Change the evaluation by --set, such as
    --set evaluation.batch_size=8.

    `fsf bench speed` measures no method; its options are set in the same way, such as --set size=128 --set batch=4.
    """
    from fsframework.evaluation.evaluate import bench, described, table
    from fsframework.evaluation.protocol import Protocol
    from fsframework.evaluation.standalone import measure, rows_table
    from fsframework.models.store import DEFAULT
    from fsframework.recipe.schema import is_alone
    from fsframework.utils.files import write_text

    warn_of_broken_plugins()
    command = {"command": command_line()}
    shown: Callable[[dict[str, Any]], RenderableType]
    if model is None and len(names) == 1 and is_alone(names[0]):
        if pairs is not None or details is not None or protocol is not None:
            raise click.UsageError("--pairs, --protocol and --details go with benchmarks that measure a method.")
        asked = list(sets) + ([f"against={json.dumps(against)}"] if against else [])
        found = command | measure(names[0], asked, device)
        kept, shown = found, rows_table
    else:
        if against is not None:
            raise click.UsageError("--against goes with speed.")
        chosen = None if protocol is None else Protocol.load(protocol)
        found = bench(model or DEFAULT, list(names), with_pairs(sets, pairs), device, details, chosen)
        kept, shown = command | described(found, device), table
    if save is not None:
        write_text(save, json.dumps(kept, indent=2) + "\n")
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        console().print(shown(found))


@click.command()
@click.argument("methods", nargs=-1, required=True, metavar="MODEL...")
@PAIRS
@PROTOCOL
@SETS
@click.option("--out", metavar="DIR", type=FILE, default=Path("comparison"), show_default=True, help="For the results.")
@click.option("--save", metavar="FILE", type=FILE, help="Write the JSON to another file, too.")
@DEVICE
def compare(
    methods: tuple[str, ...],
    pairs: str | None,
    protocol: str | None,
    sets: tuple[str, ...],
    out: Path,
    save: Path | None,
    device: str | None,
) -> None:
    """Measure several methods beside each other.

    Each MODEL is a run's folder, a model's file, or the name of an installed model. All swap the same pairs and are
    judged by the same benchmarks: those of the first one's recipe, which --set changes. DIR gets comparison.html,
    comparison.json, and pictures of up to eight pairs.
    """
    if len(methods) < 2:
        raise click.UsageError("Name two methods or more.")
    import datetime

    from fsframework.evaluation.compare import compare
    from fsframework.evaluation.protocol import Protocol
    from fsframework.report.comparison import table, write_page
    from fsframework.utils.files import write_text

    warn_of_broken_plugins()
    chosen = None if protocol is None else Protocol.load(protocol)
    found = compare(methods, out, with_pairs(sets, pairs), device, chosen)
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    kept = {"command": command_line(), "date": now, **found}
    for file in filter(None, [out / "comparison.json", save]):
        write_text(file, json.dumps(kept, indent=2) + "\n")
    write_text(out / "comparison.html", write_page(found, out))
    console().print(table(found))
    click.echo(f"comparison: {out / 'comparison.html'}")
