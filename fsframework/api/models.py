"""Recipes and trained models, by name or file."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fsframework.core.registry import registry
from fsframework.models import store
from fsframework.models.onnx_export import Checked
from fsframework.recipe.check import check_file
from fsframework.recipe.schema import Recipe

Overrides = Sequence[str] | Mapping[str, Any]


def list_models() -> list[str]:
    """Return the names of the installed models, which `load_swapper` takes."""
    return sorted(registry().models)


def load_recipe(path_or_name: str | Path, overrides: Overrides = ()) -> Recipe:
    """Read and check a recipe, and return it.

    Parameters
    ----------
    path_or_name:
        A YAML file, or the name of a recipe that comes with the framework.
    overrides:
        Changed values by key, {"stages.0.steps": 10}, or as on the command line, ["stages.0.steps=10"].

    Raises
    ------
    UserError
        With everything that is wrong, one line for each mistake.
    """
    return Recipe.load(str(path_or_name), as_sets(overrides))


def check_recipe(path_or_name: str | Path, overrides: Overrides = ()) -> str:
    """Check that a recipe's networks fit together, without training, and return a summary. Raises UserError."""
    return check_file(str(path_or_name), as_sets(overrides))


def export_model(model: str | Path, out: str | Path, overrides: Overrides = ()) -> Checked | None:
    """Write a trained method as one file, .safetensors or .onnx, and return how far ONNX is from torch.

    `model` is what `load_swapper` takes; of a .safetensors file None is returned.

    Raises
    ------
    UserError
        There is no such model, or it cannot be written.
    """
    return store.export(model, Path(out), as_sets(overrides))


def as_sets(overrides: Overrides) -> list[str]:
    """Return overrides as the command line writes them: KEY=VALUE."""
    if isinstance(overrides, Mapping):
        return [f"{key}={json.dumps(value)}" for key, value in overrides.items()]
    return list(overrides)
