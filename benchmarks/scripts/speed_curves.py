"""What a training step and a swap cost at other sizes, widths and batches: figures and a picture.

    python benchmarks/scripts/speed_curves.py            # about ten minutes on two cores
    python benchmarks/scripts/speed_curves.py --draw     # only draws the kept figures again

Each point is `fsf bench speed` with one option changed. The figures go to results/speed_curves.json, the picture to
docs/speed.svg: images a second on logarithmic axes, ours beside the plain reference.
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
    "svg.hashsalt": "speed",  # names of parts are the same each time
    "font.sans-serif": ["DejaVu Sans"],
    "axes.spines.right": False,
    "axes.spines.top": False,
}


@click.command(help=__doc__)
@click.option("--draw", "only_draw", is_flag=True, help="Draw the figures that are kept; measure nothing.")
@click.option("--rounds", default=2, show_default=True, help="Timed turns at each point.")
@click.option("--device", help="cpu, cuda or cuda:N. By default the GPU, if there is one.")
def main(only_draw: bool, rounds: int, device: str | None) -> None:
    if not only_draw:
        write_text(RESULTS, json.dumps(figures(rounds, device), indent=2) + "\n")
    PICTURE.parent.mkdir(exist_ok=True)
    write_text(PICTURE, draw(json.loads(RESULTS.read_text(encoding="utf-8"))))
    click.echo(PICTURE)


def figures(rounds: int, device: str | None) -> dict[str, Any]:
    """Every point, as a row: the option that is changed, its value, the task, the implementation, images a second."""
    rows: list[dict[str, Any]] = []
    known: dict[str, dict[str, Any]] = {}
    for option, values in CHANGES.items():
        for value in values:
            settings = {**BASE, option: value}
            key = json.dumps(settings)
            if key not in known:
                sets = [f"{name}={number}" for name, number in settings.items()]
                known[key] = measure("speed", [*sets, f"rounds={rounds}", "tasks=[swap, step]"], device)
            for row in known[key]["rows"]:
                kept = {name: row[name] for name in ("task", "implementation", "per_s", "ratio", "peak_memory_gb")}
                rows.append({"option": option, "value": value, **kept})
    last = next(reversed(known.values()))
    return {
        "command": "python benchmarks/scripts/speed_curves.py",
        "base": BASE,
        "rows": rows,
        **{key: last[key] for key in ("device", "threads", "commit", "versions", "system", "matmul_peak_gflops")},
        "date": datetime.date.today().isoformat(),
    }


def draw(kept: dict[str, Any]) -> str:
    """Draw the kept figures, and return an SVG: a row of panels for each task, a panel for each option."""
    base = ", ".join(f"{name} {value:g}" for name, value in kept["base"].items())
    note = f"images a second; elsewhere {base}; {kept['device']}, {kept['date']}, commit {kept['commit']}"
    with style.context(SETTINGS, after_reset=True):
        figure = Figure((12.5, 7), layout="constrained")
        rows = figure.subplots(len(TITLES), len(CHANGES), sharex="col", sharey="row")
        for (task, title), panels in zip(TITLES.items(), rows, strict=True):
            rates = [row["per_s"] for row in kept["rows"] if row["task"] == task]
            panels[0].set_ylim(10.0 ** math.floor(math.log10(min(rates))), 10.0 ** math.ceil(math.log10(max(rates))))
            for option, axes in zip(CHANGES, panels, strict=True):
                chosen = [row for row in kept["rows"] if (row["task"], row["option"]) == (task, option)]
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
