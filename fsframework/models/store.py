"""Load and export trained methods: a run's folder, or a model in one file.

A model is a safetensors file. It contains the weights of a run's finished stages in half precision and, in its
metadata, the recipe with every default. Plugins provide models by the hook `register_models`; `--model` and a stage's
`init` accept their names. A model for inference only can also be an ONNX file (`fsframework.models.onnx_export`), which
onnxruntime runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import torch
from packaging.requirements import Requirement

from fsframework.core.errors import UserError, did_you_mean
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

DEFAULT = "faceshifter-lfw-128"  # the default model


@dataclass(frozen=True, eq=False)
class Trained:
    """Trained method, ready for inference: in eval mode, on its device."""

    recipe: Recipe
    swapper: Swapper
    device: torch.device


def load(where: str | Path, device: str | None = None, sets: Sequence[str] = (), unfinished: bool = False) -> Trained:
    """Return a trained method.

    Parameters
    ----------
    where:
        A run's folder, a model's file, or the name of an installed model. Existing paths take precedence.
    device:
        torch's name of the device; None: the GPU if there is one.
    sets:
        Overrides of the recipe, such as `evaluation.pairs=100`.
    unfinished:
        Whether a run's stage in training counts (`Run.load_swapper`).

    Raises
    ------
    UserError
        There is no such method, it is damaged, an override is wrong, or the device cannot be used.
    """
    if Path(where).is_dir():
        run = Run.load(Path(where), device, sets)
        return Trained(run.recipe, run.load_swapper(unfinished), run.device)
    model = find(where)
    if model.file.suffix == SUFFIX:
        return _load_onnx(model, device, sets)
    recipe = recipe_of(model, sets)
    swapper = build_swapper(recipe)
    swapper.load()
    loaded = load_weights(swapper, model.file, model.sha256)
    if "refiner" not in loaded:
        swapper.drop_untrained_refiner()
    chosen = pick_device(device)
    return Trained(recipe, swapper.eval().requires_grad_(False).to(chosen), chosen)


def _load_onnx(model: Model, device: str | None, sets: Sequence[str]) -> Trained:
    """Return the trained method of an ONNX model."""
    if device not in (None, "cpu"):
        raise UserError(f"--device {device}: ONNX models run on the CPU; leave --device out")
    parsed = parse(model.file, model.sha256)
    recipe = recipe_of_onnx(model.file, parsed, sets)
    return Trained(recipe, OnnxSwapper(parsed, recipe, str(model.file)).eval(), torch.device("cpu"))


def for_runtime(where: str | Path | None, runtime: Literal["torch", "onnx"] | None) -> str | Path:
    """Return the argument of `load` that runs a model by a runtime: the model, or its ONNX file in the cache folder.

    The default model is `DEFAULT`, the default runtime that of the model's file.

    Raises
    ------
    UserError
        There is no such model, it is ONNX and torch is requested, or it cannot be exported.
    """
    if where is None:
        where = DEFAULT
    if runtime is None:
        return where
    is_onnx = not Path(where).is_dir() and find(where).file.suffix == SUFFIX
    if is_onnx and runtime == "torch":
        raise UserError(f"{where}: is an ONNX model, which torch cannot run; leave --runtime out")
    if is_onnx or runtime == "torch":
        return where
    trained = load(where, "cpu")
    return cached(trained.recipe, trained.swapper)


def find(where: str | Path) -> Model:
    """Return a model's file, or an installed model.

    Raises UserError if there is neither.
    """
    path = Path(where)
    if path.is_file():
        return Model(path.stem, path, None)
    models = registry().models
    if str(where) in models:
        return models[str(where)]
    installed = ", ".join(sorted(models)) or "none is installed"
    hint = did_you_mean(str(where), models)
    remedy = f"{hint} Otherwise use" if hint else "use"
    raise UserError(f"{where}: no such model; {remedy} a run's folder, a model's file, or one of: {installed}")


def largest_swapper() -> tuple[str, int]:
    """Return the name and the crop size of the installed face swapper with the largest crops; "" and 0 without any.

    Models whose file is missing, damaged or incompatible are skipped.
    """
    sizes = {name: _crop_size(model) for name, model in sorted(registry().models.items())}
    return max({"": 0, **sizes}.items(), key=lambda item: item[1])


@cache
def _crop_size(model: Model) -> int:
    """Return the crop size of a face swapper, 0 for other models and for files that cannot be read."""
    try:
        recipe = recipe_of(model)
    except UserError:
        return 0
    return recipe.size if recipe.networks.generator is not None else 0


def weights_files(where: str | Path) -> list[Path]:
    """Return the paths of a method's weights: a model's file, or those of a run's finished stages.

    Raises UserError if there is no such method.
    """
    if not Path(where).is_dir():
        return [find(where).file]
    run = Run.load(Path(where), "cpu")
    return [run.weights_file(stage) for stage in run.recipe.stages if run.finished(stage)]


def recipe_at(where: str | Path) -> Recipe:
    """Return the recipe of a trained method, without its weights.

    Raises UserError if there is no such method.
    """
    return Run.load(Path(where), "cpu").recipe if Path(where).is_dir() else recipe_of(find(where))


def recipe_of(model: Model, sets: Sequence[str] = ()) -> Recipe:
    """Return a model's recipe.

    Raises UserError if the file contains none.
    """
    if model.file.suffix == SUFFIX:
        return recipe_of_onnx(model.file, parse(model.file, model.sha256), sets)
    text = load_metadata(model.file).get("recipe")
    if text is None:
        raise UserError(f"{model.file}: contains no recipe, so it is not a model; write one with: fsf export RUN FILE")
    return Recipe.parse(text, str(model.file), sets)


def export(where: str | Path, out: Path, sets: Sequence[str] = (), unfinished: bool = False) -> Checked | None:
    """Write a trained method as one file; return the difference of an ONNX file from torch, for other files None.

    Parameters
    ----------
    where:
        As for `load`.
    out:
        Ends in .safetensors or .onnx; an existing file is replaced.
    sets:
        Overrides of the stored recipe, such as other folders of the data.
    unfinished:
        Whether the stage in training counts with the weights of its newest checkpoint (`Run.load_swapper`).

    Raises
    ------
    UserError
        There is no such method, no stage is finished, or an override is wrong. The method cannot be exported to ONNX,
        or the file cannot be written.
    """
    if out.suffix not in (".safetensors", SUFFIX):
        raise UserError(f"{out}: models end in .safetensors or {SUFFIX}; choose another name")
    if unfinished and not Path(where).is_dir():
        raise UserError(f"{where}: is no run's folder, so no stage of it is in training; leave --unfinished out")
    trained = load(where, "cpu", sets, unfinished)
    if isinstance(trained.swapper, OnnxSwapper):
        raise UserError(
            f"{where}: is an ONNX model, which cannot be exported; use the run or model that it was made from"
        )
    recipe = _with_requirements(trained.recipe)
    if out.suffix == SUFFIX:
        return write(recipe, trained.swapper, out)
    state = {
        f"{name}.{key}": value.half() if value.is_floating_point() else value
        for name, part in trained.swapper.trained_parts()
        for key, value in part.state_dict().items()
    }
    save_state(out, state, {"recipe": recipe.dump_yaml()})
    return None


def _with_requirements(recipe: Recipe) -> Recipe:
    """Return the recipe with the distributions of its components, other than ours, as requirements."""
    listed = {Requirement(requirement).name for requirement in recipe.requires}
    distributions = [distribution.split(" ") for distribution in providers(recipe)]
    more = [f"{name}>={version}" for name, version in distributions if name not in listed | {GROUP}]
    return recipe.model_copy(update={"requires": [*recipe.requires, *more]})
