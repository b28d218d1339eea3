"""Measure a trained swapper and, beside it, the trivial ways that look good in one respect.

Everything is swapped once; then every benchmark sees the method and its baselines (`fsframework.evaluation_swaps`).
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fsframework.components import Benchmark, Dataset, Swapper
from fsframework.errors import UserError
from fsframework.evaluation_samples import write_samples
from fsframework.evaluation_swaps import METHOD, Swapped, swap_all
from fsframework.evaluation_table import table
from fsframework.files import write_text
from fsframework.pairs import EvaluationPairs, draw_pairs, pairs_file, pairs_text, person_numbers, read_pairs
from fsframework.plugins import Part, component
from fsframework.progress import progress
from fsframework.recipe import Evaluation, Recipe
from fsframework.runs import Run
from fsframework.statistics import Values, failed, summarize

__all__ = ["bench", "evaluate", "table"]


def evaluate(run: Run) -> dict[str, Any]:
    """Measure a run as its recipe says, and write metrics.json, pairs.csv and samples/ into its directory.

    Returns
    -------
    What metrics.json holds; benchmarks/README.md describes it.

    Raises
    ------
    UserError
        The recipe has no evaluation, no stage is trained, or data, pairs or a benchmark cannot be used.
    """
    plan = _plan(run.recipe)
    dataset = _dataset(run.recipe, plan)
    pairs = _pairs(run.recipe, plan, dataset)
    swapper = run.load_swapper()
    metrics = _measure(run, plan, pairs, swapper)
    write_samples(run.path / "samples", pairs, swapper, run.device)
    write_text(run.path / "pairs.csv", pairs_text(pairs.pairs, dataset))
    write_text(run.path / "metrics.json", json.dumps(metrics, indent=2, allow_nan=False) + "\n")
    return metrics


def bench(run_dir: Path, names: list[str], sets: list[str], device: str | None = None) -> dict[str, Any]:
    """Measure a run, perhaps in another way than its recipe says; nothing is written.

    Parameters
    ----------
    run_dir:
        Directory of a run.
    names:
        Benchmarks: those of the recipe that are called so, or any others with their default options; none: all of
        the recipe.
    sets:
        Overrides of the recipe, `evaluation.pairs=100`.
    device:
        Where to compute; None: the GPU if there is one.

    Raises
    ------
    UserError
        As `evaluate`, or there is no such run or benchmark.
    """
    run = Run.load(run_dir, device)
    if sets:
        run.recipe = Recipe.load(str(Path(run_dir) / "recipe.yaml"), sets)
    plan = _plan(run.recipe)
    if names:
        plan = plan.model_copy(update={"benchmarks": [part for name in names for part in _named(name, plan)]})
    return _measure(run, plan, _pairs(run.recipe, plan, _dataset(run.recipe, plan)), run.load_swapper())


def _plan(recipe: Recipe) -> Evaluation:
    if recipe.evaluation is None:
        raise UserError(f"{recipe.name}: evaluation: the recipe has none; add one with pairs and benchmarks")
    return recipe.evaluation


def _named(name: str, plan: Evaluation) -> list[Part]:
    """The recipe's benchmarks of that name, or else one with its default options. Raises UserError."""
    if getattr(component("benchmarks", name), "alone", False):
        raise UserError(f"{name}: measures no run; leave --run out")
    known = [part for part in plan.benchmarks if part.name == name]
    if known:
        return known
    try:
        return [Part("benchmarks", name, component("benchmarks", name).Options())]
    except ValueError:  # of pydantic: an option without a default
        raise UserError(f"{name}: has options that must be given; put it under evaluation.benchmarks") from None


def _dataset(recipe: Recipe, plan: Evaluation) -> Dataset:
    dataset: Dataset = recipe.faces(plan.data).build(recipe.size, recipe.detector, "test")
    dataset.load()
    return dataset


