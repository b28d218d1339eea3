"""Evaluate a trained swapper and its trivial baselines on pairs of source and target faces.

Each list of pairs is read and swapped once. Every benchmark measures a batch of the method and of its baselines
(`fsframework.evaluation.baselines`) before the next batch is read.
"""

import csv
import datetime
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from fsframework.core.components import Benchmark, Dataset
from fsframework.core.errors import UserError
from fsframework.core.part import Part
from fsframework.core.registry import component
from fsframework.data.eval_pairs import (
    EvaluationPairs,
    draw_pairs,
    pairs_file,
    pairs_text,
    read_pairs,
    same_identity_pairs,
)
from fsframework.evaluation.baselines import Swaps
from fsframework.evaluation.bootstrap import Values, failed, summarize
from fsframework.evaluation.interpolation import INTERPOLATION, visualize
from fsframework.evaluation.judges import loaded
from fsframework.evaluation.protocol import Protocol
from fsframework.evaluation.results import COPY, METHOD, BenchmarkResult, Failure, Metrics
from fsframework.evaluation.samples import write_samples
from fsframework.evaluation.table import table
from fsframework.media.image_io import write_image
from fsframework.models import store
from fsframework.models.run import Run
from fsframework.models.store import Trained
from fsframework.recipe.build import build
from fsframework.recipe.schema import OWN_PAIRS, Evaluation, Recipe, is_alone
from fsframework.utils.device import pick_device
from fsframework.utils.environment import environment
from fsframework.utils.files import write_text
from fsframework.utils.progress import progress
from fsframework.utils.weights import digest

__all__ = ["bench", "dataset_of", "described", "evaluate", "measure", "pairs_of", "plan_of", "preflight", "table"]


def evaluate(run: Run) -> Metrics:
    """Evaluate a run by its recipe, and write metrics.json, pairs.csv and samples/ into its directory.

    Returns
    -------
    The content of metrics.json, which benchmarks/README.md describes.

    Raises
    ------
    UserError
        The recipe has no evaluation, no stage is trained, or data, pairs or a benchmark cannot be used.
    """
    plan = plan_of(run.recipe)
    dataset = dataset_of(run.recipe, plan.data)
    pairs = pairs_of(run.recipe, plan, dataset)
    swapper = run.load_swapper()
    metrics = measure(Trained(run.recipe, swapper, run.device), plan, pairs, run.recipe).metrics
    write_samples(run.path / "samples", pairs, swapper, run.device)
    for kind, image in visualize(swapper, pairs, run.device).items():
        write_image(run.path / "samples" / f"{kind}.png", image, synthetic=kind == INTERPOLATION)
    write_text(run.path / "pairs.csv", pairs_text(pairs.pairs, dataset))
    write_text(run.path / "metrics.json", json.dumps(metrics.to_json(), indent=2, allow_nan=False) + "\n")
    return metrics


def preflight(recipe: Recipe) -> None:
    """Load all data and networks of an evaluation, to find errors before a long training.

    Raises
    ------
    UserError
        Data, pairs or the files of a benchmark cannot be used.
    """
    plan = plan_of(recipe)
    pairs = pairs_of(recipe, plan, dataset_of(recipe, plan.data))
    for part in plan.benchmarks:
        benchmark: Benchmark = part.build()
        benchmark.load()
        _view(part.name, benchmark, pairs, recipe, plan)


def bench(
    model: str | Path,
    names: list[str],
    sets: list[str],
    device: str | None = None,
    details: Path | None = None,
    protocol: Protocol | None = None,
    runtime: store.Runtime | None = None,
) -> Metrics:
    """Measure a trained method by its recipe's evaluation, or by other benchmarks, overrides or a protocol.

    Parameters
    ----------
    model:
        A model as for `store.load`.
    names:
        Names of benchmarks: those of the recipe, or others with their default options. Empty: all of the recipe.
    sets:
        Overrides of the recipe, such as `evaluation.pairs=100`.
    device:
        A torch device name; None: the GPU if there is one.
    details:
        Output CSV file: a line for each pair and method or baseline, a column for each metric.
    protocol:
        Replaces the recipe's evaluation. `sets` override the protocol.
    runtime:
        As of `store.load`.

    Raises
    ------
    UserError
        As for `evaluate`, or the model or a benchmark does not exist, or the file cannot be written.
    """
    trained = store.load(model, device, [*(protocol.sets() if protocol else []), *sets], runtime)
    plan = plan_of(trained.recipe)
    if names:
        plan = plan.model_copy(update={"benchmarks": [part for name in names for part in _named(name, plan)]})
    pairs = pairs_of(trained.recipe, plan, dataset_of(trained.recipe, plan.data))
    measured = measure(trained, plan, pairs, trained.recipe)
    if details is not None:
        write_text(details, _details(pairs, measured.values))
    return replace(measured.metrics, protocol=None if protocol is None else protocol.described(sets))


