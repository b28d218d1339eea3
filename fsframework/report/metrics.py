"""Arrange the metrics of a report in tables of the method and its baselines."""

from typing import NamedTuple

from fsframework.core.components import MetricInfo
from fsframework.evaluation.results import COPY, COPY_SOURCE, METHOD, BenchmarkResult, Estimate, Metrics
from fsframework.evaluation.table import ARROWS

BOUNDS = (COPY, COPY_SOURCE)  # optimal in some metric by definition


class Column(NamedTuple):
    """The heading of a metric: key, unit unless the key ends in it, and better direction as arrow and word."""

    key: str
    unit: str
    arrow: str
    better: str


class Cell(NamedTuple):
    """A value of a method or baseline: exact, rounded, its interval or an empty text, and whether it is the best."""

    exact: str
    text: str
    interval: str
    best: bool


class BenchmarkTable(NamedTuple):
    """The metrics of one benchmark."""

    label: str
    own: bool  # whether the method was trained against the judge
    columns: list[Column]
    rows: list[tuple[str, str, list[Cell | None], str]]  # name, heading, cells, failed pairs
    meanings: list[tuple[str, str]]  # key and meaning
    compared: str  # pairs on which all succeeded; empty if none failed


def benchmark_tables(metrics: Metrics) -> list[BenchmarkTable]:
    """Return a table for each benchmark; those whose judge took part in the training are last."""
    ordered = sorted(metrics.benchmarks.items(), key=lambda item: item[1].own_network)
    return [_table(metrics.method, label, result) for label, result in ordered]


def _table(method: str, label: str, result: BenchmarkResult) -> BenchmarkTable:
    best = {key: None if result.own_network else _best(result, key) for key in result.metrics}
    rows = []
    for name, estimates in result.estimates.items():
        cells = [_cell(estimates[key], info.unit == "%", name == best[key]) for key, info in result.metrics.items()]
        failures = str(result.failures.get(name, "-"))
        rows.append((name, method if name == METHOD else name, cells, failures))
    meanings = [(key, info.meaning) for key, info in result.metrics.items() if info.meaning]
    compared = "" if result.compared is None or not any(result.failures.values()) else str(result.compared)
    columns = [_column(key, info) for key, info in result.metrics.items()]
    return BenchmarkTable(label, result.own_network, columns, rows, meanings, compared)


def _column(key: str, info: MetricInfo) -> Column:
    return Column(key, "" if key.endswith(f"_{info.unit}") else info.unit, ARROWS[info.better], info.better)


def _cell(estimate: Estimate, percent: bool, best: bool) -> Cell | None:
    value, low, high = estimate.value, estimate.low, estimate.high
    if value is None:
        return None
    digits = 1 if percent else 2
    interval = "" if low is None or high is None else f"{low:.{digits}f} to {high:.{digits}f}"
    return Cell(repr(value), f"{value:.{digits}f}", interval, best)


def _best(result: BenchmarkResult, key: str) -> str | None:
    """Return the name of the best method or baseline, without bounds; None unless two values differ."""
    rivals = {
        name: value
        for name, estimates in result.estimates.items()
        if name not in BOUNDS and (value := estimates[key].value) is not None
    }
    if len(set(rivals.values())) < 2:
        return None
    pick = max if result.metrics[key].better == "higher" else min
    return pick(rivals, key=rivals.__getitem__)
