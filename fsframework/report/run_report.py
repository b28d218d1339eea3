"""Write report.html: training, images and metrics of a run in one static file without external resources.

Every section is optional: the report of an unfinished run shows the existing results.
"""

import json
import math
from pathlib import Path

from fsframework.core.errors import UserError
from fsframework.evaluation.results import Metrics
from fsframework.evaluation.table import SEEN
from fsframework.models.run import Run
from fsframework.report.html import plain, render
from fsframework.report.metrics import BOUNDS, benchmark_tables
from fsframework.report.pictures import KINDS, explained, mean, pair_names, picture, sample_rows
from fsframework.report.training import curves, progress_of, speeds
from fsframework.utils.files import write_text


def write_report(run: Run) -> Path:
    """Write report.html atomically into the directory of a run, and return its path.

    Raises
    ------
    UserError
        The run's files are damaged, or the report cannot be written.
    """
    manifest = run.manifest() if (run.path / "manifest.json").is_file() else {}
    metrics = _metrics(run)
    parts = run.recipe.networks
    networks = [(kind, getattr(parts, kind)) for kind in type(parts).model_fields]
    stages = progress_of(run)
    rows = sample_rows(run.path / "samples")
    masks = [sum(kind.startswith("map_") for kind in row) for row in rows if "map_0" in row]
    text = render(
        "report.html",
        recipe=run.recipe,
        recipe_file=str(run.path / "recipe.yaml"),
        folder=str(run.path),
        networks=[(kind, part.name) for kind, part in networks if part is not None],
        manifest=manifest,
        commit=plain(manifest.get("commit") or ""),
        seconds=math.fsum(stage.seconds for stage in stages),
        pairs=list(zip(pair_names(run.path / "pairs.csv", len(rows)), rows, strict=True)),
        kinds=KINDS,
        refined=any("coarse" in row for row in rows),
        levels=masks[0] if masks else 0,
        picture=picture,
        mean=mean,
        explained=explained(run.path / "samples"),
        metrics=metrics,
        benchmarks=benchmark_tables(metrics) if metrics else [],
        baselines=metrics.baselines if metrics else [],
        bounds=BOUNDS,
        seen=SEEN,
        stages=stages,
        speeds=speeds,
        curves=curves,
    )
    report = run.path / "report.html"
    write_text(report, text)
    return report


def _metrics(run: Run) -> Metrics | None:
    """Return the content of metrics.json, or None without that file. Raises UserError if it is damaged."""
    file = run.path / "metrics.json"
    if not file.is_file():
        return None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read: {error}; measure again with `fsf run RECIPE --resume`") from error
    return Metrics.from_json(content, str(file))
