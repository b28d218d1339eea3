"""Format the metrics of an evaluation as tables for the terminal."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fsframework.evaluation.results import METHOD, BenchmarkResult, Estimate, Metrics

SEEN = "Seen people: the test images are new, but they show people of the training set."
ARROWS = {"higher": "↑", "lower": "↓"}


def table(metrics: Metrics) -> RenderableType:
    """Return a table for each benchmark: the method above its baselines, means with 95 % intervals."""
    tables = [_benchmark_table(metrics.method, label, result) for label, result in metrics.benchmarks.items()]
    return Group(*tables, Text(_note(metrics), style="dim"))


def _benchmark_table(method: str, label: str, result: BenchmarkResult) -> Table:
    grid = Table(title=Text(label), title_justify="left", title_style="bold")
    grid.add_column("")
    for key, info in result.metrics.items():
        grid.add_column(heading(key, info.unit, info.better), justify="right")
    grid.add_column("failed", justify="right")
    for name, estimates in result.estimates.items():
        cells = [_cell(estimates[key], info.unit) for key, info in result.metrics.items()]
        grid.add_row(Text(method if name == METHOD else name), *cells, str(result.failures[name]))
    return grid


def heading(key: str, unit: str, better: str) -> str:
    """Return a metric's name with its unit, unless the name ends in it, and an arrow in the better direction."""
    return f"{key}{f' {unit}' if unit and not key.endswith(f'_{unit}') else ''} {ARROWS[better]}"


def decimals(unit: str) -> int:
    """Return the number of decimals for a unit."""
    return 1 if unit == "%" else 2


def _cell(estimate: Estimate, unit: str) -> str:
    digits = decimals(unit)
    value, low, high = estimate.value, estimate.low, estimate.high
    if value is None:
        return "-"
    if low is None or high is None:
        return f"{value:.{digits}f}"
    return f"{value:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def _note(metrics: Metrics) -> str:
    note = f"{metrics.pairs} pairs; 95 % intervals by bootstrap over source people."
    if metrics.seen_people:
        note += f" {SEEN}"
    if metrics.own_networks:
        note += " Own network: the method was trained against the judge, so it may only fool the judge."
    return note
