"""Arrange the figures of a report: the method beside the trivial baselines that look good in one respect."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from fsframework.report.html import number, plain

BOUNDS = ("copy-target", "copy-source")  # ways that are best in some figure by definition
Metrics = Mapping[str, Any]


class Column(NamedTuple):
    """The heading of a figure: its key, its unit where the key lacks it, an arrow towards the better, that in words."""

    key: str
    unit: str
    arrow: str
    better: str


class Cell(NamedTuple):
    """A figure of one way: all digits, rounded, its interval or an empty text, and whether it is the best."""

    exact: str
    text: str
    interval: str
    best: bool


class BenchmarkTable(NamedTuple):
    """The figures of one benchmark."""

    label: str
    own: bool  # whether the judge is the network that the method was trained against
    columns: list[Column]
    rows: list[tuple[str, str, list[Cell | None], str]]  # way, its heading, its figures, its failed pairs
    meanings: list[tuple[str, str]]  # key and what it means
    compared: str  # number of pairs that no way failed, where some failed


def benchmark_tables(metrics: Metrics) -> list[BenchmarkTable]:
    """Return a table for each benchmark of metrics.json, those judged by the method's own network last."""
    own = [str(label) for label in metrics.get("own_network") or []]
    labels = sorted(mapping_in(metrics, "benchmarks"), key=own.__contains__)
    return [_table(metrics, label, label in own) for label in labels]


def _table(metrics: Metrics, label: str, own: bool) -> BenchmarkTable:
    ways = {"method": mapping_in(mapping_in(metrics, "benchmarks"), label)}
    ways |= {way: mapping_in(found, label) for way, found in mapping_in(metrics, "baselines").items()}
    known = mapping_in(mapping_in(metrics, "figures"), label)
    keys = list(known) or [key for key in ways["method"] if not key.endswith(("_low", "_high"))]
    about = {key: mapping_in(known, key) for key in keys}
    failures = mapping_in(mapping_in(metrics, "failures"), label)
    best = {key: None if own else _best(ways, key, about[key].get("better")) for key in keys}
    name = plain(metrics.get("method") or "method")
    rows = []
    for way, found in ways.items():
        cells = [_cell(found, key, about[key].get("unit") == "%", way == best[key]) for key in keys]
        heading = name if way == "method" else way
        rows.append((way, heading, cells, plain(failures[way]) if way in failures else "-"))
    meanings = [(key, about[key]["meaning"]) for key in keys if about[key].get("meaning")]
    compared = mapping_in(metrics, "compared").get(label)
    shown = plain(compared) if any(failures.values()) and compared is not None else ""
    return BenchmarkTable(label, own, [_column(key, about[key]) for key in keys], rows, meanings, shown)


def _column(key: str, about: Metrics) -> Column:
    unit, better = plain(about.get("unit") or ""), plain(about.get("better"))
    arrow = {"higher": "↑", "lower": "↓"}.get(better, "")
    return Column(key, "" if key.endswith(f"_{unit}") else unit, arrow, better)


def _cell(found: Metrics, key: str, percent: bool, best: bool) -> Cell | None:
    value, low, high = (number(found.get(name)) for name in (key, f"{key}_low", f"{key}_high"))
    if value is None:
        return None
    digits = 1 if percent else 2
    interval = "" if low is None or high is None else f"{low:.{digits}f} to {high:.{digits}f}"
    return Cell(repr(value), f"{value:.{digits}f}", interval, best)


def _best(ways: Mapping[str, Metrics], key: str, better: object) -> str | None:
    """Return the way that is best in a figure, bounds aside, or None without rivals that differ."""
    rivals = {
        way: value for way, found in ways.items() if way not in BOUNDS and (value := number(found.get(key))) is not None
    }
    if len(set(rivals.values())) < 2 or better not in ("higher", "lower"):
        return None
    pick = max if better == "higher" else min
    return pick(rivals, key=rivals.__getitem__)


def mapping_in(holder: Metrics, key: str) -> Metrics:
    """Return a mapping inside another, or an empty one where it is missing or something else."""
    found = holder.get(key)
    return found if isinstance(found, Mapping) else {}
