"""Print and store the figures of a benchmark script."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from fsframework.utils.environment import of_script
from fsframework.utils.files import write_text

RESULTS = Path(__file__).parents[1] / "results"


def report(
    benchmark: str,
    rows: list[dict[str, Any]],
    shown: Callable[[dict[str, Any]], dict[str, str]],
    save: str | None,
    figures: dict[str, Any],
    **facts: str,
) -> None:
    """Print rows as a table, and write them to benchmarks/results/BENCHMARK_SAVE.json, or BENCHMARK.json.

    Parameters
    ----------
    benchmark:
        Name of the benchmark and of its script.
    rows:
        The measured numbers.
    shown:
        Returns a row of the table by heading.
    save:
        Name of the data, or "" for a benchmark of one; None: nothing is written.
    figures:
        The numbers to store.
    facts:
        What else to store, such as a note.
    """
    lines = [shown(row) for row in rows]
    table = Table(*lines[0], box=None, pad_edge=False)
    for line in lines:
        table.add_row(*line.values())
    Console(highlight=False).print(table)
    if save is not None:
        result = {
            "benchmark": benchmark,
            "data": save,
            **facts,
            "figures": figures,
            "rows": lines,
            **of_script(f"{benchmark}.py"),
        }
        name = f"{benchmark}_{save}" if save else benchmark
        write_text(RESULTS / f"{name}.json", json.dumps(result, indent=2) + "\n")
