"""Format a comparison of methods as one table, for the terminal and as an HTML page."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fsframework.evaluation.results import METHOD, Comparison, Difference, Estimate, Metrics
from fsframework.evaluation.table import decimals, heading
from fsframework.report.html import png_address, render
from fsframework.report.metrics import BOUNDS

OWN = "*: the method was trained against the judge, so it may only fool the judge."
SEEN = "\N{DAGGER}: generates only people of its training set; the test images are new, but their people are not."
ALIKE, DELTA = "\N{ALMOST EQUAL TO}", "\N{GREEK CAPITAL LETTER DELTA}"
COSTS = ("ms a swap", "million parameters")


class Column(NamedTuple):
    """A metric of a benchmark."""

    position: int  # of the benchmark in the evaluation
    benchmark: str  # its heading for methods that were not trained against its judge
    key: str
    unit: str
    better: str

    @property
    def heading(self) -> str:
        """The key with its unit, and an arrow in the better direction."""
        return heading(self.key, self.unit, self.better)


class Cell(NamedTuple):
    """A number with its 95 % interval, if any, and whether the method was trained against the judge."""

    value: float | None
    low: float | None
    high: float | None
    own: bool
    apart: Difference | None = None  # from the first method; None for the first method itself

    @property
    def marks(self) -> str:
        """The symbols that refer to the notes."""
        is_similar = self.apart is not None and not self.apart.is_significant
        return ("*" if self.own else "") + (ALIKE if is_similar else "")


class Row(NamedTuple):
    """A method, or an upper or lower bound."""

    name: str
    cells: list[Cell]
    seconds: float | None
    parameters: int | None


def columns(comparison: Comparison) -> list[Column]:
    """Return every metric of every benchmark, in order."""
    headings = _headings(comparison)
    return [
        Column(position, headings[position], key, info.unit, info.better)
        for position, result in enumerate(comparison.methods[0].metrics.benchmarks.values())
        for key, info in result.metrics.items()
    ]


def _headings(comparison: Comparison) -> list[str]:
    """Return the benchmarks' headings, preferably of a method that was not trained against the judge."""
    headings: list[str] = []
    for results in zip(*(method.metrics.benchmarks.items() for method in comparison.methods), strict=True):
        independent = [label for label, result in results if not result.own_network]
        headings.append((independent or [results[0][0]])[0])
    return headings


def rows(comparison: Comparison) -> Iterator[Row]:
    """Yield the methods, then the bounds. A bound has the first value that was measured with any method."""
    all_columns = columns(comparison)
    for method in comparison.methods:
        name = method.name + ("\N{DAGGER}" if method.metrics.seen_people else "")
        cells = _cells(method.metrics, METHOD, all_columns)
        if method is not comparison.methods[0]:
            pairs = zip(cells, all_columns, strict=True)
            cells = [_with_difference(cell, column, method.from_first) for cell, column in pairs]
        yield Row(name, cells, method.seconds, method.parameters)
    for bound in BOUNDS:
        of_all = [_cells(method.metrics, bound, all_columns) for method in comparison.methods]
        firsts = [next((c for c in cells if c.value is not None), cells[0]) for cells in zip(*of_all, strict=True)]
        yield Row(bound, firsts, None, None)


def _cells(metrics: Metrics, baseline: str, all_columns: list[Column]) -> list[Cell]:
    results = list(metrics.benchmarks.values())
    cells = []
    for column in all_columns:
        result = results[column.position]
        estimate = result.estimates[baseline].get(column.key, Estimate(None))
        own = result.own_network and baseline == METHOD
        cells.append(Cell(estimate.value, estimate.low, estimate.high, own))
    return cells


def _with_difference(cell: Cell, column: Column, differences: list[dict[str, Difference]] | None) -> Cell:
    """Return a cell with its difference from the first method, if there is one."""
    difference = differences[column.position].get(column.key) if differences else None
    return cell if difference is None or None in difference else cell._replace(apart=difference)


def notes(comparison: Comparison) -> list[str]:
    """Return the notes below the table: intervals, symbols and failed measurements."""
    lines = [f"{comparison.pairs} pairs; means with 95 % intervals by bootstrap over source people."]
    all_metrics = [method.metrics for method in comparison.methods]
    if any(metrics.own_networks for metrics in all_metrics):
        lines.append(OWN)
    if any(metrics.seen_people for metrics in all_metrics):
        lines.append(SEEN)
    if any(method.from_first for method in comparison.methods):
        first = comparison.methods[0].name
        lines.append(f"{ALIKE}: no significant difference from {first} on the same pairs (95 %, as above).")
    failed = {
        method.name: sum(result.failures[METHOD] for result in method.metrics.benchmarks.values())
        for method in comparison.methods
    }
    if any(failed.values()):
        text = ", ".join(f"{name} {count}" for name, count in failed.items() if count)
        lines.append(f"Failed measurements, over all benchmarks: {text}.")
    return lines


def table(comparison: Comparison) -> RenderableType:
    """Return a table for the terminal, without intervals: a column for each method."""
    methods = list(rows(comparison))
    grid = Table()
    grid.add_column("benchmark")
    grid.add_column("metric")
    for row in methods:
        grid.add_column(Text(row.name), justify="right")
    last = None
    for number, column in enumerate(columns(comparison)):
        cells = [_number(row.cells[number], column.unit) for row in methods]
        grid.add_row(column.benchmark if column.position != last else "", column.heading, *cells)
        last = column.position
    for cost, costs in zip(COSTS, zip(*map(costs_of, methods), strict=True), strict=True):
        grid.add_row("cost" if cost == COSTS[0] else "", f"{cost} ↓", *costs)
    return Group(grid, Text("\n".join(notes(comparison)), style="dim"))


def _number(cell: Cell, unit: str) -> str:
    if cell.value is None:
        return "-"
    return f"{cell.value:.{decimals(unit)}f}{cell.marks}"


def costs_of(row: Row) -> list[str]:
    """Return milliseconds per swap and millions of parameters, as texts; empty for bounds."""
    if row.seconds is None:
        return ["", ""]
    return [f"{1000 * row.seconds:.0f}", "" if row.parameters is None else f"{row.parameters / 1e6:.1f}"]


def write_page(comparison: Comparison, folder: Path) -> str:
    """Return the text of comparison.html: the table with intervals, and the image grid of `folder`."""
    methods = list(rows(comparison))
    metric_rows = [
        (f"{column.benchmark}: {column.heading}", [_texts(row.cells[number], column.unit) for row in methods])
        for number, column in enumerate(columns(comparison))
    ]
    costs = zip(COSTS, zip(*map(costs_of, methods), strict=True), strict=True)
    return render(
        "comparison.html",
        names=[method.name for method in comparison.methods],
        methods=[row.name for row in methods],
        grid=png_address((folder / "grid.png").read_bytes()),
        notes=notes(comparison),
        delta=DELTA,
        rows=[*metric_rows, *((f"{cost} ↓", [(text, []) for text in texts]) for cost, texts in costs)],
    )


def _texts(cell: Cell, unit: str) -> tuple[str, list[str]]:
    """Return a number, and the intervals below it: of the number, and of the difference."""
    digits = decimals(unit)
    intervals = []
    if cell.low is not None and cell.high is not None:
        intervals.append(f"{cell.low:.{digits}f} to {cell.high:.{digits}f}")
    if cell.apart is not None:
        intervals.append(f"{DELTA} {cell.apart.low:+.{digits}f} to {cell.apart.high:+.{digits}f}")
    return _number(cell, unit), intervals
