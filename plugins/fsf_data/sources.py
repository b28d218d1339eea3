"""Common interface to images in a folder and in a zip file, which is not unpacked."""

import io
import stat
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

import numpy as np

from fsframework.core.errors import UserError
from fsframework.media.image_io import SUFFIXES, read_image, read_labels

MAX_MEMBER = 256 * 2**20  # maximum size of an unpacked member, in bytes
MAX_RATIO = 100  # maximum compression ratio of a zip file; images hardly compress, zip bombs do
SMALL = 2**30  # total unpacked size in bytes that is allowed at any ratio


@dataclass(frozen=True)
class Picture:
    """Entry of a source. Size and stamp change when the image does."""

    name: str  # path inside the source, with "/"
    size: int  # bytes
    stamp: int  # time of change in ns, or CRC-32

    @property
    def person(self) -> str | None:
        """The first folder of the name; None for an image outside any folder."""
        return self.name.split("/", 1)[0] if "/" in self.name else None


class ImageSource(Protocol):
    """Collection of images."""

    place: str  # path, for error messages
    pictures: list[Picture]  # sorted by name

    def read(self, picture: Picture) -> np.ndarray:
        """Return an image (H, W, 3) uint8. Raises UserError if it cannot be read."""
        ...


def open_source(path: Path) -> "Folder | Zip":
    """Return the images of a folder or a zip file.

    Raises
    ------
    UserError
        The path is neither, has no images, or the zip file is unsafe.
    """
    if path.is_dir():
        source: Folder | Zip = Folder(path)
    elif not path.exists():
        raise UserError(f"{path}: does not exist; give a folder or a zip file of pictures")
    elif zipfile.is_zipfile(path):
        source = Zip(path)
    else:
        raise UserError(f"{path}: is neither a folder nor a zip file; give one that holds pictures")
    if not source.pictures:
        raise UserError(f"{path}: holds no pictures; their names must end in {', '.join(sorted(SUFFIXES))}")
    return source


def is_image(name: PurePosixPath) -> bool:
    """Return whether a file has an image suffix and is not hidden."""
    return name.suffix.lower() in SUFFIXES and not any(part.startswith((".", "__MACOSX")) for part in name.parts)


class Folder:
    """All images below a folder. Links to folders are not followed."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.place = str(self.root)
        self.pictures = []
        try:
            for path in self.root.rglob("*"):
                name = PurePosixPath(path.relative_to(self.root).as_posix())
                if is_image(name) and path.is_file():
                    info = path.stat()
                    self.pictures.append(Picture(str(name), info.st_size, info.st_mtime_ns))
        except OSError as error:
            raise UserError(f"{root}: cannot be listed: {error.strerror or error}; check its permissions") from error
        self.pictures.sort(key=lambda picture: picture.name)

    def read(self, picture: Picture) -> np.ndarray:
        return read_image(self.root / picture.name)

    def labels(self, picture: Picture) -> np.ndarray:
        """Return a grey or palette image's values (H, W) uint8. Raises UserError if it cannot be read."""
        return read_labels(self.root / picture.name)


class Zip:
    """All images in a zip file. Paths outside the archive and zip bombs are rejected."""

    def __init__(self, path: Path) -> None:
        self.place = str(path.resolve())
        try:
            self.file = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError) as error:
            raise UserError(f"{path}: cannot be read as a zip file: {error}; pack it again") from error
        members = [member for member in self.file.infolist() if not member.is_dir()]
        for member in members:
            _check_name(path, member)
        members = [member for member in members if is_image(PurePosixPath(member.filename))]
        _check_sizes(path, members)
        self.pictures = sorted(
            (Picture(member.filename, member.file_size, member.CRC) for member in members),
            key=lambda picture: picture.name,
        )

    def read(self, picture: Picture) -> np.ndarray:
        return read_image(*self._unpacked(picture))

    def labels(self, picture: Picture) -> np.ndarray:
        """Return a grey or palette image's values (H, W) uint8. Raises UserError if it cannot be read."""
        return read_labels(*self._unpacked(picture))

    def _unpacked(self, picture: Picture) -> tuple[io.BytesIO, str]:
        """Return the unpacked member, and its name for error messages."""
        name = f"{self.place}: {picture.name}"
        try:
            with self.file.open(picture.name) as member:
                data = member.read(picture.size + 1)  # bounded, because the declared size may be wrong
        except Exception as error:  # damaged, encrypted, unknown method: many exception types
            raise UserError(f"{name}: cannot be unpacked: {error}; pack it again") from error
        return io.BytesIO(data), name


def _check_name(path: Path, member: zipfile.ZipInfo) -> None:
    name = member.orig_filename
    if stat.S_ISLNK(member.external_attr >> 16) or is_unsafe(name):
        raise UserError(f"{path}: its member {name!r} is a link or has an unsafe path; pack it again")


def is_unsafe(name: str) -> bool:
    """Return whether a member's path leaves its folder. Names of images become names of outputs."""
    leads_out = name.startswith("/") or ".." in name.split("/") or name[1:2] == ":"
    return leads_out or "\\" in name or "\0" in name


def _check_sizes(path: Path, members: list[zipfile.ZipInfo]) -> None:
    names = set()
    for member in members:
        if member.file_size > MAX_MEMBER:
            raise UserError(f"{path}: its member {member.filename} unpacks to {member.file_size:,} bytes; too large")
        if member.filename in names:
            raise UserError(f"{path}: holds {member.filename} twice; pack it again")
        names.add(member.filename)
    total = sum(member.file_size for member in members)
    if total > max(SMALL, MAX_RATIO * path.stat().st_size):
        raise UserError(f"{path}: its pictures unpack to {total:,} bytes, over {MAX_RATIO} times its size; not safe")
