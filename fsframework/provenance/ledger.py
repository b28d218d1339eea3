"""What was made on this machine: a line of JSON for each result, so that a watermark leads to its manifest.

The register lies in the user's data folder, for the owner alone. Lines are only ever added.
"""

import datetime
import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fsframework.core.errors import UserError
from fsframework.utils.files import data_folder


def ledger_file() -> Path:
    return data_folder() / "register.jsonl"


def append(facts: dict[str, Any]) -> None:
    """Add what is known of a result, and the time. Raises UserError if it cannot be written."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    line = f"\n{json.dumps({'time': now, **facts})}\n".encode()  # whatever an earlier full disk left behind
    file = ledger_file()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            if os.write(handle, line) < len(line):  # one write, so that lines of several processes do not mix
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{file}: cannot be written: {reason}; choose another folder by XDG_DATA_HOME") from error


def lookup(**facts: str) -> list[dict[str, Any]]:
    """The lines that say all of these facts, such as `watermark="0123abcd"`, the newest first."""
    return [line for line in reversed(list(_lines())) if all(line.get(key) == fact for key, fact in facts.items())]


def _lines() -> Iterator[dict[str, Any]]:
    """Every line that can be read; one that was cut short by a full disk does not spoil the others."""
    try:
        text = ledger_file().read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return
    except OSError as error:
        raise UserError(f"{ledger_file()}: cannot be read: {error.strerror or error}; check its rights") from error
    for line in text.splitlines():
        try:
            facts = json.loads(line)
        except ValueError:
            continue
        if isinstance(facts, dict):
            yield facts
