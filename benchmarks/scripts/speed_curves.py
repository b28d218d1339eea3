"""Measure training step and swap for several sizes, widths and batch sizes, and plot the results.

    python benchmarks/scripts/speed_curves.py            # about ten minutes on two cores
    python benchmarks/scripts/speed_curves.py --draw     # only plots the saved figures

Each point is `fsf bench speed` with one option changed. The figures go to results/speed_curves.json, the plot to
docs/speed.svg: images/s on logarithmic axes, with the plain reference.
"""

import datetime
import io
import json
import math
from pathlib import Path
from typing import Any

import click
from matplotlib import style
from matplotlib.figure import Figure

from fsframework.evaluation.standalone import measure
from fsframework.utils.files import write_text

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "speed_curves.json"
PICTURE = HERE.parent / "docs" / "speed.svg"
BASE = {"size": 64, "width": 0.5, "batch": 8}
CHANGES: dict[str, list[float]] = {"size": [32, 64, 128, 256], "width": [0.25, 0.5, 1], "batch": [1, 4, 8, 24]}
LABELS = {"size": "side of the crops, pixels", "width": "width of the networks", "batch": "pairs at once"}
TITLES = {"step": "training step", "swap": "swap"}
COLOURS = {"plain fp32": "#b05a2c", "ours fp32": "#1f6f8b", "plain bf16": "#d8a27a", "ours bf16": "#5b8c3a"}
SETTINGS = {
    "svg.fonttype": "none",  # texts stay texts
    "svg.hashsalt": "speed",  # deterministic identifiers
    "font.sans-serif": ["DejaVu Sans"],
    "axes.spines.right": False,
    "axes.spines.top": False,
}


@click.command(help=__doc__)
@click.option("--draw", "only_draw", is_flag=True, help="Plot the saved figures without measuring.")
@click.option("--rounds", default=2, show_default=True, help="Timed rounds per point.")
@click.option("--device", help="cpu, cuda or cuda:N; default: the GPU if available.")
def main(only_draw: bool, rounds: int, device: str | None) -> None:
    if not only_draw:
        write_text(RESULTS, json.dumps(figures(rounds, device), indent=2) + "\n")
    PICTURE.parent.mkdir(exist_ok=True)
    write_text(PICTURE, draw(json.loads(RESULTS.read_text(encoding="utf-8"))))
    click.echo(PICTURE)


def figures(rounds: int, device: str | None) -> dict[str, Any]:
    """Return all points as rows: changed option, its value, task, implementation, images/s."""
    rows: list[dict[str, Any]] = []
    measured: dict[str, dict[str, Any]] = {}
    for option, values in CHANGES.items():
        for value in values:
            settings = {**BASE, option: value}
            key = json.dumps(settings)
            if key not in measured:
                sets = [f"{name}={number}" for name, number in settings.items()]
                measured[key] = measure("speed", [*sets, f"rounds={rounds}", "tasks=[swap, step]"], device)
            for row in measured[key]["rows"]:
                values_of_row = {
                    name: row[name] for name in ("task", "implementation", "per_s", "ratio", "peak_memory_gb")
                }
                rows.append({"option": option, "value": value, **values_of_row})
    last = next(reversed(measured.values()))
    return {
        "command": "python benchmarks/scripts/speed_curves.py",
        "base": BASE,
        "rows": rows,
        **{key: last[key] for key in ("device", "threads", "commit", "versions", "system", "matmul_peak_gflops")},
        "date": datetime.date.today().isoformat(),
    }


def draw(record: dict[str, Any]) -> str:
    """Plot the saved figures, and return an SVG: a row of panels for each task, a panel for each option."""
    base = ", ".join(f"{name} {value:g}" for name, value in record["base"].items())
    note = f"images a second; elsewhere {base}; {record['device']}, {record['date']}, commit {record['commit']}"
    with style.context(SETTINGS, after_reset=True):
        figure = Figure((12.5, 7), layout="constrained")
        rows = figure.subplots(len(TITLES), len(CHANGES), sharex="col", sharey="row")
        for (task, title), panels in zip(TITLES.items(), rows, strict=True):
            rates = [row["per_s"] for row in record["rows"] if row["task"] == task]
            panels[0].set_ylim(10.0 ** math.floor(math.log10(min(rates))), 10.0 ** math.ceil(math.log10(max(rates))))
            for option, axes in zip(CHANGES, panels, strict=True):
                chosen = [row for row in record["rows"] if (row["task"], row["option"]) == (task, option)]
                for name in dict.fromkeys(row["implementation"] for row in chosen):
                    points = [(row["value"], row["per_s"]) for row in chosen if row["implementation"] == name]
                    axes.loglog(*zip(*points, strict=True), "o-", color=COLOURS[name], label=name)
                axes.set_title(title, loc="left", weight="bold")
                axes.set_xticks(CHANGES[option], [f"{value:g}" for value in CHANGES[option]])
                axes.set_xlabel(LABELS[option])
                axes.yaxis.set_major_formatter("{x:g}")
                axes.label_outer(remove_inner_ticks=True)
                axes.minorticks_off()
                axes.grid(axis="y", color="#ddd")
        figure.legend(*rows[0, 0].get_legend_handles_labels(), loc="outside lower left", ncols=4, title=note)
        text = io.StringIO()
        about = {"Title": "Speed of a training step and a swap", "Description": note, "Creator": None, "Date": None}
        figure.savefig(text, format="svg", metadata=about)
    return text.getvalue()


if __name__ == "__main__":
    main()
