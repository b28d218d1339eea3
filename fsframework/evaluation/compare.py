"""Compare trained methods on the same pairs with the same benchmarks: one table, and a grid of images.

Data, pairs and benchmarks are those of the first method's recipe. Each method swaps at its own resolution.
"""

import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from fsframework.core.errors import UserError
from fsframework.data.eval_pairs import EvaluationPairs
from fsframework.evaluation.bootstrap import differences
from fsframework.evaluation.evaluate import Measured, dataset_of, measure, pairs_of, plan_of
from fsframework.evaluation.interpolation import INTERPOLATION, visualize
from fsframework.evaluation.protocol import Protocol
from fsframework.evaluation.results import METHOD, Comparison, Difference, MethodResult
from fsframework.evaluation.samples import clear, few
from fsframework.media.draw import grid
from fsframework.media.image_io import write_image
from fsframework.media.tensor import swap_images, to_images
from fsframework.models import store
from fsframework.models.store import Trained
from fsframework.recipe.schema import Evaluation, Recipe
from fsframework.utils.environment import environment

TIMED, WARM = 10, 2  # timed swaps of one pair, after warm-up swaps


def compare(
    wheres: Sequence[str | Path],
    folder: Path,
    sets: Sequence[str] = (),
    device: str | None = None,
    protocol: Protocol | None = None,
) -> Comparison:
    """Measure methods on the same pairs, write images to `folder`, and return the comparison.

    Parameters
    ----------
    wheres:
        Two or more models, each as for `store.load`.
    folder:
        Output folder: NNN_source.png, NNN_target.png, NNN_NAME.png for up to 8 pairs, and grid.png with all of them.
        `fsframework.evaluation.interpolation` adds NAME_interpolation.png and NAME_attributes.png for each method.
    sets:
        Overrides of the first method's recipe, such as `evaluation.pairs=100`.
    device:
        A torch device name; None: the GPU if there is one.
    protocol:
        Replaces the evaluation of the first recipe. `sets` override the protocol.

    Raises
    ------
    UserError
        A method cannot be loaded, has no generator, or cannot be measured by this evaluation.
    """
    methods = load_methods(wheres, [*(protocol.sets() if protocol else []), *sets], device)
    first = methods[0]
    plan = plan_of(first.recipe)
    results: list[MethodResult] = []
    first_measured: Measured | None = None
    images: dict[str, list[np.ndarray]] = {}
    visualizations: dict[str, np.ndarray] = {}
    for where, name, trained in zip(wheres, names_of(methods), methods, strict=True):
        sized_recipe, pairs = at_size(first.recipe, plan, trained.recipe.size)
        measured = measure(trained, plan, pairs, sized_recipe)
        first_measured = first_measured or measured
        batch = few(pairs)
        if not images:
            images = {"source": list(to_images(batch.source.image)), "target": list(to_images(batch.target.image))}
        with torch.no_grad():
            swaps = trained.swapper(batch.to(trained.device)).image
            images[name] = list(swap_images(swaps, batch.target.image))
        results.append(
            MethodResult(
                name=name,
                model=str(where),
                recipe_sha256=trained.recipe.digest(),
                size=trained.recipe.size,
                parameters=sum(parameter.numel() for parameter in trained.swapper.parameters()) or None,
                seconds=_seconds_per_swap(trained, pairs),
                metrics=measured.metrics,
                from_first=_differences(measured, first_measured),
            )
        )
        visualizations |= {
            f"{name}_{kind}": image for kind, image in visualize(trained.swapper, pairs, trained.device).items()
        }
    _write(folder, images)
    for kind, image in visualizations.items():
        write_image(folder / f"{kind}.png", image, synthetic=kind.endswith(INTERPOLATION))
    return Comparison(
        methods=results,
        pairs=len(pairs.pairs),
        evaluation=plan.model_dump(mode="json"),
        manifest=environment(first.device),
        protocol=None if protocol is None else protocol.described(sets),
    )


def _differences(measured: Measured, first: Measured) -> list[dict[str, Difference]]:
    """Return a method's differences from the first method by metric, for each benchmark in order."""
    # Matched by order: the heading of a benchmark differs where its judge took part in the training.
    ours, theirs = (list(result.values.values()) for result in (measured, first))
    return [
        differences(ours_values[METHOD], their_values[METHOD], people)
        for ours_values, their_values, people in zip(ours, theirs, first.people.values(), strict=True)
    ]


def load_methods(wheres: Sequence[str | Path], sets: Sequence[str] = (), device: str | None = None) -> list[Trained]:
    """Load models that can swap. `sets` overrides the recipe of the first one.

    Raises
    ------
    UserError
        A model cannot be loaded, or has no generator.
    """
    methods = [store.load(where, device, () if number else sets) for number, where in enumerate(wheres)]
    for where, trained in zip(wheres, methods, strict=True):
        if trained.recipe.networks.generator is None:
            raise UserError(f"{where}: is a face recogniser without a generator; remove it")
    return methods


def names_of(methods: Sequence[Trained]) -> list[str]:
    """Return the recipe names of methods; a repeated name gets a number as its suffix."""
    names: list[str] = []
    for trained in methods:
        number, name = 1, trained.recipe.name
        while name in names:
            number += 1
            name = f"{trained.recipe.name}-{number}"
        names.append(name)
    return names


def at_size(recipe: Recipe, plan: Evaluation, size: int) -> tuple[Recipe, EvaluationPairs]:
    """Return a recipe at another crop size, with its evaluation pairs. Raises UserError if there are no pairs."""
    sized_recipe = recipe.model_copy(update={"size": size})
    return sized_recipe, pairs_of(sized_recipe, plan, dataset_of(sized_recipe, plan.data))


@torch.no_grad()
def _seconds_per_swap(trained: Trained, pairs: EvaluationPairs) -> float:
    """Return the median time in seconds of one swap of an aligned crop, identity encoding included."""
    batch = next(iter(replace(pairs, pairs=pairs.pairs[:1]))).to(trained.device)
    times = []
    for _ in range(WARM + TIMED):
        start = time.perf_counter()
        swap_images(trained.swapper(batch).image, batch.target.image)  # synchronises with the device
        times.append(time.perf_counter() - start)
    return statistics.median(times[WARM:])


def _write(folder: Path, columns: dict[str, list[np.ndarray]]) -> None:
    clear(folder, "choose another with --out")
    for name, images in columns.items():
        for row, image in enumerate(images):
            write_image(folder / f"{row:03}_{name}.png", image, synthetic=name not in ("source", "target"))
    write_image(folder / "grid.png", grid(columns))
