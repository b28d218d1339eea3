"""A comparison of methods as one table: for the terminal, and as a page."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fsframework.evaluation.table import decimals, heading
from fsframework.report.html import png_address, render
from fsframework.report.metrics import BOUNDS

OWN = "*: the judge is a network that the method was trained against, which it may merely fool."
SEEN = "\N{DAGGER}: paints only people it was trained on; the pictures are new, their people are not."
ALIKE, DELTA = "\N{ALMOST EQUAL TO}", "\N{GREEK CAPITAL LETTER DELTA}"
COSTS = ("ms a swap", "million parameters")
Comparison = dict[str, Any]


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


class Apart(NamedTuple):
    """The difference from the first method's figure on the same pairs, with its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def is_told(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.low > 0 or self.high < 0


class Cell(NamedTuple):
    """A number with its 95 % interval, where there is one, and whether the judge is the method's own network."""

    value: float | None
    low: float | None
    high: float | None
    own: bool
    apart: Apart | None = None  # of every method but the first

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
    first = found["methods"][0]["metrics"]
    return [
        Column(place, plain[place], key, about["unit"], about["better"])
        for place, figures in enumerate(first["figures"].values())
        for key, about in figures.items()
    ]


def _headings(found: Comparison) -> list[str]:
    """The benchmarks' headings; that of a method that was not trained against the judge, if there is one."""
    headings: list[str] = []
    for place, label in enumerate(found["methods"][0]["metrics"]["benchmarks"]):
        others = [list(row["metrics"]["benchmarks"])[place] for row in found["methods"]]
        free = [
            other for other, row in zip(others, found["methods"], strict=True)
            if other not in row["metrics"]["own_network"]
        ]  # fmt: skip
        headings.append((free or [label])[0])
    return headings


def rows(found: Comparison) -> Iterator[Row]:
    """The methods, then the copies; a copy's figure is the first method's beside which it was measured."""
    shown = columns(found)
    for method in found["methods"]:
        metrics = method["metrics"]
        name = method["name"] + ("\N{DAGGER}" if metrics["seen_people"] else "")
        cells = _cells(metrics, metrics["benchmarks"], shown)
        if method is not found["methods"][0]:
            cells = [_beside(*each, method.get("from_first")) for each in zip(cells, shown, strict=True)]
        yield Row(name, cells, method["seconds"], method["parameters"])
    for way in BOUNDS:
        of_all = [
            _cells(method["metrics"] | {"own_network": []}, method["metrics"]["baselines"][way], shown)
            for method in found["methods"]
        ]
        firsts = [next((c for c in cells if c.value is not None), cells[0]) for cells in zip(*of_all, strict=True)]
        yield Row(way, firsts, None, None)


def _cells(metrics: dict[str, Any], figures: dict[str, Any], shown: list[Column]) -> list[Cell]:
    cells = []
    for column in shown:
        label = list(metrics["benchmarks"])[column.place]
        numbers = figures[label]
        value, low, high = (numbers.get(f"{column.key}{end}") for end in ("", "_low", "_high"))
        cells.append(Cell(value, low, high, label in metrics["own_network"]))
    return cells


def _beside(cell: Cell, column: Column, apart: list[dict[str, Any]] | None) -> Cell:
    """A cell with its difference from the first method's, where one was measured."""
    numbers = apart[column.place].get(column.key) if apart else None
    if numbers is None or None in numbers.values():
        return cell
    return cell._replace(apart=Apart(numbers["difference"], numbers["low"], numbers["high"]))


def notes(found: Comparison) -> list[str]:
    """What a reader must know."""
    lines = [f"{found['pairs']} pairs; means with 95 % intervals by bootstrap over source people."]
    every = [row["metrics"] for row in found["methods"]]
    if any(metrics["own_network"] for metrics in every):
        lines.append(OWN)
    if any(metrics["seen_people"] for metrics in every):
        lines.append(SEEN)
    if any(method.get("from_first") for method in found["methods"]):
        first = found["methods"][0]["name"]
        lines.append(f"{ALIKE}: not told apart from {first} by the differences on the same pairs (95 %, as above).")
    failed = {
        row["name"]: sum(ways["method"] for ways in row["metrics"]["failures"].values()) for row in found["methods"]
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
        names=[method["name"] for method in found["methods"]],
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
