"""Atomic writing of files and folders, and data files of installed packages."""

import hashlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata, resources
from pathlib import Path

import platformdirs

from fsframework.core.errors import UserError


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, which atomically replaces `path` if the block succeeds.

    The data are synced before the rename, so a crash or a full disk leaves either the old file or the new one.

    Raises
    ------
    UserError
        The file cannot be written (no such folder, no permission, disk full).
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
        temporary = None
        sync_folder(path.parent)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def check_new(folder: Path) -> None:
    """Raise UserError if a path exists and is not an empty folder."""
    try:
        if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
            raise UserError(f"{folder}: exists and is not empty; choose another folder, or remove it")
    except OSError as error:
        raise UserError(f"{folder}: cannot be used: {error.strerror or error}; choose another folder") from error


@contextmanager
def making(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `folder`, which is atomically renamed to it if the block succeeds.

    Raises
    ------
    UserError
        The folder exists and is not empty (see `check_new`), or cannot be created.
    """
    check_new(folder)
    temporary = folder.parent / f".{folder.name}.{secrets.token_hex(4)}"
    try:
        temporary.mkdir(parents=True)
        yield temporary
        check_new(folder)
        sync_folder(temporary)
        if folder.exists():
            folder.rmdir()
        temporary.rename(folder)
        sync_folder(folder.parent)
    except OSError as error:
        raise UserError(f"{folder}: cannot be created: {error.strerror or error}; choose another folder") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def cache_folder() -> Path:
    """Return the folder of caches, such as $XDG_CACHE_HOME/fsframework or ~/.cache/fsframework."""
    return platformdirs.user_cache_path("fsframework", appauthor=False)


def make_cache(folder: Path) -> None:
    """Create a folder of the cache. Raise UserError if it cannot be created."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be created: {error.strerror or error}; set XDG_CACHE_HOME") from error


def data_folder() -> Path:
    """Return the folder of permanent data, such as $XDG_DATA_HOME/fsframework or ~/.local/share/fsframework."""
    return platformdirs.user_data_path("fsframework", appauthor=False)


def sync_folder(folder: Path) -> None:
    """Sync the entries of a folder to the disk, on POSIX systems."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 file atomically. Raise UserError as `replacing` does."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def packed(package: str, suffix: str) -> dict[str, Path]:
    """Return the data files of a package, such as recipes, by name without the suffix."""
    return {file.stem: file for file in sorted(Path(str(resources.files(package))).glob(f"*{suffix}"))}


def named(path_or_name: str, bundled: Mapping[str, Path], noun: str, kind: str) -> Path:
    """Return the file of a path, or of a bundled name. Raise UserError, with `noun` and `kind`, if there is neither."""
    path = Path(path_or_name)
    if path.is_file():
        return path
    if path_or_name in bundled:
        return bundled[path_or_name]
    names = ", ".join(bundled) or "none"
    raise UserError(f"{path_or_name}: no such {noun}; give a {kind} file, or one of: {names}")


def package_file(distribution: str, ending: str) -> Path:
    """Return the path of the first file of an installed distribution that ends with `ending`; nothing is imported.

    Raises
    ------
    UserError
        The distribution is not installed, or has no such file.
    """
    try:
        files = metadata.files(distribution) or []
    except metadata.PackageNotFoundError:
        raise UserError(f"{distribution}: is not installed; try: pip install {distribution}") from None
    matches = [file for file in files if str(file).endswith(ending)]
    if not matches:
        advice = f"try: pip install --force-reinstall {distribution}"
        raise UserError(f"{distribution}: the installed package has no {ending}; {advice}")
    return Path(str(matches[0].locate()))


def check_not_input(out: Path, *inputs: Path) -> None:
    """Raise UserError if an output file would replace an input."""
    for path in inputs:
        if _same_file(out, path):
            raise UserError(f"{out}: is also an input, which is never overwritten; choose another name")


def check_place(out: Path, *inputs: Path) -> None:
    """Raise UserError if an output file would replace an input, or its folder does not exist."""
    check_not_input(out, *inputs)
    if not out.parent.is_dir():
        raise UserError(f"{out}: there is no folder {out.parent}; create it, or choose another")


def _same_file(first: Path, second: Path) -> bool:
    try:
        return first.samefile(second)
    except (OSError, ValueError):  # one of them does not exist, or has an invalid name
        return False


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a file, 64 hexadecimal digits."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
