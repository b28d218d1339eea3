"""Record a run's figures in benchmarks/results, and update the tables of all results in the READMEs.

    python benchmarks/scripts/record.py runs/faceshifter --name orl-64 \
        --command "fsf run recipes/faceshifter.yaml" --picture runs/samples.png
    python benchmarks/scripts/record.py                    # only updates the tables

A run's result is a JSON file with its metrics, its manifest (commit, date, device, versions, recipe's hash), the speed
of each stage, and the command. The folder also has the files of `fsf bench --save`.
"""

import json
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np

from fsframework.evaluation.results import METHOD, Comparison, Estimate, Metrics
from fsframework.evaluation.table import ARROWS, SEEN
from fsframework.media.image_io import read_image, write_image
from fsframework.models.run import Run
from fsframework.report.comparison import COSTS, Cell, columns, costs_of, notes, rows
from fsframework.utils.files import write_text

# Metrics in the tables, and their decimals.
SHOWN = {
    "top1": 1,
    "cosine": 2,
    "pose_deg": 1,
    "expression": 2,
    "gaze": 2,
    "ssim": 3,
    "error": 1,
    "sharpness": 2,
    "background": 1,
    "error_toned": 1,
    "pose_own_deg": 1,
    "landmarks": 1,
    "landmarks_own": 1,
}
HERE = Path(__file__).parent.parent
BEGIN, END = "<!-- results -->", "<!-- /results -->"


@click.command()
@click.argument("run", type=click.Path(path_type=Path), required=False)
@click.option("--name", help="Name of the result.")
@click.option("--command", help="Command that reproduces the result.")
@click.option("--note", default="", help="Remark for the tables.")
@click.option("--picture", type=click.Path(path_type=Path), help="Also write the run's samples as one picture.")
def main(run: Path | None, name: str | None, command: str | None, note: str, picture: Path | None) -> None:
    """Record RUN, a directory of a finished run, and update the tables of the READMEs."""
    if run is not None:
        if name is None or command is None:
            raise click.UsageError("Give --name and --command with RUN.")
        write_text(HERE / "results" / f"{name}.json", json.dumps(result(run, command, note), indent=2) + "\n")
        if picture is not None:
            write_image(picture, grid(run / "samples"))
    files = sorted((HERE / "results").glob("*.json"))
    results = {file.stem: json.loads(file.read_text()) for file in files}
    runs = [show(name, record) for name, record in results.items() if "metrics" in record]
    comparisons = [show_comparison(name, record) for name, record in results.items() if "methods" in record]
    others = [
        show_other(name, record) for name, record in results.items() if not record.keys() & {"metrics", "methods"}
    ]
    first_sections = comparisons + runs
    for readme, sections in (
        (HERE.parent / "README.md", first_sections),
        (HERE / "README.md", first_sections + others),
    ):
        text = "\n\n".join(sections)
        before, _, rest = readme.read_text().partition(BEGIN)
        _, _, after = rest.partition(END)
        write_text(readme, f"{before}{BEGIN}\n{text}\n{END}{after}")


def result(run: Path, command: str, note: str) -> dict[str, Any]:
    """Return the record of a run."""
    opened = Run.load(run, "cpu")
    metrics = json.loads((run / "metrics.json").read_text())
    manifest = opened.manifest()
    stages = {
        stage.name: {
            "images": stage.steps * stage.batch_size * stage.accumulate,
            "images_per_s": median([e["images_per_s"] for e in opened.read_log() if e["stage"] == stage.name]),
        }
        for stage in opened.recipe.stages
    }
    return {"command": command, "note": note, "stages": stages, "manifest": manifest, "metrics": metrics}


def grid(samples: Path) -> np.ndarray:
    """Return a run's samples as one picture: rows of source, target, coarse and final swap, enlarged by two."""
    rows = []
    for kind in ("source", "target", "coarse", "swap"):
        images = [read_image(file) for file in sorted(samples.glob(f"*_{kind}.png"))]
        if images:
            row = np.hstack([np.pad(image, ((2, 2), (2, 2), (0, 0)), constant_values=255) for image in images])
            rows.append(cv2.resize(row, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC))
    return np.vstack(rows)


