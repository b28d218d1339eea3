"""Run standalone benchmarks, which measure the code and the machine instead of a trained method."""

import datetime
from typing import Any

from pydantic import ValidationError
from rich.table import Table
from rich.text import Text

from fsframework.core.errors import UserError
from fsframework.core.registry import component
from fsframework.utils import yaml
from fsframework.utils.device import pick_device


def measure(name: str, sets: list[str], device: str | None = None) -> dict[str, Any]:
    """Run a standalone benchmark, and return its results with its name and the date.

    Parameters
    ----------
    name:
        Name of a benchmark whose class sets `standalone`.
    sets:
        Its options as KEY=VALUE, with YAML values.
    device:
        A torch device name; None: the GPU if there is one.

    Raises
    ------
    UserError
        The benchmark does not exist, or an option is invalid.
    """
    cls: Any = component("benchmarks", name)
    options = {}
    for entry in sets:
        key, equals, value = entry.partition("=")
        if not equals:
            raise UserError(f"--set {entry}: is not KEY=VALUE; write it as in --set size=128")
        options[key], _ = yaml.parse_yaml(value, f"--set {entry}")
    try:
        parsed = cls.Options(**options)
    except ValidationError as error:
        detail = error.errors()[0]
        key = ".".join(map(str, detail["loc"])) or "options"
        raise UserError(f"{name}: {key}: {detail['msg']}; see: fsf plugins show benchmarks {name}") from None
    values = cls(parsed).measure(pick_device(device))
    return {"benchmark": name, "date": datetime.date.today().isoformat(), **values}


def rows_table(values: dict[str, Any]) -> Table:
    """Return a table for the terminal of the values of a standalone benchmark."""
    rows = values["rows"]
    facts = {key: value for key, value in values.items() if isinstance(value, int | float)} | {
        f"{key} {kind}": number
        for key, value in values.items()
        if key.endswith("gflops") and isinstance(value, dict)
        for kind, number in value.items()
    }
    table = Table(title=", ".join(f"{key.replace('_', ' ')}: {value}" for key, value in facts.items()) or None)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    for column in columns:
        number = any(isinstance(row.get(column), int | float) for row in rows)
        table.add_column(column.replace("_", " "), justify="right" if number else "left")
    for row in rows:
        table.add_row(*(Text("" if row.get(column) is None else str(row[column])) for column in columns))
    return table
