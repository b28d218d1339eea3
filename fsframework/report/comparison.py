"""A comparison of methods as one table: for the terminal, and as a page."""

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

OWN = "*: the judge is a network that the method was trained against, which it may merely fool."
SEEN = "\N{DAGGER}: paints only people it was trained on; the pictures are new, their people are not."
ALIKE, DELTA = "\N{ALMOST EQUAL TO}", "\N{GREEK CAPITAL LETTER DELTA}"
COSTS = ("ms a swap", "million parameters")


class Column(NamedTuple):
    """A figure of a benchmark."""

    place: int  # of the benchmark in the evaluation
    benchmark: str  # its heading, as if no method were trained against its judge
    key: str
    unit: str
    better: str

    @property
    def figure(self) -> str:
        """The key with its unit and arrow."""
        return heading(self.key, self.unit, self.better)


class Cell(NamedTuple):
    """A number with its 95 % interval, where there is one, and whether the judge is the method's own network."""

    value: float | None
    low: float | None
    high: float | None
    own: bool
    apart: Difference | None = None  # of every method but the first

    @property
    def marks(self) -> str:
        """What the notes explain."""
        alike = self.apart is not None and not self.apart.is_told
        return ("*" if self.own else "") + (ALIKE if alike else "")


class Row(NamedTuple):
    """A method, or a bound."""

    name: str
    cells: list[Cell]
    seconds: float | None
    parameters: int | None


def columns(found: Comparison) -> list[Column]:
    """Every figure of every benchmark, in order."""
    plain = _headings(found)
    return [
        Column(place, plain[place], key, info.unit, info.better)
        for place, result in enumerate(found.methods[0].metrics.benchmarks.values())
        for key, info in result.metrics.items()
    ]


def _headings(found: Comparison) -> list[str]:
    """The benchmarks' headings; that of a method that was not trained against the judge, if there is one."""
    headings: list[str] = []
    for results in zip(*(method.metrics.benchmarks.items() for method in found.methods), strict=True):
        free = [label for label, result in results if not result.own_network]
        headings.append((free or [results[0][0]])[0])
    return headings


def rows(found: Comparison) -> Iterator[Row]:
    """The methods, then the copies; a copy's figure is the first method's beside which it was measured."""
    shown = columns(found)
    for method in found.methods:
        name = method.name + ("\N{DAGGER}" if method.metrics.seen_people else "")
        cells = _cells(method.metrics, METHOD, shown)
        if method is not found.methods[0]:
            cells = [_beside(*each, method.from_first) for each in zip(cells, shown, strict=True)]
        yield Row(name, cells, method.seconds, method.parameters)
    for way in BOUNDS:
        of_all = [_cells(method.metrics, way, shown) for method in found.methods]
        firsts = [next((c for c in cells if c.value is not None), cells[0]) for cells in zip(*of_all, strict=True)]
        yield Row(way, firsts, None, None)


def _cells(metrics: Metrics, baseline: str, shown: list[Column]) -> list[Cell]:
    results = list(metrics.benchmarks.values())
    cells = []
    for column in shown:
        result = results[column.place]
        estimate = result.estimates[baseline].get(column.key, Estimate(None))
        own = result.own_network and baseline == METHOD
        cells.append(Cell(estimate.value, estimate.low, estimate.high, own))
    return cells


def _beside(cell: Cell, column: Column, apart: list[dict[str, Difference]] | None) -> Cell:
    """Return a cell with its difference from the first method's, where one was measured."""
    difference = apart[column.place].get(column.key) if apart else None
    return cell if difference is None or None in difference else cell._replace(apart=difference)


def notes(found: Comparison) -> list[str]:
    """What a reader must know."""
    lines = [f"{found.pairs} pairs; means with 95 % intervals by bootstrap over source people."]
    every = [method.metrics for method in found.methods]
    if any(metrics.own_networks for metrics in every):
        lines.append(OWN)
    if any(metrics.seen_people for metrics in every):
        lines.append(SEEN)
    if any(method.from_first for method in found.methods):
        first = found.methods[0].name
        lines.append(f"{ALIKE}: not told apart from {first} by the differences on the same pairs (95 %, as above).")
    failed = {
        method.name: sum(result.failures[METHOD] for result in method.metrics.benchmarks.values())
        for method in found.methods
    }
    if any(failed.values()):
        text = ", ".join(f"{name} {count}" for name, count in failed.items() if count)
        lines.append(f"Failed measurements, over all benchmarks: {text}.")
    return lines


def table(found: Comparison) -> RenderableType:
    """For the terminal, without intervals: a column for each method."""
    methods = list(rows(found))
    grid = Table()
    grid.add_column("benchmark")
    grid.add_column("figure")
    for row in methods:
        grid.add_column(Text(row.name), justify="right")
    last = None
    for number, column in enumerate(columns(found)):
        cells = [_number(row.cells[number], column.unit) for row in methods]
        grid.add_row(column.benchmark if column.place != last else "", column.figure, *cells)
        last = column.place
    for cost, costs in zip(COSTS, zip(*map(costs_of, methods), strict=True), strict=True):
        grid.add_row("cost" if cost == COSTS[0] else "", f"{cost} ↓", *costs)
    return Group(grid, Text("\n".join(notes(found)), style="dim"))


def _number(cell: Cell, unit: str) -> str:
    if cell.value is None:
        return "-"
    return f"{cell.value:.{decimals(unit)}f}{cell.marks}"


def costs_of(row: Row) -> list[str]:
    """Milliseconds of a swap and millions of parameters, as texts; empty for the copies."""
    if row.seconds is None:
        return ["", ""]
    return [f"{1000 * row.seconds:.0f}", "" if row.parameters is None else f"{row.parameters / 1e6:.1f}"]


def write_page(found: Comparison, folder: Path) -> str:
    """Return the text of comparison.html: the table with intervals, and the grid of pictures that lies in `folder`."""
    methods = list(rows(found))
    figures = [
        (f"{column.benchmark}: {column.figure}", [_texts(row.cells[number], column.unit) for row in methods])
        for number, column in enumerate(columns(found))
    ]
    costs = zip(COSTS, zip(*map(costs_of, methods), strict=True), strict=True)
    return render(
        "comparison.html",
        names=[method.name for method in found.methods],
        methods=[row.name for row in methods],
        grid=png_address((folder / "grid.png").read_bytes()),
        notes=notes(found),
        delta=DELTA,
        rows=[*figures, *((f"{cost} ↓", [(text, []) for text in texts]) for cost, texts in costs)],
    )


def _texts(cell: Cell, unit: str) -> tuple[str, list[str]]:
    """Return a number, and the intervals that stand below it: its own, and that of the difference."""
    digits = decimals(unit)
    intervals = []
    if cell.low is not None and cell.high is not None:
        intervals.append(f"{cell.low:.{digits}f} to {cell.high:.{digits}f}")
    if cell.apart is not None:
        intervals.append(f"{DELTA} {cell.apart.low:+.{digits}f} to {cell.apart.high:+.{digits}f}")
    return _number(cell, unit), intervals
