"""Load and check recipes, list and export trained models."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fsframework.core.registry import registry
from fsframework.models import store
from fsframework.models.graph_export import Checked
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
        A YAML file, or the name of a bundled recipe.
    overrides:
        Values by key, {"stages.0.steps": 10}, or as on the command line, ["stages.0.steps=10"].

    Raises
    ------
    UserError
        The recipe has mistakes; the message has a line for each.
    """
    return Recipe.load(str(path_or_name), as_sets(overrides))


def check_recipe(path_or_name: str | Path, overrides: Overrides = ()) -> str:
    """Check that a recipe's networks fit together, without training, and return a summary. Raise UserError if not."""
    return check_file(str(path_or_name), as_sets(overrides))


def export_model(
    model: str | Path, out: str | Path, overrides: Overrides = (), unfinished: bool = False
) -> Checked | None:
    """Write a trained method as one file and return the difference of ONNX and torch, None for .safetensors.

    Parameters
    ----------
    model:
        As of `load_swapper`.
    out:
        A path that ends in .safetensors or .onnx.
    overrides:
        Overrides of the stored recipe, as of `load_recipe`.
    unfinished:
        Whether a run's stage in training counts, with the weights of its newest checkpoint.

    Raises
    ------
    UserError
        There is no such model, or it cannot be written.
    """
    return store.export(model, Path(out), as_sets(overrides), unfinished)


def as_sets(overrides: Overrides) -> list[str]:
    """Return overrides in the command line's form, KEY=VALUE."""
    if isinstance(overrides, Mapping):
        return [f"{key}={json.dumps(value)}" for key, value in overrides.items()]
    return list(overrides)
