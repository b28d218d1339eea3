"""What a training step and a swap cost at other sizes, widths and batches: figures and a picture.

    python benchmarks/speed_curves.py            # about ten minutes on two cores
    python benchmarks/speed_curves.py --draw     # only draws the kept figures again

Each point is `fsf bench speed` with one option changed. The figures go to results/speed_curves.json, the picture to
docs/speed.svg: images a second on logarithmic axes, ours beside the plain reference.
"""

import datetime
import json
import math
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import click

from fsframework.evaluation_alone import measure
from fsframework.files import write_text

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "speed_curves.json"
PICTURE = HERE.parent / "docs" / "speed.svg"
BASE = {"size": 64, "width": 0.5, "batch": 8}
CHANGES: dict[str, list[float]] = {"size": [32, 64, 128, 256], "width": [0.25, 0.5, 1], "batch": [1, 4, 8, 24]}
LABELS = {"size": "side of the crops, pixels", "width": "width of the networks", "batch": "pairs at once"}
TITLES = {"step": "training step", "swap": "swap"}
COLOURS = {"plain fp32": "#b05a2c", "ours fp32": "#1f6f8b", "plain bf16": "#d8a27a", "ours bf16": "#5b8c3a"}
PANEL_WIDTH, PANEL_HEIGHT = 300, 230
LEFT, RIGHT, TOP, BOTTOM = 48, 12, 30, 42  # of a panel, in SVG units


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
        "command": "python benchmarks/speed_curves.py",
        "base": BASE,
        "rows": rows,
        **{key: last[key] for key in ("device", "threads", "commit", "versions", "system", "matmul_peak_gflops")},
        "date": datetime.date.today().isoformat(),
    }


def draw(kept: dict[str, Any]) -> str:
    """The picture, an SVG: a row of panels for each task, a panel for each option."""
    panels = []
    for row, (task, title) in enumerate(TITLES.items()):
        rates = [entry["per_s"] for entry in kept["rows"] if entry["task"] == task]
        span = math.floor(math.log10(min(rates))), math.ceil(math.log10(max(rates)))
        for column, option in enumerate(CHANGES):
            chosen = [entry for entry in kept["rows"] if (entry["task"], entry["option"]) == (task, option)]
            moved = f'<g transform="translate({column * PANEL_WIDTH},{row * PANEL_HEIGHT})">'
            panels += [moved, *panel(title, option, chosen, span), "</g>"]
    width, height = len(CHANGES) * PANEL_WIDTH, len(TITLES) * PANEL_HEIGHT + 44
    base = ", ".join(f"{name} {value:g}" for name, value in kept["base"].items())
    names = dict.fromkeys(entry["implementation"] for entry in kept["rows"])
    legend = "".join(f'<tspan dx="12" fill="{COLOURS[name]}">● {escape(name)}</tspan>' for name in names)
    note = f"images a second; elsewhere {base}; {kept['device']}, {kept['date']}, commit {kept['commit']}"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
            f'font-size="11">',
            f'<rect width="{width}" height="{height}" fill="white"/>',
            *panels,
            f'<text x="{LEFT - 12}" y="{height - 28}" font-weight="bold">{legend}</text>',
            f'<text x="{LEFT}" y="{height - 8}" fill="#555">{escape(note)}</text>',
            "</svg>\n",
        ]
    )


def panel(title: str, option: str, rows: list[dict[str, Any]], span: tuple[int, int]) -> list[str]:
    """One drawing: lines over the values of an option, on logarithmic axes from 10^span[0] to 10^span[1]."""
    values = sorted({row["value"] for row in rows})
    first, last = math.log(values[0]), math.log(values[-1])
    right, bottom = PANEL_WIDTH - RIGHT - 14, PANEL_HEIGHT - BOTTOM

    def x(value: float) -> float:
        return LEFT + 10 + (math.log(value) - first) / (last - first) * (right - LEFT - 10)

    def y(rate: float) -> float:
        return bottom - (math.log10(rate) - span[0]) / (span[1] - span[0]) * (bottom - TOP)

    parts = [f'<text x="{LEFT}" y="18" font-weight="bold">{title}</text>']
    for power in range(span[0], span[1] + 1):
        height = y(10.0**power)
        parts.append(f'<path d="M{LEFT} {height:.1f}H{right + 10}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{height + 4:.1f}" text-anchor="end">{10.0**power:g}</text>')
    for value in values:
        parts.append(f'<text x="{x(value):.1f}" y="{bottom + 16}" text-anchor="middle">{value:g}</text>')
    middle = (LEFT + right) / 2
    parts.append(f'<text x="{middle}" y="{bottom + 32}" text-anchor="middle" fill="#555">{LABELS[option]}</text>')
    for name in dict.fromkeys(row["implementation"] for row in rows):
        points = [(x(row["value"]), y(row["per_s"])) for row in rows if row["implementation"] == name]
        line = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        colour = COLOURS[name]
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{colour}"/>' for a, b in points]
    return parts


if __name__ == "__main__":
    main()
