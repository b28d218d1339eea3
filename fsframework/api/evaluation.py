"""Evaluate and compare trained methods, and run standalone benchmarks."""

import datetime
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType

from fsframework.api.models import Overrides, as_sets
from fsframework.evaluation import compare as comparison
from fsframework.evaluation import evaluate as evaluation
from fsframework.evaluation.protocol import Protocol
from fsframework.evaluation.standalone import measure, rows_table
from fsframework.evaluation.table import table
from fsframework.models.store import DEFAULT
from fsframework.report.comparison import table as comparison_table
from fsframework.report.comparison import write_page
from fsframework.utils.files import write_text

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class EvaluationResult:
    """The metrics of a method and of the baselines."""

    metrics: dict[str, Any]  # as in metrics.json; benchmarks/README.md describes it
    device: str | None = None
    command: str | None = None

    def __rich__(self) -> RenderableType:
        """Return a table for the terminal."""
        return table(self.metrics)

    def to_json(self) -> str:
        """Return the metrics as JSON."""
        return json.dumps(self.metrics, indent=2)

    def to_pandas(self) -> "pandas.DataFrame":
        """Return a row for each benchmark, metric and method or baseline, with 95 % intervals."""
        import pandas

        return pandas.DataFrame(_rows(self.metrics))

    def save(self, file: str | Path) -> None:
        """Write the metrics with command, date, versions and machine as JSON. Raise UserError if that fails."""
        values = _with_command(self.command, evaluation.described(self.metrics, self.device))
        write_text(Path(file), json.dumps(values, indent=2) + "\n")


@dataclass(frozen=True)
class Comparison:
    """The metrics of several methods on the same pairs."""

    values: dict[str, Any]  # as in comparison.json

    def __rich__(self) -> RenderableType:
        """Return a table for the terminal."""
        return comparison_table(self.values)

    def to_json(self) -> str:
        """Return the metrics as JSON."""
        return json.dumps(self.values, indent=2)

    def save(self, file: str | Path) -> None:
        """Write the metrics as JSON. Raise UserError if that fails."""
        write_text(Path(file), self.to_json() + "\n")

    def to_pandas(self) -> "pandas.DataFrame":
        """Return a row for each benchmark, metric and method, with 95 % intervals."""
        import pandas

        result = [
            {**row, "method": method["name"]}
            for method in self.values["methods"]
            for row in _rows(method["metrics"])
            if row["method"] == method["metrics"]["method"]
        ]
        return pandas.DataFrame(result)


@dataclass(frozen=True)
class Measurement:
    """The result of a standalone benchmark."""

    values: dict[str, Any]

    def __rich__(self) -> RenderableType:
        """Return a table for the terminal."""
        return rows_table(self.values)

    def to_json(self) -> str:
        """Return the metrics as JSON."""
        return json.dumps(self.values, indent=2)

    def save(self, file: str | Path) -> None:
        """Write the metrics as JSON. Raise UserError if that fails."""
        write_text(Path(file), self.to_json() + "\n")

    def to_pandas(self) -> "pandas.DataFrame":
        """Return the measured rows."""
        import pandas

        return pandas.DataFrame(self.values["rows"])


def evaluate(
    model: str | Path | None = None,
    benchmarks: Sequence[str] = (),
    *,
    pairs: int | str | None = None,
    protocol: str | None = None,
    overrides: Overrides = (),
    device: str | None = None,
    details: str | Path | None = None,
    command: str | None = None,
) -> EvaluationResult:
    """Evaluate a trained method and return its metrics.

    Parameters
    ----------
    model:
        As of `load_swapper`.
    benchmarks:
        Names; by default those of the method's recipe.
    pairs:
        A list of pairs (a name or a CSV file), or a number of random pairs; by default the recipe's.
    protocol:
        The name or file of a protocol, such as "orl", instead of the recipe's evaluation.
    overrides:
        Overrides of the recipe, as of `load_recipe`.
    device:
        A torch device. None: the GPU if there is one.
    details:
        An output CSV file with every pair's metrics.
    command:
        The command line, which `save` records.

    Raises
    ------
    UserError
        There is no such model, benchmark or protocol, or it cannot be measured.
    """
    chosen = None if protocol is None else Protocol.load(protocol)
    file = None if details is None else Path(details)
    sets = _with_pairs(overrides, pairs)
    metrics = evaluation.bench(DEFAULT if model is None else model, list(benchmarks), sets, device, file, chosen)
    return EvaluationResult(metrics, device, command)


def compare(
    models: Sequence[str | Path],
    out: str | Path | None = None,
    *,
    pairs: int | str | None = None,
    protocol: str | None = None,
    overrides: Overrides = (),
    device: str | None = None,
    command: str | None = None,
) -> Comparison:
    """Evaluate methods on the same pairs and return their metrics.

    Parameters
    ----------
    models:
        Two or more, each as of `load_swapper`.
    out:
        The output folder of comparison.html, comparison.json and images; None: nothing is written.
    pairs, protocol, overrides, device:
        As of `evaluate`, applied to the first method's recipe.
    command:
        The command line, recorded in comparison.json.

    Raises
    ------
    UserError
        A method cannot be loaded, is not a face swapper, or cannot be evaluated with these settings.
    """
    chosen = None if protocol is None else Protocol.load(protocol)
    sets = _with_pairs(overrides, pairs)
    with tempfile.TemporaryDirectory() as unused:
        folder = Path(unused if out is None else out)
        values = comparison.compare(models, folder, sets, device, chosen)
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        result = Comparison(_with_command(command, {"date": now, **values}))
        result.save(folder / "comparison.json")
        write_text(folder / "comparison.html", write_page(values, folder))
    return result


def measure_standalone(
    benchmark: str, options: Overrides = (), device: str | None = None, command: str | None = None
) -> Measurement:
    """Run a benchmark that measures the code or the machine, such as "speed", and return its rows.

    Raises UserError if there is no such benchmark, or an option is wrong.
    """
    return Measurement(_with_command(command, measure(benchmark, as_sets(options), device)))


def _with_pairs(overrides: Overrides, pairs: int | str | None) -> list[str]:
    if pairs is None:
        return as_sets(overrides)
    return [*as_sets(overrides), f"evaluation.pairs={pairs if str(pairs).isdecimal() else json.dumps(pairs)}"]


def _rows(metrics: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield each metric of the method and its baselines as a flat row."""
    methods = {metrics["method"]: metrics["benchmarks"], **metrics["baselines"]}
    for method, benchmarks in methods.items():
        for label, result in benchmarks.items():
            for key, info in metrics["figures"][label].items():
                value = {"value": result[key], "low": result.get(f"{key}_low"), "high": result.get(f"{key}_high")}
                better = {"unit": info["unit"], "better": info["better"]}
                yield {"method": method, "benchmark": label, "metric": key, **value, **better}


def _with_command(command: str | None, values: dict[str, Any]) -> dict[str, Any]:
    return values if command is None else {"command": command, **values}
