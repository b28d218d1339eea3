"""The figures of an evaluation as tables for the terminal."""

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

SEEN = "Seen people: the pictures are new, their people are those of the training."
ARROWS = {"higher": "↑", "lower": "↓"}


def table(metrics: dict[str, Any]) -> RenderableType:
    """A table for each benchmark: the method above its baselines, means with 95 % intervals.

    Parameters
    ----------
    metrics:
        What `fsframework.evaluation.evaluate` returns and metrics.json holds.
    """
    tables = [_one(metrics, label) for label in metrics["benchmarks"]]
    return Group(*tables, Text(_note(metrics), style="dim"))


def _one(metrics: dict[str, Any], label: str) -> Table:
    figures = metrics["figures"][label]
    grid = Table(title=Text(label), title_justify="left", title_style="bold")
    grid.add_column("")
    for key, figure in figures.items():
        grid.add_column(heading(key, figure["unit"], figure["better"]), justify="right")
    grid.add_column("failed", justify="right")
    ways = {"method": (metrics["method"], metrics["benchmarks"])}
    ways |= {way: (way, found) for way, found in metrics["baselines"].items()}
    for way, (name, found) in ways.items():
        cells = [_cell(found[label], key, figure["unit"]) for key, figure in figures.items()]
        grid.add_row(Text(name), *cells, str(metrics["failures"][label][way]))
    return grid


def heading(key: str, unit: str, better: str) -> str:
    """A figure's name with its unit, unless the name ends in it, and an arrow to where it is better."""
    return f"{key}{f' {unit}' if unit and not key.endswith(f'_{unit}') else ''} {ARROWS[better]}"


def decimals(unit: str) -> int:
    """How many a figure is shown with."""
    return 1 if unit == "%" else 2


def _cell(numbers: dict[str, float | None], key: str, unit: str) -> str:
    digits = decimals(unit)
    value, low, high = numbers[key], numbers.get(f"{key}_low"), numbers.get(f"{key}_high")
    if value is None:
        return "-"
    if low is None or high is None:
        return f"{value:.{digits}f}"
    return f"{value:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def _note(metrics: dict[str, Any]) -> str:
    note = f"{metrics['pairs']} pairs; 95 % intervals by bootstrap over source people."
    if metrics.get("seen_people"):
        note += f" {SEEN}"
    if metrics["own_network"]:
        note += " Own network: the judge is what the method was trained against, which it may merely fool."
    return note
