"""Load and export trained methods: a run's folder, or a model in one file.

A model is a safetensors file. It contains the weights of a run's finished stages in half precision and, in its
metadata, the recipe with every default. Plugins provide models by the hook `register_models`; `--model` and a stage's
`init` accept their names. A model for inference only can also be an ONNX file (`fsframework.models.onnx_export`), which
onnxruntime runs.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

import torch
from packaging.requirements import Requirement

from fsframework.core.errors import UserError, did_you_mean
from fsframework.core.part import providers
from fsframework.core.registry import GROUP, Model, registry
from fsframework.core.swapper import Swapper
from fsframework.models import openvino_export, openvino_runtime
from fsframework.models.graph_export import Checked
from fsframework.models.onnx_export import cached, write
from fsframework.models.onnx_runtime import SUFFIX, OnnxSwapper, cut, parse
from fsframework.models.onnx_runtime import recipe_of as recipe_of_onnx
from fsframework.models.openvino_runtime import OpenVinoSwapper
from fsframework.models.run import Run, load_weights
from fsframework.ops.precision import Precision, has_bf16, wants_bf16
from fsframework.recipe.build import build_swapper
from fsframework.recipe.schema import Recipe
from fsframework.utils.device import pick_device
from fsframework.utils.weights import load_metadata, save_state

DEFAULT = "faceshifter-mixed-128"  # the default model


Runtime = Literal["auto", "torch", "openvino", "onnx"]


@dataclass(frozen=True, eq=False)
class Trained:
    """Trained method, ready for inference: in eval mode, on its device."""

    recipe: Recipe
    swapper: Swapper
    device: torch.device
    bf16: bool = False  # whether the precision is bfloat16; torch's networks then run under `autocast`


def load(
    where: str | Path,
    device: str | None = None,
    sets: Sequence[str] = (),
    runtime: Runtime | None = None,
    precision: Precision = "fp32",
    unfinished: bool = False,
) -> Trained:
    """Return a trained method.

    Parameters
    ----------
    where:
        A run's folder, a model's file, or the name of an installed model. Existing paths take precedence.
    device:
        torch's name of the device; None: the GPU if there is one.
    sets:
        Overrides of the recipe, such as `evaluation.pairs=100`.
    runtime:
        What runs the networks. "auto" is OpenVINO on CPUs, where it is installed and can run the method, else torch; a
        line on standard error says why an installed OpenVINO cannot. ONNX files run by onnxruntime then. None: torch,
        and onnxruntime for ONNX files.
    precision:
        Of generator and refiner; "auto" is bfloat16 where the processor multiplies it.
    unfinished:
        Whether a run's stage in training counts (`Run.load_swapper`).

    Raises
    ------
    UserError
        There is no such method, it is damaged, an override is wrong, or the device cannot be used. The runtime is not
        installed, or cannot run the method in this precision.
    """
    if runtime in ("openvino", "onnx") and device not in (None, "cpu"):
        raise UserError(f"--device {device}: --runtime {runtime} runs on the CPU; leave --device out")
    model = None if Path(where).is_dir() else find(where)
    if model is not None and is_onnx(where):
        if runtime == "torch":
            raise UserError(f"{where}: is an ONNX model, which torch cannot run; leave --runtime out")
        return _load_onnx(model, device, sets, runtime, precision)
    if runtime == "onnx":
        trained = _load_torch(where, model, "cpu", (), unfinished)
        file = cached(trained.recipe, trained.swapper)
        return _load_onnx(Model(trained.recipe.name, file, None), device, sets, runtime, precision)
    trained = _load_torch(where, model, "cpu" if runtime == "openvino" else device, sets, unfinished)
    if runtime == "openvino":
        return _by_openvino(trained, precision)
    if runtime == "auto" and _suits_openvino(trained):
        try:
            return _by_openvino(trained, precision)
        except UserError as error:
            problem = str(error).rpartition("; ")[0] or error  # without the remedy
            print(f"note: {problem}; torch runs it", file=sys.stderr)
    return replace(trained, bf16=wants_bf16(precision, trained.device, "--precision"))


def is_onnx(where: str | Path) -> bool:
    """Return whether a method is an ONNX file. Raise UserError if there is no such method."""
    return not Path(where).is_dir() and find(where).file.suffix == SUFFIX


def _load_torch(
    where: str | Path, model: Model | None, device: str | None, sets: Sequence[str], unfinished: bool
) -> Trained:
    """Return the trained method of a run's folder, or of a model's file."""
    if model is None:
        run = Run.load(Path(where), device, sets)
        return Trained(run.recipe, run.load_swapper(unfinished), run.device)
    recipe = recipe_of(model, sets)
    swapper = build_swapper(recipe)
    swapper.load()
    loaded = load_weights(swapper, model.file, model.sha256)
    if "refiner" not in loaded:
        swapper.drop_untrained_refiner()
    chosen = pick_device(device)
    return Trained(recipe, swapper.eval().requires_grad_(False).to(chosen), chosen)


def _load_onnx(
    model: Model, device: str | None, sets: Sequence[str], runtime: Runtime | None, precision: Precision
) -> Trained:
    """Return the trained method of an ONNX model."""
    cpu = torch.device("cpu")
    if device not in (None, "cpu"):
        raise UserError(f"--device {device}: ONNX models run on the CPU; leave --device out")
    parsed = parse(model.file, model.sha256)
    recipe = recipe_of_onnx(model.file, parsed, sets)
    swapper: Swapper
    if runtime == "openvino":
        bf16 = _openvino_bf16(precision, cpu)
        swapper = OpenVinoSwapper.of_onnx(cut(parsed, recipe.size, str(model.file)), recipe, str(model.file), bf16)
    else:
        if precision == "bf16":
            raise UserError(f"{model.file}: runs in float32 by onnxruntime; omit --precision")
        bf16, swapper = False, OnnxSwapper(parsed, recipe, str(model.file))
    return Trained(recipe, swapper.eval(), cpu, bf16)


def _suits_openvino(trained: Trained) -> bool:
    """Return whether `auto` means OpenVINO for a method that torch has loaded, if it can be converted."""
    is_swapper = trained.recipe.networks.generator is not None
    return is_swapper and trained.device.type == "cpu" and openvino_runtime.is_installed()


def _by_openvino(trained: Trained, precision: Precision) -> Trained:
    """Return a method as run by OpenVINO. Raise UserError as `openvino_export.load`."""
    bf16 = _openvino_bf16(precision, trained.device)
    swapper = openvino_export.load(trained.recipe, trained.swapper, bf16).eval()
    return replace(trained, swapper=swapper, bf16=bf16)


def _openvino_bf16(precision: Precision, device: torch.device) -> bool:
    """Return whether a precision means bfloat16 for OpenVINO.

    Raises UserError if bfloat16 is required, and this processor has none.
    """
    available = openvino_runtime.has_bf16()
    if precision == "bf16" and not available:
        raise UserError("--precision bf16: OpenVINO cannot compute it on this processor; omit it")
    return precision == "bf16" or (precision == "auto" and available and has_bf16(device))


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
    trained = load(where, "cpu", sets, unfinished=unfinished)
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
