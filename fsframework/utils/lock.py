"""Locks on the outputs of long jobs, which say which process holds them.

The operating system locks a file, and frees it when the process ends in any way. Its text says which process took the
lock and when: for a second process, and after a crash. Locks of the system may not reach other hosts, so a text of
another host counts as a lock, too.
"""

import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fsframework.core.errors import UserError

if sys.platform == "win32":
    import msvcrt

    def _try_lock(handle: int) -> bool:
        os.lseek(handle, 1 << 30, os.SEEK_SET)  # a byte beyond the text, which others may read
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
else:
    import fcntl

    def _try_lock(handle: int) -> bool:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


@contextmanager
def locked(file: Path, what: str) -> Iterator[None]:
    """Hold a lock file during the block, and remove it at the end.

    A lock that a dead process of this host left is taken over, with a line on standard error.

    Parameters
    ----------
    file:
        The lock file, which only locks use.
    what:
        What is locked, in messages.

    Raises
    ------
    UserError
        Another process holds the lock, or one of another host may hold it, or the file cannot be written.
    """
    handle = _acquired(file, what)
    try:
        yield
    finally:
        if sys.platform == "win32":
            os.close(handle)  # an open file cannot be removed there
            file.unlink(missing_ok=True)
        else:
            file.unlink(missing_ok=True)
            os.close(handle)


def _acquired(file: Path, what: str) -> int:
    """Return the handle of the locked file. Raise UserError as `locked` does."""
    try:
        while True:
            handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                if not _try_lock(handle):
                    holder = _holder(_text(handle))
                    raise UserError(f"{what}: is in work by {holder}; wait until it ends, or choose another name")
                if _is_file(handle, file):
                    _take(handle, file, what)
                    return handle
            except BaseException:
                os.close(handle)
                raise
            os.close(handle)  # the last holder has removed the file since it was opened
    except OSError as error:
        raise UserError(f"{file}: cannot be written: {error.strerror or error}; choose another folder") from error


def _take(handle: int, file: Path, what: str) -> None:
    """Write this process into a locked file. Raise UserError if one of another host may hold it."""
    text = _text(handle)
    note = _parsed(text)
    if note and note["host"] != socket.gethostname():
        holder = _holder(text)
        raise UserError(f"{what}: is in work by {holder}; if that process ended, remove {file}")
    if note:
        print(f"note: {what}: the lock of {_holder(text)}, which ended, is taken over", file=sys.stderr)
    mine = {
        "host": socket.gethostname(),
        "process": os.getpid(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    os.ftruncate(handle, 0)
    os.lseek(handle, 0, os.SEEK_SET)
    os.write(handle, json.dumps(mine).encode())


def _is_file(handle: int, file: Path) -> bool:
    """Return whether an open file is the one at a path."""
    try:
        return os.path.samestat(os.fstat(handle), file.stat())
    except FileNotFoundError:
        return False


def _text(handle: int) -> bytes:
    os.lseek(handle, 0, os.SEEK_SET)
    return os.read(handle, 4096)


def _parsed(text: bytes) -> dict[str, Any] | None:
    """Return what a lock's text says, or None if it was not wholly written."""
    try:
        note = json.loads(text)
        return {key: note[key] for key in ("host", "process", "since")}
    except (ValueError, TypeError, KeyError):
        return None


def _holder(text: bytes) -> str:
    note = _parsed(text)
    if note is None:
        return "another process"
    return f"process {note['process']} on {note['host']}, since {note['since']}"
