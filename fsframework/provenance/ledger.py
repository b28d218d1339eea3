"""The local ledger: one line of JSON for each result, which maps a watermark to its manifest.

The ledger is an append-only file in the user's data folder, readable by the owner alone.
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
    """Return the path of this user's ledger."""
    return data_folder() / "ledger.jsonl"


def append(facts: dict[str, Any]) -> None:
    """Append the facts of a result, with the time, to the ledger. Raise UserError if it cannot be written."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    line = (
        f"\n{json.dumps({'time': now, **facts})}\n".encode()
    )  # starts a new line after one that a full disk truncated
    file = ledger_file()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            if os.write(handle, line) < len(line):  # one write call keeps lines of several processes apart
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{file}: cannot be written: {reason}; set XDG_DATA_HOME to another folder") from error


def lookup(**facts: str) -> list[dict[str, Any]]:
    """Return the ledger entries that match all facts, such as `watermark="0123abcd"`, newest first."""
    return [line for line in reversed(list(_lines())) if all(line.get(key) == fact for key, fact in facts.items())]


def _lines() -> Iterator[dict[str, Any]]:
    """Yield every valid ledger entry; truncated lines are skipped."""
    try:
        text = ledger_file().read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return
    except OSError as error:
        raise UserError(f"{ledger_file()}: cannot be read: {error.strerror or error}; check its permissions") from error
    for line in text.splitlines():
        try:
            facts = json.loads(line)
        except ValueError:
            continue
        if isinstance(facts, dict):
            yield facts
