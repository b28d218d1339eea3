"""Several trained methods on the same pairs with the same judges: one table, and a grid of pictures.

Data, pairs and benchmarks are those of the first method's recipe; each method swaps at its own size.
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
from fsframework.media.tensor import to_images
from fsframework.models import store
from fsframework.models.store import Trained
from fsframework.recipe.schema import Evaluation, Recipe
from fsframework.utils.environment import environment

TIMED, WARM = 10, 2  # swaps of one pair whose median time counts, after some that do not


def compare(
    wheres: Sequence[str | Path],
    folder: Path,
    sets: Sequence[str] = (),
    device: str | None = None,
    protocol: Protocol | None = None,
) -> Comparison:
    """Measure methods beside each other, and write their pictures to `folder`.

    Parameters
    ----------
    wheres:
        What `models.load` takes, two or more.
    folder:
        Gets NNN_source.png, NNN_target.png, NNN_NAME.png for up to 8 pairs, grid.png with all of them, and what
        `fsframework.evaluation.interpolation` draws of each method, NAME_interpolation.png and NAME_attributes.png.
    sets:
        Overrides of the first method's recipe, such as `evaluation.pairs=100`.
    device:
        As torch names it; None: the GPU if there is one.
    protocol:
        Takes the place of the first recipe's evaluation; the overrides come after it.

    Raises
    ------
    UserError
        A method cannot be loaded, swaps nothing, or cannot be measured in this way.
    """
    methods = load_methods(wheres, [*(protocol.sets() if protocol else []), *sets], device)
    first = methods[0]
    plan = plan_of(first.recipe)
    results: list[MethodResult] = []
    first_measured: Measured | None = None
    pictures: dict[str, list[np.ndarray]] = {}
    explained: dict[str, np.ndarray] = {}
    for where, name, trained in zip(wheres, names_of(methods), methods, strict=True):
        shown, pairs = at_size(first.recipe, plan, trained.recipe.size)
        measured = measure(trained, plan, pairs, shown)
        first_measured = first_measured or measured
        batch = few(pairs)
        if not pictures:
            pictures = {"source": list(to_images(batch.source.image)), "target": list(to_images(batch.target.image))}
        with torch.no_grad():
            pictures[name] = list(to_images(trained.swapper(batch.to(trained.device)).image))
        results.append(
            MethodResult(
                name=name,
                model=str(where),
                recipe_sha256=trained.recipe.digest(),
                size=trained.recipe.size,
                parameters=sum(parameter.numel() for parameter in trained.swapper.parameters()) or None,
                seconds=_seconds(trained, pairs),
                metrics=measured.metrics,
                from_first=_apart(measured, first_measured),
            )
        )
        explained |= {
            f"{name}_{kind}": image for kind, image in visualize(trained.swapper, pairs, trained.device).items()
        }
    _write(folder, pictures)
    for kind, image in explained.items():
        write_image(folder / f"{kind}.png", image, synthetic=kind.endswith(INTERPOLATION))
    return Comparison(
        methods=results,
        pairs=len(pairs.pairs),
        evaluation=plan.model_dump(mode="json"),
        manifest=environment(first.device),
        protocol=None if protocol is None else protocol.described(sets),
    )


def _apart(measured: Measured, first: Measured) -> list[dict[str, Difference]]:
    """The differences of a method's figures from the first method's, a mapping for each benchmark in order."""
    ours, theirs = (list(each.values.values()) for each in (measured, first))  # headings differ where judges are own
    return [
        differences(own[METHOD], other[METHOD], people)
        for own, other, people in zip(ours, theirs, first.people.values(), strict=True)
    ]


def load_methods(wheres: Sequence[str | Path], sets: Sequence[str] = (), device: str | None = None) -> list[Trained]:
    """Methods to swap with; `sets` changes the first one's recipe.

    Raises
    ------
    UserError
        One cannot be loaded, or swaps nothing.
    """
    methods = [store.load(where, device, () if number else sets) for number, where in enumerate(wheres)]
    for where, trained in zip(wheres, methods, strict=True):
        if trained.recipe.networks.generator is None:
            raise UserError(f"{where}: is a recogniser and swaps nothing; leave it out")
    return methods


def names_of(methods: Sequence[Trained]) -> list[str]:
    """The names of the methods' recipes, with a number behind one that was there before."""
    names: list[str] = []
    for trained in methods:
        number, name = 1, trained.recipe.name
        while name in names:
            number += 1
            name = f"{trained.recipe.name}-{number}"
        names.append(name)
    return names


def at_size(recipe: Recipe, plan: Evaluation, size: int) -> tuple[Recipe, EvaluationPairs]:
    """A recipe, and the pairs of its evaluation, as crops of another size. Raises UserError if there are none."""
    shown = recipe.model_copy(update={"size": size})
    return shown, pairs_of(shown, plan, dataset_of(shown, plan.data))


@torch.no_grad()
def _seconds(trained: Trained, pairs: EvaluationPairs) -> float:
    """Median time of a swap of one aligned crop, from the two pictures on; the source is not known before."""
    batch = next(iter(replace(pairs, pairs=pairs.pairs[:1]))).to(trained.device)
    times = []
    for _ in range(WARM + TIMED):
        start = time.perf_counter()
        to_images(trained.swapper(batch).image)  # which waits for the device
        times.append(time.perf_counter() - start)
    return statistics.median(times[WARM:])


def _write(folder: Path, pictures: dict[str, list[np.ndarray]]) -> None:
    clear(folder, "choose another with --out")
    for name, images in pictures.items():
        for row, image in enumerate(images):
            write_image(folder / f"{row:03}_{name}.png", image, synthetic=name not in ("source", "target"))
    write_image(folder / "grid.png", grid(pictures))
