"""Trained methods: a run's folder, or a model, which is one file to hand on.

A model is a safetensors file: the weights of a run's finished stages in half precision and, in its metadata, the recipe
with every default written out. Plugins bring models by the hook `register_models`; `--model` and a stage's `init` take
their names. What only swaps can also be an ONNX file (`fsframework.models.onnx_export`), which onnxruntime runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from packaging.requirements import Requirement

from fsframework.core.errors import UserError
from fsframework.core.part import providers
from fsframework.core.registry import GROUP, Model, registry
from fsframework.core.swapper import Swapper
from fsframework.models.onnx_export import Checked, cached, write
from fsframework.models.onnx_runtime import SUFFIX, OnnxSwapper, parse
from fsframework.models.onnx_runtime import recipe_of as recipe_of_onnx
from fsframework.models.run import Run, load_weights
from fsframework.recipe.build import build_swapper
from fsframework.recipe.schema import Recipe
from fsframework.utils.device import pick_device
from fsframework.utils.weights import load_metadata, save_state

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
        There is no such thing, it is damaged, an override is wrong, or the device cannot be used.
    """
    if Path(where).is_dir():
        run = Run.load(Path(where), device, sets)
        return Trained(run.recipe, run.load_swapper(), run.device)
    model = find(where)
    if model.file.suffix == SUFFIX:
        return _load_onnx(model, device, sets)
    recipe = recipe_of(model, sets)
    swapper = build_swapper(recipe)
    swapper.load()
    held = load_weights(swapper, model.file, model.sha256)
    if "refiner" not in held:
        swapper.drop_untrained_refiner()
    found = pick_device(device)
    return Trained(recipe, swapper.eval().requires_grad_(False).to(found), found)


def _load_onnx(model: Model, device: str | None, sets: Sequence[str]) -> Trained:
    if device not in (None, "cpu"):
        raise UserError(f"--device {device}: ONNX models run on the CPU; leave --device out")
    parsed = parse(model.file, model.sha256)
    recipe = recipe_of_onnx(model.file, parsed, sets)
    return Trained(recipe, OnnxSwapper(parsed, recipe, str(model.file)).eval(), torch.device("cpu"))


def for_runtime(where: str | Path | None, runtime: Literal["torch", "onnx"] | None) -> str | Path:
    """What `load` takes to run a model by a runtime: the model, or an ONNX file of it in the cache folder.

    Without a model it is `DEFAULT`; without a runtime that of the model's file.

    Raises
    ------
    UserError
        There is no such model, it is ONNX and torch is asked for, or it cannot be exported.
    """
    if where is None:
        where = DEFAULT
    if runtime is None:
        return where
    is_onnx = not Path(where).is_dir() and find(where).file.suffix == SUFFIX
    if is_onnx and runtime == "torch":
        raise UserError(f"{where}: is an ONNX model, which torch does not run; leave --runtime out")
    if is_onnx or runtime == "torch":
        return where
    trained = load(where, "cpu")
    return cached(trained.recipe, trained.swapper)


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
    if model.file.suffix == SUFFIX:
        return recipe_of_onnx(model.file, parse(model.file, model.sha256), sets)
    text = load_metadata(model.file).get("recipe")
    if text is None:
        raise UserError(f"{model.file}: holds no recipe, so it is no model; make one with: fsf export RUN FILE")
    return Recipe.parse(text, str(model.file), sets)


def export(where: str | Path, out: Path, sets: Sequence[str] = ()) -> Checked | None:
    """Write a trained method as one file.

    Parameters
    ----------
    where:
        What `load` takes.
    out:
        Ends in .safetensors or .onnx; a file there is replaced.
    sets:
        Changes of the recipe that goes with it, such as other places of the data.

    Returns
    -------
    How far an ONNX file is from torch; of other files None.

    Raises
    ------
    UserError
        There is no such method, no stage is finished, an override is wrong, the method cannot be written as ONNX, or
        the file cannot be written.
    """
    if out.suffix not in (".safetensors", SUFFIX):
        raise UserError(f"{out}: models end in .safetensors or {SUFFIX}; choose another name")
    trained = load(where, "cpu", sets)
    if isinstance(trained.swapper, OnnxSwapper):
        raise UserError(f"{where}: is an ONNX model, from which nothing else can be made; name what it was made of")
    recipe = _requiring(trained.recipe)
    if out.suffix == SUFFIX:
        return write(recipe, trained.swapper, out)
    state = {
        f"{name}.{key}": value.half() if value.is_floating_point() else value
        for name, part in trained.swapper.trained_parts()
        for key, value in part.state_dict().items()
    }
    save_state(out, state, {"recipe": recipe.dump_yaml()})
    return None


def _requiring(recipe: Recipe) -> Recipe:
    """The recipe, which requires the distributions that bring its components, other than ours."""
    known = {Requirement(each).name for each in recipe.requires}
    brought = [distribution.split(" ") for distribution in providers(recipe)]
    more = [f"{name}>={version}" for name, version in brought if name not in known | {GROUP}]
    return recipe.model_copy(update={"requires": [*recipe.requires, *more]})
