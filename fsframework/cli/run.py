"""`fsf run`, `fsf status`, `fsf check`, `fsf export`: recipes, and the runs that come of them."""

import json
from dataclasses import asdict
from pathlib import Path

import click

from fsframework.cli.options import DEVICE, FILE, SETS, console, warn_of_broken_plugins
from fsframework.core.errors import UserError


@click.command()
@click.argument("recipe")
@SETS
@click.option("--out", metavar="DIR", type=FILE, help="The run's folder. By default runs/ and the recipe's name.")
@click.option("--resume", is_flag=True, help="Go on with the run that the folder holds.")
@click.option("--overwrite", is_flag=True, help="Replace the run that the folder holds.")
@click.option(
    "--on-error", type=click.Choice(["stop", "skip"]), help="What is done about what is wrong with shards of data."
)
@click.option("--tensorboard", is_flag=True, help="Write curves for TensorBoard, too, into the run's folder.")
@DEVICE
def run(
    recipe: str,
    sets: tuple[str, ...],
    out: Path | None,
    resume: bool,
    overwrite: bool,
    on_error: str | None,
    tensorboard: bool,
    device: str | None,
) -> None:
    """Train a recipe, measure the result, write a report.

    RECIPE is a YAML file, or the name of a recipe that comes with fsf. Ctrl-C leaves a state that --resume goes on
    from exactly. Several processes, each with a GPU of its own where there are GPUs, share the training when torchrun
    starts them: torchrun --nproc-per-node 2 -m fsframework run RECIPE.
    """
    if resume and overwrite:
        raise click.UsageError("--resume and --overwrite exclude each other.")
    import fsframework as fsf

    warn_of_broken_plugins()
    result = fsf.train(
        recipe,
        out,
        overrides=[*sets, f"data.on_error={on_error}"] if on_error else sets,
        resume=resume,
        overwrite=overwrite,
        tensorboard=tensorboard,
        device=device,
        echo=click.echo,
    )
    if result.evaluation is not None:
        console().print(result.evaluation)
    click.echo(f"report: {result.report}")


@click.command()
@click.argument("folder", metavar="RUN", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def status(folder: Path, as_json: bool) -> None:
    """Say where a run stands, while it trains or afterwards.

    RUN is its folder. Steps, rate, remaining time, the step from which --resume would go on, and the losses of the last
    line of its log are shown for each stage.
    """
    from fsframework.models.run_status import status, table

    found = status(folder)
    if as_json:
        click.echo(json.dumps(asdict(found) | {"folder": str(folder)}, indent=2))
    else:
        console().print(table(found))


@click.command()
@click.argument("recipes", nargs=-1, required=True, metavar="RECIPE...")
@SETS
@click.pass_context
def check(context: click.Context, recipes: tuple[str, ...], sets: tuple[str, ...]) -> None:
    """Find mistakes in recipes without training.

    Wrong keys and values are found, and networks that do not fit together. RECIPE is a YAML file or the name of a
    recipe that comes with fsf.
    """
    import fsframework as fsf

    warn_of_broken_plugins()
    failed = False
    for recipe in recipes:
        try:
            click.echo(fsf.check_recipe(recipe, sets))
        except UserError as error:
            click.echo(error, err=True)
            failed = True
    context.exit(1 if failed else 0)


@click.command("export")
@click.argument("model", metavar="MODEL")
@click.argument("out", metavar="FILE", type=FILE)
@SETS
def export_model(model: str, out: Path, sets: tuple[str, ...]) -> None:
    """Write a trained method as one file, which --model takes.

    MODEL is a run's folder, a model's file, or the name of an installed model. If FILE ends in .safetensors it gets the
    trained weights in half precision and the recipe. If it ends in .onnx it gets the whole swap of aligned crops, in
    single precision, for onnxruntime and other programs: from source and target, (B, 3, S, S) in [-1, 1], to swap. It
    is compared with torch before it is there. --set changes the recipe that goes with it, such as the places of the
    data.
    """
    import fsframework as fsf

    checked = fsf.export_model(model, out, sets)
    click.echo(f"model: {out} ({out.stat().st_size / 1e6:.1f} MB)")
    if checked is not None:
        batches = " and ".join(map(str, checked.batches))
        click.echo(f"onnxruntime's swaps are at most {checked.difference:.1e} from torch's, in batches of {batches}")
