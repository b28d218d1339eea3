"""Benchmarks that need no trained run: they measure the code and the machine."""

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
    """Let a benchmark measure by itself.

    Parameters
    ----------
    name:
        Of a benchmark whose class says that it is `alone`.
    sets:
        Its options, KEY=VALUE, where values are written as in YAML.
    device:
        Where to compute; None: the GPU if there is one.

    Raises
    ------
    UserError
        There is no such benchmark, or an option is wrong.
    """
    cls: Any = component("benchmarks", name)
    options = {}
    for entry in sets:
        key, equals, value = entry.partition("=")
        if not equals:
            raise UserError(f"--set {entry}: is not KEY=VALUE; write for instance --set size=128")
        options[key], _ = yaml.parse_yaml(value, f"--set {entry}")
    try:
        made = cls.Options(**options)
    except ValidationError as error:
        wrong = error.errors()[0]
        place = ".".join(map(str, wrong["loc"])) or "options"
        raise UserError(f"{name}: {place}: {wrong['msg']}; see: fsf plugins show benchmarks {name}") from None
    found = cls(made).measure(pick_device(device))
    return {"benchmark": name, "date": datetime.date.today().isoformat(), **found}


def rows_table(found: dict[str, Any]) -> Table:
    """What was measured, for a terminal."""
    rows = found["rows"]
    facts = {key: value for key, value in found.items() if isinstance(value, int | float)} | {
        f"{key} {kind}": number
        for key, value in found.items()
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