def described(metrics: Metrics, device: str | None, runtime: str | None = None) -> dict[str, Any]:
    """Return metrics as JSON data, with a manifest of the date, the runtime, the versions and the machine."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    chosen = {} if runtime is None else {"runtime": runtime}
    return {"manifest": {"date": now, **chosen, **environment(pick_device(device))}, "metrics": metrics.to_json()}


def plan_of(recipe: Recipe) -> Evaluation:
    """Return the evaluation of a recipe. Raises UserError if there is none."""
    if recipe.evaluation is None:
        raise UserError(f"{recipe.name}: evaluation: the recipe has none; add one with pairs and benchmarks")
    return recipe.evaluation


def _named(name: str, plan: Evaluation) -> list[Part]:
    """Return the recipe's benchmarks of a name, or else one with default options. Raises UserError."""
    if is_alone(name):
        raise UserError(f"{name}: measures no model; remove --model")
    configured = [part for part in plan.benchmarks if part.name == name]
    if configured:
        return configured
    try:
        return [Part("benchmarks", name, component("benchmarks", name).Options())]
    except ValueError:  # pydantic: an option without a default
        raise UserError(f"{name}: has required options; add it to evaluation.benchmarks with them") from None


def dataset_of(recipe: Recipe, data: Part | None) -> Dataset:
    """Return the loaded test split of `data`, or of the recipe's own. Raises UserError if it cannot be read."""
    where = "evaluation.data" if data is not None else "data"
    dataset: Dataset = build(where, recipe.faces(data), recipe.size, recipe.detector, "test")
    dataset.load()
    return dataset


def pairs_of(recipe: Recipe, plan: Evaluation, dataset: Dataset) -> EvaluationPairs:
    """Return the pairs of an evaluation. Raises UserError if there are none."""
    if isinstance(plan.pairs, int):
        pairs = draw_pairs(dataset, plan.pairs, recipe.seed)
    elif plan.pairs == OWN_PAIRS:
        pairs = dataset.pairs()
        if not pairs:
            raise UserError(f"evaluation.pairs: {OWN_PAIRS}: the data set has no pairs of its own; name a list")
    else:
        local_file = recipe.relative(plan.pairs)
        pairs = read_pairs(local_file if local_file.is_file() else pairs_file(plan.pairs), dataset)
    return EvaluationPairs(dataset, pairs, plan.batch_size)


class Measured(NamedTuple):
    """Metrics, with the values of each pair from which they are computed."""

    metrics: Metrics
    values: dict[str, dict[str, Values]]  # of each pair, by heading, method or baseline, and metric
    people: dict[str, np.ndarray]  # by heading: the source person of each pair (n,)


def measure(trained: Trained, plan: Evaluation, pairs: EvaluationPairs, data_recipe: Recipe) -> Measured:
    """Swap all pairs, run every benchmark, and return metrics and values.

    `data_recipe` is the recipe of the test data: the method's own, or another one at the method's size.
    """
    recipe = trained.recipe
    benchmarks = loaded(plan, trained)
    views = {label: _view(label, benchmark, pairs, data_recipe, plan) for label, (benchmark, _) in benchmarks.items()}
    measured: dict[str, dict[str, Values]] = {}
    passes = []
    for view in _unique(list(views.values())):
        passes.append(Swaps(view, trained.swapper, trained.device))
        measured |= _values({label: benchmarks[label][0] for label in views if views[label] == view}, passes[-1])
    results, people = {}, {}
    for label, (benchmark, own) in benchmarks.items():
        values = measured[label]
        failures = {baseline: failed(of_pairs, len(pairs.pairs)) for baseline, of_pairs in values.items()}
        people[label] = _sources(views[label])
        results[label] = BenchmarkResult(
            metrics=benchmark.metrics,
            estimates=summarize(values, people[label]),
            failures={baseline: int(mask.sum()) for baseline, mask in failures.items()},
            compared=int((~np.logical_or.reduce(list(failures.values()))).sum()),
            own_network=own,
            why=Failure(benchmark.fails, int((failures[METHOD] & failures[COPY]).sum())),
            weights=digest(benchmark),
        )
    metrics = Metrics(
        method=recipe.name,
        pairs=len(pairs.pairs),
        benchmarks=results,
        seen_people=recipe.data.build(recipe.size, recipe.detector, "test").is_closed_set,
        weights=digest(trained.swapper),
        cost=passes[0].cost(),
    )
    return Measured(metrics, {label: measured[label] for label in benchmarks}, people)


