"""Train a recipe, evaluate the result, and write its report."""

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
    """A finished run; `load_swapper(result.path)` loads its method."""

    path: Path  # of the run's folder
    report: Path  # report.html
    evaluation: EvaluationResult | None  # None if the recipe has no evaluation


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
    """Train a recipe, evaluate the result, write a report, and return their paths and metrics.

    Under torchrun, the processes train in parallel, and all but the first exit in this function.

    Parameters
    ----------
    recipe:
        A recipe, or its file or name as of `load_recipe`.
    out:
        The run's folder; by default runs/ followed by the recipe's name.
    overrides:
        As of `load_recipe`, for a recipe given by file or name.
    resume, overwrite:
        Resume or replace the run in that folder.
    tensorboard:
        Whether to write curves for TensorBoard.
    device:
        A torch device. None: the GPU if there is one.
    echo:
        Called with a line that lists the distributions of the components.

    Raises
    ------
    UserError
        The recipe is invalid, the folder has a run already, or the data cannot be used.
    """
    if tensorboard:
        check_installed()
    # Networks that do not fit together are reported before training.
    if isinstance(recipe, Recipe):
        if overrides:
            raise UserError("overrides: need a recipe's file or name; pass them to load_recipe")
        check(recipe)
    else:
        recipe, _ = checked(str(recipe), as_sets(overrides))
    folder, torch_device = Path(out) if out is not None else Path("runs") / recipe.name, pick_device(device)
    with process_group(torch_device) as world:
        if world.first:
            Run(recipe, folder, torch_device).check_place(resume, overwrite)
            if recipe.evaluation is not None:
                evaluation.preflight(recipe)  # report mistakes in the evaluation before training
            run = Run.open(recipe, folder, resume=resume, overwrite=overwrite, device=str(torch_device))
            if echo is not None:
                echo(f"components from {_providers(recipe)}")
        world.barrier()  # the folder exists before the other processes use it
        if not world.first:
            run = Run(recipe, folder, torch_device)
        trainer.train(run, world, tensorboard)
    if not world.first:
        leave()
    metrics = EvaluationResult(evaluation.evaluate(run), device) if recipe.evaluation is not None else None
    return TrainingResult(folder, write_report(run), metrics)


def _providers(recipe: Recipe) -> str:
    """Return the distributions of a recipe's components, and the components of third-party ones."""
    names = [
        distribution if distribution.partition(" ")[0] == GROUP else f"{distribution} ({', '.join(provided)})"
        for distribution, provided in providers(recipe).items()
    ]
    return "; ".join(names)
