"""Content-addressed cache folders, named by a hash of everything that their content depends on.

A folder is built under a temporary name and renamed when complete, so that every folder in the cache is complete.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from fsframework.core.errors import UserError
from fsframework.utils.files import cache_folder, sync_folder

T = TypeVar("T")


def cached(
    folder: Path | None,
    kind: str,
    depends_on: dict[str, Any],
    write: Callable[[Path], None],
    opened: Callable[[Path], T],
) -> T:
    """Return `opened(path)` of a cache folder; `write` fills it first if it is absent.

    Parameters
    ----------
    folder:
        Parent folder of all caches; None for the default.
    kind:
        Prefix of the cache folder's name.
    depends_on:
        Everything that the content depends on, serialisable as JSON.
    write:
        Function that fills an empty folder. A second process that needs the same folder waits.
    opened:
        Function that opens the folder. It raises OSError, EOFError, ValueError, KeyError or TypeError if the folder is
        absent or damaged.

    Raises
    ------
    UserError
        The cache cannot be written.
    """
    folder = (folder or cache_folder()).expanduser()
    text = json.dumps(depends_on, sort_keys=True)
    path = folder / f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:24]}"
    result = _try_open(path, opened)
    if result is not None:
        return result
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(path):
            result = _try_open(path, opened)  # another process may have written it meanwhile
            if result is not None:
                return result
            _build(path, write)
            return opened(path)
    except OSError as error:
        advice = "free some space, or name another folder with the option cache"
        raise UserError(f"{folder}: the cache cannot be written: {error.strerror or error}; {advice}") from error


def _try_open(path: Path, opened: Callable[[Path], T]) -> T | None:
    try:
        return opened(path)
    except (OSError, EOFError, ValueError, KeyError, TypeError):
        return None  # absent or damaged


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a cache folder; without file locks, several processes build and the first one wins."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with path.with_suffix(".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # released when the process ends
        for left_over in path.parent.glob(f"{path.name}.*.partial"):
            shutil.rmtree(left_over, ignore_errors=True)
        yield


def _build(path: Path, write: Callable[[Path], None]) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.mkdir()
    try:
        write(partial)
        for file in partial.iterdir():
            _sync(file)
        sync_folder(partial)
        if path.exists():
            shutil.rmtree(path)  # damaged: an intact folder would have been opened
        partial.rename(path)
        sync_folder(path.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _sync(file: Path) -> None:
    with file.open("rb") as written:
        os.fsync(written.fileno())