def _details(pairs: EvaluationPairs, values: dict[str, dict[str, Values]]) -> str:
    """Return CSV text with the metrics of every pair; cells are empty where a pair failed."""
    columns = {
        f"{label}: {key}": {method: of_pairs[key] for method, of_pairs in methods.items()}
        for label, methods in values.items()
        for key in next(iter(methods.values()))
        if np.ndim(next(iter(methods.values()))[key]) == 1
    }
    names = pairs.dataset.names()
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["source", "target", "way", *columns])
    for method in next(iter(values.values())):
        for row, (source, target) in enumerate(pairs.pairs):
            numbers = [np.asarray(column[method])[row] for column in columns.values()]
            cells = [f"{number:.6g}" if np.isfinite(number) else "" for number in numbers]
            writer.writerow([names[source], names[target], method, *cells])
    return text.getvalue()


def _view(
    label: str, benchmark: Benchmark, pairs: EvaluationPairs, recipe: Recipe, plan: Evaluation
) -> EvaluationPairs:
    """Return the pairs on which a benchmark measures. Raises UserError if its data hold other faces."""
    data = getattr(benchmark.options, "data", None)
    if isinstance(data, Part):
        own = recipe.model_copy(update={"data": recipe.faces(plan.data)})
        altered = dataset_of(own, data)
        if altered.names() != pairs.dataset.names():
            raise UserError(f"{label}: data: has other faces than the evaluation; wrap its data: {{use: {data.name}}}")
        pairs = replace(pairs, dataset=altered)
    if benchmark.pairing == "self":
        return replace(pairs, pairs=[(target, target) for _, target in pairs.pairs])
    if benchmark.pairing == "same_identity":
        return replace(pairs, pairs=same_identity_pairs(pairs.dataset, [target for _, target in pairs.pairs]))
    return pairs


def _sources(pairs: EvaluationPairs) -> np.ndarray:
    """Return the source person of each pair (n,); each unlabelled source is a person of its own."""
    persons, sources = pairs.dataset.persons(), np.array([source for source, _ in pairs.pairs])
    return np.where(persons[sources] < 0, -1 - sources, persons[sources])


def _unique(views: list[EvaluationPairs]) -> list[EvaluationPairs]:
    """Return the distinct lists of pairs, so that equal ones are swapped once."""
    return [view for index, view in enumerate(views) if view not in views[:index]]


@torch.no_grad()
def _values(benchmarks: dict[str, Benchmark], swaps: Swaps) -> dict[str, dict[str, Values]]:
    """Return the values by benchmark and method or baseline, from one pass over the pairs."""
    parts: dict[str, dict[str, list[dict[str, Any]]]] = {label: {} for label in benchmarks}
    dataset, count = swaps.pairs.dataset, len(swaps.pairs.pairs)
    with progress("swapping and measuring", count, "pairs") as ticker:
        for swapped in swaps:
            for baseline, result in swapped.baselines():
                for label, benchmark in benchmarks.items():
                    part = benchmark.measure_batch(swapped.batch, result, dataset)
                    parts[label].setdefault(baseline, []).append(part)
            ticker.advance(len(swapped.image))
    return {
        label: {
            baseline: _combined(label, benchmark, parts[label][baseline], dataset, count) for baseline in parts[label]
        }
        for label, benchmark in benchmarks.items()
    }


def _combined(
    label: str, benchmark: Benchmark, parts: list[dict[str, Any]], dataset: Dataset, count: int
) -> dict[str, np.ndarray | float]:
    """Return the values of one method or baseline. Raises UserError if keys or shapes are not as declared."""
    values = benchmark.combine(parts, dataset)
    if values.keys() != benchmark.metrics.keys():
        raise UserError(
            f"{label}: returns {sorted(values)}, but declares the metrics {sorted(benchmark.metrics)}; correct it"
        )
    for key, value in values.items():
        if np.ndim(value) > 0 and np.shape(value) != (count,):
            raise UserError(f"{label}: {key} has shape {np.shape(value)} for {count} pairs; correct the benchmark")
    return values
