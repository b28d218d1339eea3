"""Train a recipe, measure the result, write its report."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fsframework.api.evaluation import EvaluationResult
from fsframework.api.models import Overrides, as_sets
from fsframework.core.errors import UserError
from fsframework.core.part import providers
from fsframework.core.registry import GROUP
from fsframework.evaluation import evaluate as evaluation
from fsframework.models.run import Run
from fsframework.recipe.check import check
from fsframework.recipe.check import loaded as checked
from fsframework.recipe.schema import Recipe
from fsframework.report.run_report import write_report
from fsframework.training import trainer
from fsframework.training.distributed import leave, process_group
from fsframework.training.tensorboard import check_installed
from fsframework.utils.device import pick_device


@dataclass(frozen=True)
class TrainingResult:
    """A finished run; `load_swapper(result.path)` swaps with it."""

    path: Path  # of the run's folder
    report: Path  # report.html
    evaluation: EvaluationResult | None  # None if the recipe measures nothing


def train(
    recipe: Recipe | str | Path,
    out: str | Path | None = None,
    *,
    overrides: Overrides = (),
    resume: bool = False,
    overwrite: bool = False,
    tensorboard: bool = False,
    device: str | None = None,
    echo: Callable[[str], None] | None = None,
) -> TrainingResult:
    """Train a recipe, measure the result, write a report, and return where they are.

    Processes that torchrun starts share the training; all but the first end here.

    Parameters
    ----------
    recipe:
        What `load_recipe` returns or takes.
    out:
        The run's folder; by default runs/ and the recipe's name.
    overrides:
        As of `load_recipe`, for a recipe given by file or name.
    resume, overwrite:
        Continue or replace the run in that folder.
    tensorboard:
        Write curves for TensorBoard, too.
    device:
        As torch names it. None: the GPU if there is one.
    echo:
        Receives the line that names the distributions whose components are run.

    Raises
    ------
    UserError
        The recipe is wrong, the folder holds a run already, or data cannot be used.
    """
    if tensorboard:
        check_installed()
    # Networks that do not fit are found before anything is trained.
    if isinstance(recipe, Recipe):
        if overrides:
            raise UserError("overrides: need a recipe's file or name; give them to load_recipe")
        check(recipe)
    else:
        recipe, _ = checked(str(recipe), as_sets(overrides))
    folder, found = Path(out) if out is not None else Path("runs") / recipe.name, pick_device(device)
    with process_group(found) as world:
        if world.first:
            Run(recipe, folder, found).check_place(resume, overwrite)
            if recipe.evaluation is not None:
                evaluation.preflight(recipe)  # what would stop it after the training stops it now
            run = Run.open(recipe, folder, resume=resume, overwrite=overwrite, device=str(found))
            if echo is not None:
                echo(f"components from {_providers(recipe)}")
        world.barrier()  # the others find a folder that is ready
        if not world.first:
            run = Run(recipe, folder, found)
        trainer.train(run, world, tensorboard)
    if not world.first:
        leave()
    metrics = EvaluationResult(evaluation.evaluate(run), device) if recipe.evaluation is not None else None
    return TrainingResult(folder, write_report(run), metrics)


def _providers(recipe: Recipe) -> str:
    """Return the distributions whose code a recipe runs; of others than the framework, what they bring."""
    shown = [
        distribution if distribution.partition(" ")[0] == GROUP else f"{distribution} ({', '.join(brought)})"
        for distribution, brought in providers(recipe).items()
    ]
    return "; ".join(shown)
