"""Evaluate and compare trained methods, and run standalone benchmarks."""

import datetime
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import RenderableType

from fsframework.api.models import Overrides, as_sets
from fsframework.evaluation import compare as comparison
from fsframework.evaluation import evaluate as evaluation
from fsframework.evaluation import results
from fsframework.evaluation.protocol import Protocol
from fsframework.evaluation.results import Metrics
from fsframework.evaluation.standalone import measure, rows_table
from fsframework.evaluation.table import table
from fsframework.models.store import DEFAULT
from fsframework.recipe.overrides import with_pairs
from fsframework.report.comparison import table as comparison_table
from fsframework.report.comparison import write_page
from fsframework.utils.files import write_text

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class EvaluationResult:
    """A method's metrics, with those of the baselines."""

    metrics: Metrics
    device: str | None = None
    command: str | None = None
    runtime: str | None = None  # None: the default of the model's file

    def __rich__(self) -> RenderableType:
        """Return a table for the terminal."""
        return table(self.metrics)

    def to_json(self) -> str:
        """Return the metrics as JSON."""
        return json.dumps(self.metrics.to_json(), indent=2)

    def to_pandas(self) -> "pandas.DataFrame":
        """Return a row for each benchmark, metric and method or baseline, with 95 % intervals."""
        return self.metrics.to_pandas()

    def save(self, file: str | Path) -> None:
        """Write the metrics with the command, the date, the versions and the machine. Raise UserError if that fails."""
        values = _with_command(self.command, evaluation.described(self.metrics, self.device, self.runtime))
        write_text(Path(file), json.dumps(values, indent=2) + "\n")


@dataclass(frozen=True)
class Comparison:
    """The metrics of several methods on the same pairs."""

    results: results.Comparison
    date: str
    command: str | None = None

    def __rich__(self) -> RenderableType:
        """Return a table for the terminal."""
        return comparison_table(self.results)

    def to_json(self) -> str:
        """Return the metrics as JSON."""
        return json.dumps(_with_command(self.command, {"date": self.date, **self.results.to_json()}), indent=2)

    def save(self, file: str | Path) -> None:
        """Write the metrics as JSON. Raise UserError if that fails."""
        write_text(Path(file), self.to_json() + "\n")

    def to_pandas(self) -> "pandas.DataFrame":
        """Return a row for each benchmark, metric, and method or baseline, with 95 % intervals."""
        return self.results.to_pandas()


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
    runtime: Literal["torch", "openvino", "onnx"] | None = None,
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
    runtime:
        What runs the method's networks. None: torch, and onnxruntime for ONNX files.
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
    sets = with_pairs(as_sets(overrides), pairs)
    metrics = evaluation.bench(
        DEFAULT if model is None else model, list(benchmarks), sets, device, file, chosen, runtime
    )
    return EvaluationResult(metrics, device, command, runtime)


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
    sets = with_pairs(as_sets(overrides), pairs)
    with tempfile.TemporaryDirectory() as unused:
        folder = Path(unused if out is None else out)
        measured = comparison.compare(models, folder, sets, device, chosen)
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        compared = Comparison(measured, now, command)
        compared.save(folder / "comparison.json")
        write_text(folder / "comparison.html", write_page(measured, folder))
    return compared


def measure_standalone(
    benchmark: str, options: Overrides = (), device: str | None = None, command: str | None = None
) -> Measurement:
    """Run a benchmark that measures the code or the machine, such as "speed", and return its rows.

    Raises UserError if there is no such benchmark, or an option is wrong.
    """
    return Measurement(_with_command(command, measure(benchmark, as_sets(options), device)))


def _with_command(command: str | None, values: dict[str, Any]) -> dict[str, Any]:
    return values if command is None else {"command": command, **values}
