"""The figures of a report: the method beside the trivial ways that look good in one respect."""

from collections.abc import Mapping
from typing import Any

from fsframework.evaluation_table import SEEN
from fsframework.report_html import Html, number, plain, scrolling, section, tag

BOUNDS = ("copy-target", "copy-source")  # ways that are best in some figure by definition
OWN = (
    "Own network: the judge is the network that the method was trained against. A method can learn to please it and "
    "look like the source to nobody else, so this table must not stand alone: read it beside a judge that had no part "
    "in training."
)
BASELINES = {
    "without-refiner": "the draft, as the generator painted it.",
    "copy-target": "the target's picture, untouched, as if nothing were swapped. Its pose error is 0 by definition, "
    "and nobody is swapped.",
    "copy-source": "the source's picture, untouched, as if everything were. It is found as the source by definition, "
    "and its pose has nothing to do with the target's.",
}
CHANCE = "Highlighted: the best of those that swap. Where their intervals overlap, that may be chance."
BOUNDED = (
    "The copies are bounds and not rivals, so none of their figures is highlighted. A good swap comes near copy-source "
    "in identity and near copy-target in pose, both at once."
)
Metrics = Mapping[str, Any]


def figures(metrics: Metrics) -> Html:
    """The section with a table for each benchmark; a sentence says why if there are none.

    Parameters
    ----------
    metrics:
        What metrics.json holds, or nothing.
    """
    benchmarks = _map(metrics, "benchmarks")
    if not benchmarks:
        why = "Nothing was measured: the figures of an evaluation appear here."
        return section("figures", "Figures", tag("p", why, class_="note"))
    own = [str(label) for label in metrics.get("own_network") or []]
    pairs = plain(metrics.get("pairs"))
    ways = ["method", *_map(metrics, "baselines")]
    refined = any(way not in ("method", *BOUNDS) for way in ways)
    bounded = any(way in BOUNDS for way in ways)
    return section(
        "figures",
        "Figures",
        tag("p", f"Means over {pairs} pairs; below them 95 % intervals, by bootstrap over the source people. ",
            "↑ higher is better, ↓ lower is better."),
        tag("p", SEEN, class_="note") if metrics.get("seen_people") else "",
        tag("p", CHANCE, class_="soft") if refined else "",
        [_benchmark(metrics, label, label in own) for label in sorted(benchmarks, key=own.__contains__)],
        tag("h3", "What the method is measured beside") if len(ways) > 1 else "",
        tag("ul", [tag("li", tag("strong", way), f": {BASELINES[way]}") for way in ways if way in BASELINES])
        if len(ways) > 1 else "",
        tag("p", BOUNDED) if bounded else "",
    )  # fmt: skip


def _benchmark(metrics: Metrics, label: str, own: bool) -> Html:
    ways = {"method": _map(_map(metrics, "benchmarks"), label)}
    ways |= {way: _map(found, label) for way, found in _map(metrics, "baselines").items()}
    known = _map(_map(metrics, "figures"), label)
    keys = list(known) or [key for key in ways["method"] if not key.endswith(("_low", "_high"))]
    about = {key: _map(known, key) for key in keys}
    failures = _map(_map(metrics, "failures"), label)
    best = {key: [] if own else _best(ways, key, about[key].get("better")) for key in keys}
    name = plain(metrics.get("method") or "method")
    rows = []
    for way, found in ways.items():
        cells = [_cell(found, key, about[key].get("unit") == "%", way in best[key]) for key in keys]
        cells.append(tag("td", plain(failures[way]) if way in failures else "-", class_="number"))
        heading = tag("th", name if way == "method" else way, scope="row")
        rows.append(tag("tr", heading, cells, class_="bound" if way in BOUNDS else None))
    heads = [tag("th", _head(key, about[key]), scope="col", class_="number") for key in keys]
    head = tag("tr", tag("td"), heads, tag("th", "failed pairs", scope="col", class_="number"))
    table = scrolling(tag("table", tag("thead", head), tag("tbody", rows)), f"Figures of {label}")
    meanings = [tag("li", tag("code", key), f": {about[key]['meaning']}") for key in keys if about[key].get("meaning")]
    compared = _map(metrics, "compared").get(label)
    if any(failures.values()) and compared is not None:
        meanings.append(tag("li", f"Compared on the {plain(compared)} pairs that no way failed."))
    flag = tag("p", OWN, class_="note") if own else ""
    return tag("div", tag("h3", label), flag, table, tag("ul", meanings, class_="meaning") if meanings else "")


def _head(key: str, about: Metrics) -> list[str]:
    """A column's name, unit and arrow."""
    unit = plain(about.get("unit") or "")
    sign = {"higher": "↑", "lower": "↓"}.get(plain(about.get("better")), "")
    arrow = tag("abbr", f"\N{NO-BREAK SPACE}{sign}", title=f"{about.get('better')} is better") if sign else ""
    return [key, f"\N{NO-BREAK SPACE}{unit}" if unit and not key.endswith(f"_{unit}") else "", arrow]


def _cell(found: Metrics, key: str, percent: bool, best: bool) -> Html:
    value, low, high = (number(found.get(name)) for name in (key, f"{key}_low", f"{key}_high"))
    if value is None:
        return tag("td", "-", class_="number")
    digits = 1 if percent else 2
    interval = "" if low is None or high is None else tag("small", f"{low:.{digits}f} to {high:.{digits}f}")
    exact = tag("data", f"{value:.{digits}f}", value=repr(value), class_="best" if best else None)
    return tag("td", exact, interval, class_="number")


def _best(ways: Mapping[str, Metrics], key: str, better: object) -> list[str]:
    """The way that is best in a figure: of those that are no bounds, where there is a choice and they differ."""
    rivals = {
        way: value for way, found in ways.items() if way not in BOUNDS and (value := number(found.get(key))) is not None
    }
    if len(set(rivals.values())) < 2 or better not in ("higher", "lower"):
        return []
    pick = max if better == "higher" else min
    return [pick(rivals, key=rivals.__getitem__)]


def _map(holder: Metrics, key: str) -> Metrics:
    """A mapping inside another; empty if it is missing or something else."""
    found = holder.get(key)
    return found if isinstance(found, Mapping) else {}
