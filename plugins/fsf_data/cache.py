"""What is worked out once and then only opened: folders named by a hash of everything their content depends on.

A folder is built beside its place and renamed when it is complete, so a folder with the right name is complete.
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
    """What `opened` makes of a folder of the cache; if there is none, `write` fills it first.

    Parameters
    ----------
    folder:
        Of all caches; None for the default.
    kind:
        What such folders' names begin with.
    depends_on:
        Everything the content depends on, fit for JSON.
    write:
        Fills an empty folder. Of two processes that need the same one writes and one waits.
    opened:
        Raises OSError, EOFError, ValueError, KeyError or TypeError if the folder is absent or damaged.

    Raises
    ------
    UserError
        The cache cannot be written.
    """
    folder = (folder or cache_folder()).expanduser()
    text = json.dumps(depends_on, sort_keys=True)
    place = folder / f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:24]}"
    found = _opened(place, opened)
    if found is not None:
        return found
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(place):
            found = _opened(place, opened)  # another process may have made it meanwhile
            if found is not None:
                return found
            _build(place, write)
            return opened(place)
    except OSError as error:
        advice = "free some space, or name another folder with the option cache"
        raise UserError(f"{folder}: the cache cannot be written: {error.strerror or error}; {advice}") from error


def _opened(place: Path, opened: Callable[[Path], T]) -> T | None:
    try:
        return opened(place)
    except (OSError, EOFError, ValueError, KeyError, TypeError):
        return None  # absent, or damaged by somebody


@contextmanager
def _alone(place: Path) -> Iterator[None]:
    """One process at a time, where the system has such locks; elsewhere several may build, and the first one wins."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with place.with_suffix(".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # ends with the process, however that ends
        for left_over in place.parent.glob(f"{place.name}.*.partial"):
            shutil.rmtree(left_over, ignore_errors=True)
        yield


def _build(place: Path, write: Callable[[Path], None]) -> None:
    partial = place.with_name(f"{place.name}.{os.getpid()}.partial")
    partial.mkdir()
    try:
        write(partial)
        for file in partial.iterdir():
            _sync(file)
        sync_folder(partial)
        if place.exists():
            shutil.rmtree(place)  # damaged, or it would have been used
        partial.rename(place)
        sync_folder(place.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _sync(file: Path) -> None:
    with file.open("rb") as written:
        os.fsync(written.fileno())
