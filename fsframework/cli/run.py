"""`fsf run`, `fsf status`, `fsf check`, `fsf export`: recipes, runs and model files."""

import json
from dataclasses import asdict
from pathlib import Path

import click

from fsframework.cli.options import DEVICE, FILE, SETS, THREADS, complete_models, console, warn_of_broken_plugins
from fsframework.core.errors import UserError


@click.command()
@click.argument("recipe")
@SETS
@click.option("--out", metavar="DIR", type=FILE, help="The run's folder. Default: runs/ and the recipe's name.")
@click.option("--resume", is_flag=True, help="Resume the run in the folder.")
@click.option("--overwrite", is_flag=True, help="Replace the run in the folder.")
@click.option(
    "--on-error",
    type=click.Choice(["stop", "skip"]),
    help="Whether damaged samples in shards stop the training or are skipped.",
)
@click.option("--tensorboard", is_flag=True, help="Also write curves for TensorBoard into the run's folder.")
@DEVICE
@THREADS
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

    RECIPE is a YAML file, or the name of a bundled recipe. After Ctrl-C, --resume continues with identical results.
    For data-parallel training in several processes, each with its own GPU if there are GPUs, use torchrun: torchrun
    --nproc-per-node 2 -m fsframework run RECIPE.
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
    """Show the progress of a run, during training or afterwards.

    RUN is its folder. For each stage it shows steps, rate, remaining time, the step from which --resume would continue,
    and the last logged losses.
    """
    from fsframework import run_status

    progress = run_status(folder)
    if as_json:
        click.echo(json.dumps(asdict(progress) | {"folder": str(folder)}, indent=2))
    else:
        console().print(progress)


@click.command()
@click.argument("recipes", nargs=-1, required=True, metavar="RECIPE...")
@SETS
@click.pass_context
def check(context: click.Context, recipes: tuple[str, ...], sets: tuple[str, ...]) -> None:
    """Find mistakes in recipes without training.

    It reports wrong keys and values, and networks that do not fit together. RECIPE is a YAML file or the name of a
    bundled recipe.
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
@click.argument("model", metavar="MODEL", shell_complete=complete_models)
@click.argument("out", metavar="FILE", type=FILE)
@SETS
@click.option("--unfinished", is_flag=True, help="Include the newest checkpoint of a run's stage in training.")
def export_model(model: str, out: Path, sets: tuple[str, ...], unfinished: bool) -> None:
    """Write a trained method as one file, which --model takes.

    MODEL is a run's folder, a model's file, or the name of an installed model. A FILE that ends in .safetensors holds
    the trained weights in half precision and the recipe. A FILE that ends in .onnx holds the swap of aligned crops in
    single precision, for onnxruntime and other programs: from source and target, (B, 3, S, S) in [-1, 1], to swap. Its
    output is compared with torch's before it is written. --set changes the stored recipe, such as the paths of its
    data.
    """
    import fsframework as fsf

    checked = fsf.export_model(model, out, sets, unfinished)
    click.echo(f"model: {out} ({out.stat().st_size / 1e6:.1f} MB)")
    if checked is not None:
        batches = " and ".join(map(str, checked.batches))
        click.echo(f"onnxruntime's swaps are at most {checked.difference:.1e} from torch's, in batches of {batches}")