def _pairs(recipe: Recipe, plan: Evaluation, dataset: Dataset) -> EvaluationPairs:
    if isinstance(plan.pairs, int):
        pairs = draw_pairs(dataset, plan.pairs, recipe.seed)
    else:
        beside = recipe.relative(plan.pairs)
        pairs = read_pairs(beside if beside.is_file() else pairs_file(plan.pairs), dataset)
    return EvaluationPairs(dataset, pairs, plan.batch_size)


def _measure(run: Run, plan: Evaluation, pairs: EvaluationPairs, swapper: Swapper) -> dict[str, Any]:
    """What metrics.json holds."""
    benchmarks = _benchmarks(plan, run)
    swapped = swap_all(pairs, swapper, run.device)
    persons, sources = person_numbers(pairs.dataset), np.array([source for source, _ in pairs.pairs])
    people = np.where(persons[sources] < 0, -1 - sources, persons[sources])  # somebody unknown is a person alone
    metrics: dict[str, Any] = {
        "method": run.recipe.name,
        "benchmarks": {},
        "baselines": {way: {} for way in swapped.ways() if way != METHOD},
        "pairs": len(people),
        "failures": {},
        "compared": {},
        "own_network": [label for label, (_, own) in benchmarks.items() if own],
        "figures": {},
    }
    for label, (benchmark, _) in benchmarks.items():
        values = _values(label, benchmark, swapped)
        losers = {way: failed(found, len(people)) for way, found in values.items()}
        summary = summarize(values, people)
        metrics["benchmarks"][label] = summary.pop(METHOD)
        for way, numbers in summary.items():
            metrics["baselines"][way][label] = numbers
        metrics["failures"][label] = {way: int(lost.sum()) for way, lost in losers.items()}
        metrics["compared"][label] = int((~np.logical_or.reduce(list(losers.values()))).sum())
        metrics["figures"][label] = {key: figure._asdict() for key, figure in benchmark.figures.items()}
    return metrics


def _benchmarks(plan: Evaluation, run: Run) -> dict[str, tuple[Benchmark, bool]]:
    """The benchmarks, loaded, by heading; and whether the method was trained against what they measure with."""
    trained = {run.recipe.networks.identity.name: None}  # in order, each once
    for part in (part for stage in run.recipe.stages for part in stage.losses):
        trained |= dict.fromkeys(_encoders(part))
    found: dict[str, tuple[Benchmark, bool]] = {}
    for part in plan.benchmarks:
        benchmark: Benchmark = part.build()
        benchmark.load()
        benchmark.to(run.device).eval().requires_grad_(False)
        heading = benchmark.label(None)
        own = next((label for name in trained if (label := benchmark.label(name)) != heading), None)
        heading = wanted = own or heading
        number = 1
        while heading in found:
            number += 1
            heading = f"{wanted} {number}"
        found[heading] = benchmark, own is not None
    return found


def _encoders(part: Part) -> list[str]:
    """The identity encoders among a component's options."""
    return [v.name for _, v in part.options if isinstance(v, Part) and v.kind == "identity-encoders"]


def _values(label: str, benchmark: Benchmark, swapped: Swapped) -> dict[str, Values]:
    """What a benchmark says of every way. Raises UserError if it is not what it promised."""
    ways, dataset = swapped.ways(), swapped.pairs.dataset
    count = len(swapped.pairs.pairs)
    values: dict[str, Values] = {}
    with progress(label, len(ways) * len(swapped.pairs), "batches") as ticker, torch.no_grad():
        for way, picture in ways.items():
            found = benchmark(swapped.walk(picture, ticker.advance), dataset)
            if found.keys() != benchmark.figures.keys():
                raise UserError(
                    f"{label}: returns {sorted(found)}, its figures are {sorted(benchmark.figures)}; mend it"
                )
            for key, value in found.items():
                if np.ndim(value) > 0 and np.shape(value) != (count,):
                    raise UserError(f"{label}: {key} has shape {np.shape(value)} for {count} pairs; mend the benchmark")
            values[way] = found
    return values
