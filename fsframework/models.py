"""Trained methods: a run's folder, or a model, which is one file to hand on.

A model is a safetensors file: the weights of a run's finished stages in half precision and, in its metadata, the recipe
with every default written out. Plugins bring models by the hook `register_models`; `--model` and a stage's `init` take
their names.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from packaging.requirements import Requirement

from fsframework.components import Swapper
from fsframework.errors import UserError
from fsframework.plugins import GROUP, Model, providers, registry
from fsframework.recipe import Recipe, build_swapper
from fsframework.runs import Run, load_weights, pick_device
from fsframework.weights import load_metadata, save_state

DEFAULT = "faceshifter-lfw-64"  # the model of those who name none


@dataclass(frozen=True, eq=False)
class Trained:
    """A method that is ready to swap: in eval mode, on its device."""

    recipe: Recipe
    swapper: Swapper
    device: torch.device


def load(where: str | Path, device: str | None = None, sets: Sequence[str] = ()) -> Trained:
    """A trained method.

    Parameters
    ----------
    where:
        A run's folder, a model's file, or the name of an installed model. What exists on the disk wins.
    device:
        As torch names it; None: the GPU if there is one.
    sets:
        Overrides of its recipe, such as `evaluation.pairs=100`.

    Raises
    ------
    UserError
        There is no such thing, it is damaged, or an override is wrong.
    """
    if Path(where).is_dir():
        run = Run.load(Path(where), device, sets)
        return Trained(run.recipe, run.load_swapper(), run.device)
    model = find(where)
    recipe = recipe_of(model, sets)
    swapper = build_swapper(recipe)
    swapper.load()
    held = load_weights(swapper, model.file, model.sha256)
    if "refiner" not in held:
        swapper.drop_untrained_refiner()
    found = pick_device(device)
    return Trained(recipe, swapper.eval().requires_grad_(False).to(found), found)


def find(where: str | Path) -> Model:
    """A model's file, or an installed model. Raises UserError if there is neither."""
    path = Path(where)
    if path.is_file():
        return Model(path.stem, path, None)
    models = registry().models
    if str(where) in models:
        return models[str(where)]
    known = ", ".join(sorted(models)) or "none is installed"
    raise UserError(f"{where}: no such model; name a run's folder, a model's file, or one of: {known}")


def weights_files(where: str | Path) -> list[Path]:
    """The files that hold a method's weights: a model's, or those of a run's finished stages. Raises UserError."""
    if not Path(where).is_dir():
        return [find(where).file]
    run = Run.load(Path(where), "cpu")
    return [run.weights_file(stage) for stage in run.recipe.stages if run.finished(stage)]


def recipe_of(model: Model, sets: Sequence[str] = ()) -> Recipe:
    """The recipe that a model was made by. Raises UserError if the file holds none."""
    text = load_metadata(model.file).get("recipe")
    if text is None:
        raise UserError(f"{model.file}: holds no recipe, so it is no model; make one with: fsf export RUN FILE")
    return Recipe.parse(text, str(model.file), sets)


def export(folder: Path, out: Path, sets: Sequence[str] = ()) -> None:
    """Write a run's trained networks as a model.

    Parameters
    ----------
    folder:
        The run's.
    out:
        Ends in .safetensors; a file there is replaced.
    sets:
        Changes of the recipe that goes with it, such as other places of the data.

    Raises
    ------
    UserError
        There is no such run, no stage is finished, an override is wrong, or the file cannot be written.
    """
    if out.suffix != ".safetensors":
        raise UserError(f"{out}: models end in .safetensors; choose another name")
    run = Run.load(folder, "cpu", sets)
    swapper = run.load_swapper()
    state = {
        f"{name}.{key}": value.half() if value.is_floating_point() else value
        for name, part in swapper.trained_parts()
        for key, value in part.state_dict().items()
    }
    save_state(out, state, {"recipe": _requiring(run.recipe).dump_yaml()})


def _requiring(recipe: Recipe) -> Recipe:
    """The recipe, which requires the distributions that bring its components, other than ours."""
    known = {Requirement(each).name for each in recipe.requires}
    brought = [distribution.split(" ") for distribution in providers(recipe)]
    more = [f"{name}>={version}" for name, version in brought if name not in known | {GROUP}]
    return recipe.model_copy(update={"requires": [*recipe.requires, *more]})