def median(values: list[float]) -> float:
    """Return the upper median; 0 for an empty list."""
    return sorted(values)[len(values) // 2] if values else 0.0


def show(name: str, record: dict[str, Any]) -> str:
    """Return a result as Markdown."""
    metrics, manifest = Metrics.from_json(record["metrics"], name), record["manifest"]
    results = metrics.benchmarks
    columns = [(label, key) for label, result in results.items() for key in result.metrics if key in SHOWN]
    heads = [f"{label}: {key} {ARROWS[results[label].metrics[key].better]}" for label, key in columns]
    rows = []
    for way in (METHOD, *metrics.baselines):
        cells = [metric_cell(results[label].estimates[way][key], key) for label, key in columns]
        rows.append(" | ".join(["", "**the method**" if way == METHOD else way, *cells, ""]))
    trained = ", ".join(
        f"{stage}: {values['images']} images at {values['images_per_s']:.0f} a second"
        for stage, values in record.get("stages", {}).items()
    )
    facts = (
        f"`{record['command']}` on {manifest['device']}, {manifest['date'][:10]}, commit {manifest['commit']}; "
        f"{trained + '; ' if trained else ''}{metrics.pairs} pairs."
    )
    if metrics.seen_people:
        facts += f" {SEEN}"
    lines = [
        f"### {name}",
        "",
        f"{facts} {record.get('note', '')}".strip(),
        "",
        " | ".join(["", "", *heads, ""]).strip(),
        "|---" * (len(columns) + 1) + "|",
        *(row.strip() for row in rows),
    ]
    return "\n".join(lines)


def metric_cell(estimate: Estimate, key: str) -> str:
    """Return a table cell for an estimate."""
    return cell(estimate.value, estimate.low, estimate.high, key)


def show_comparison(name: str, record: dict[str, Any]) -> str:
    """Return a result of `fsf compare` as Markdown, with a column for each method."""
    comparison = Comparison.from_json(record, name)
    manifest, methods = record["manifest"], list(rows(comparison))
    facts = f"`{record['command']}` on {manifest['device']}, {record['date'][:10]}, commit {manifest['commit']}."
    lines = [f"### {name}", "", f"{facts} {record.get('note', '')}".strip(), ""]
    lines.append(f"|  | {' | '.join(row.name for row in methods)} |")
    lines.append("|---" * (len(methods) + 1) + "|")
    for number, column in enumerate(columns(comparison)):
        if column.key in SHOWN:
            cells = [compared(row.cells[number], column.key) for row in methods]
            lines.append(f"| {column.benchmark}: {column.key} {ARROWS[column.better]} | {' | '.join(cells)} |")
    for heading, costs in zip(COSTS, zip(*map(costs_of, methods), strict=True), strict=True):
        lines.append(f"| {heading} ↓ | {' | '.join(costs)} |")
    return "\n".join([*lines, "", *(escaped(note) for note in notes(comparison))])


def compared(found: Cell, key: str) -> str:
    """Return a table cell for a metric of a comparison."""
    return cell(found.value, found.low, found.high, key, escaped(found.marks))


def escaped(text: str) -> str:
    """Return the text with asterisks escaped for Markdown."""
    return text.replace("*", "\\*")


def show_other(name: str, record: dict[str, Any]) -> str:
    """Return another result as Markdown: its rows, or its figures if it has no rows."""
    facts = f"`{record['command']}` on {record['device']}, {record['date'][:10]}, commit {record['commit']}."
    peaks = record.get("matmul_peak_gflops", {})
    if peaks:
        facts += f" Measured matrix peak: {', '.join(f'{kind} {peak} GFLOP/s' for kind, peak in peaks.items())}."
    if note := record.get("note"):
        facts += f" {note}"
    if share := record.get("data_share_percent"):
        facts += f" A training step waits for data {share} % of its time."
    rows_of_table = record.get("rows") or [
        {"figure": key, "value": float(f"{value:.6g}")} for key, value in record["figures"].items()
    ]
    columns = list(dict.fromkeys(key for row in rows_of_table for key in row))
    lines = [f"### {name}", "", facts, "", f"| {' | '.join(key.replace('_', ' ') for key in columns)} |"]
    lines += ["|---" * len(columns) + "|"]
    for row in rows_of_table:
        cells = ("" if row.get(key) is None else str(row[key]) for key in columns)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(value: float | None, low: float | None, high: float | None, key: str, mark: str = "") -> str:
    """Return a value with its interval."""
    if value is None:
        return "-"
    digits = SHOWN[key]
    interval = "" if low is None or high is None or low == high else f" ({low:.{digits}f} to {high:.{digits}f})"
    return f"{value:.{digits}f}{mark}{interval}"


if __name__ == "__main__":
    main()
