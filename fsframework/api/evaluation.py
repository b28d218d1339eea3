"""Measure trained methods, one or several beside each other, and the code itself."""

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
    """A method's figures, with those of the baselines."""

    metrics: dict[str, Any]  # as in metrics.json; benchmarks/README.md describes it
    device: str | None = None
    command: str | None = None

    def __rich__(self) -> RenderableType:
        """Return a table for the terminal."""
        return table(self.metrics)

    def to_json(self) -> str:
        """Return the figures as JSON."""
        return json.dumps(self.metrics, indent=2)

    def to_pandas(self) -> "pandas.DataFrame":
        """Return a row for each benchmark, figure and method or baseline, with 95 % intervals."""
        import pandas

        return pandas.DataFrame(_rows(self.metrics))

    def save(self, file: str | Path) -> None:
        """Write the figures with the command, the date, the versions and the machine. Raises UserError."""
        kept = _with_command(self.command, evaluation.described(self.metrics, self.device))
        write_text(Path(file), json.dumps(kept, indent=2) + "\n")


@dataclass(frozen=True)
class Comparison:
    """The figures of several methods on the same pairs."""

    values: dict[str, Any]  # as in comparison.json

    def __rich__(self) -> RenderableType:
        """Return a table for the terminal."""
        return comparison_table(self.values)

    def to_json(self) -> str:
        """Return the figures as JSON."""
        return json.dumps(self.values, indent=2)

    def save(self, file: str | Path) -> None:
        """Write the figures as JSON. Raises UserError if that fails."""
        write_text(Path(file), self.to_json() + "\n")

    def to_pandas(self) -> "pandas.DataFrame":
        """Return a row for each benchmark, figure and method, with 95 % intervals."""
        import pandas

        found = [
            {**row, "method": method["name"]}
            for method in self.values["methods"]
            for row in _rows(method["metrics"])
            if row["method"] == method["metrics"]["method"]
        ]
        return pandas.DataFrame(found)


@dataclass(frozen=True)
class Measurement:
    """What a standalone benchmark measured."""

    values: dict[str, Any]

    def __rich__(self) -> RenderableType:
        """Return a table for the terminal."""
        return rows_table(self.values)

    def to_json(self) -> str:
        """Return the figures as JSON."""
        return json.dumps(self.values, indent=2)

    def save(self, file: str | Path) -> None:
        """Write the figures as JSON. Raises UserError if that fails."""
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
    """Measure a trained method and return its figures.

    Parameters
    ----------
    model:
        As of `load_swapper`.
    benchmarks:
        Names; by default those of the method's recipe.
    pairs:
        A list of pairs (a name or a CSV file), or how many to draw; by default the recipe's.
    protocol:
        The name or file of a protocol that takes the place of the recipe's evaluation, such as "orl".
    overrides:
        Of the recipe, as of `load_recipe`.
    device:
        As torch names it. None: the GPU if there is one.
    details:
        A CSV file to write, with every pair's figures.
    command:
        Stated by `save`, so that a file of figures says how they were made.

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
    """Measure methods on the same pairs and return their figures.

    Parameters
    ----------
    models:
        Two or more, each as of `load_swapper`.
    out:
        A folder for comparison.html, comparison.json and pictures; None: nothing is written.
    pairs, protocol, overrides, device:
        As of `evaluate`; of the first method's recipe.
    command:
        Stated in comparison.json.

    Raises
    ------
    UserError
        A method cannot be loaded, swaps nothing, or cannot be measured in this way.
    """
    chosen = None if protocol is None else Protocol.load(protocol)
    sets = _with_pairs(overrides, pairs)
    with tempfile.TemporaryDirectory() as unused:
        folder = Path(unused if out is None else out)
        values = comparison.compare(models, folder, sets, device, chosen)
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        found = Comparison(_with_command(command, {"date": now, **values}))
        found.save(folder / "comparison.json")
        write_text(folder / "comparison.html", write_page(values, folder))
    return found


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
    """Yield each figure of the method and its baselines as a flat row."""
    methods = {metrics["method"]: metrics["benchmarks"], **metrics["baselines"]}
    for method, benchmarks in methods.items():
        for label, found in benchmarks.items():
            for key, info in metrics["figures"][label].items():
                value = {"value": found[key], "low": found.get(f"{key}_low"), "high": found.get(f"{key}_high")}
                better = {"unit": info["unit"], "better": info["better"]}
                yield {"method": method, "benchmark": label, "metric": key, **value, **better}


def _with_command(command: str | None, values: dict[str, Any]) -> dict[str, Any]:
    return values if command is None else {"command": command, **values}
