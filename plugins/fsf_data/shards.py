"""Random access to images in shards, tar files in webdataset's format.

An index stores shard and offset of each image. It is built once from the members' headers, and cached. Each image is
one read, in any order, without unpacking. Members are named PERSON/KEY.jpg or KEY.jpg; members of other types with the
same key are ignored. Nothing is ever unpickled.
"""

import io
import json
import os
import tarfile
from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from fsf_data.cache import cached
from fsf_data.face_index import FaceIndex, FaceIndexWriter
from fsf_data.sources import MAX_MEMBER, Picture, is_unsafe
from fsf_data.texts import Texts, mapped
from fsframework.core.errors import UserError
from fsframework.media.image_io import SUFFIXES, read_image
from fsframework.utils.progress import tracked

FORMAT = 1  # version of the index format
MAX_HEAD = 2**20  # maximum bytes per read of headers; no header is longer
OPEN_FILES = 64  # maximum number of open shards
PICKLES = frozenset(["pkl", "pickle", "pyd", "pt", "pth", "ckpt", "joblib"])  # may run code when loaded
PLAIN = {tarfile.REGTYPE, tarfile.AREGTYPE}


def shard_files(path: Path) -> list[Path]:
    """Return the shards of a path, in order: a .tar file, a folder of them, or a name with a wildcard *.

    The list is empty for any other path. A name with a brace range {000000..000009} needs webdataset.
    """
    if path.is_dir():
        return sorted(path.glob("*.tar"))
    if path.is_file():
        return [path] if path.suffix.lower() == ".tar" else []
    if "{" in path.name:
        try:
            from braceexpand import braceexpand
        except ImportError:
            raise UserError(f"{path}: braces need webdataset; try: pip install 'fsframework[shards]'") from None
        return [path.with_name(name) for name in braceexpand(path.name)]
    return sorted(path.parent.glob(path.name)) if "*" in path.name else []


class ShardIndex(FaceIndex):
    """Index of the images in shards.

    `skipped` lists invalid members with the reason; the rest of a truncated shard counts as one.

    Raises
    ------
    OSError, EOFError, ValueError, KeyError, TypeError
        There is no complete index in the folder.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.files = [Path(file) for file in json.loads((folder / "shards.json").read_text(encoding="utf-8"))]
        self.shard, self.offset, self.size = (
            mapped(folder, name) for name in ("shard", "offset", "size")
        )  # (N,) int32 index in `files`; int64 and int32, in bytes
        if not len(self) == len(self.shard) == len(self.offset) == len(self.size):
            raise ValueError(f"{folder}: its files do not belong together")
        self.place = str(self.files[0].parent)
        self._open: OrderedDict[int, int] = OrderedDict()  # file descriptors by shard, least recently used first

    def __del__(self) -> None:
        for handle in getattr(self, "_open", {}).values():
            os.close(handle)

    def place_of(self, index: int) -> str:
        """Return the name of the image at `index` in error messages: shard and member."""
        return f"{self.files[self.shard[index]]}: {self.names[index]}"

    def read(self, index: int) -> np.ndarray:
        """Return the image (H, W, 3) uint8 at `index`. Raises UserError, naming shard and member, if unreadable."""
        size = int(self.size[index])
        try:
            data = os.pread(self._handle(int(self.shard[index])), size, int(self.offset[index]))
        except OSError as error:
            raise UserError(f"{self.place_of(index)}: cannot be read: {error.strerror or error}") from error
        return read_image(io.BytesIO(data), self.place_of(index))

    def _handle(self, shard: int) -> int:
        """Return the open file descriptor of a shard."""
        if shard not in self._open:
            if len(self._open) == OPEN_FILES:
                os.close(self._open.popitem(last=False)[1])
            self._open[shard] = os.open(self.files[shard], os.O_RDONLY | getattr(os, "O_BINARY", 0))
        self._open.move_to_end(shard)
        return self._open[shard]


def open_index(files: Sequence[Path], cache: Path | None) -> ShardIndex:
    """Return the index of shards, from the cache if present.

    Raises
    ------
    UserError
        A shard cannot be read, or a name occurs twice.
    """
    try:
        files = [file.resolve(strict=True) for file in files]
        stamps = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be read: {error.strerror or error}; check the path") from error
    return cached(
        cache, "shards", {"format": FORMAT, "shards": stamps}, lambda folder: _write(folder, files), ShardIndex
    )


def _write(folder: Path, files: Sequence[Path]) -> None:
    """Write the files of a `ShardIndex`."""
    shard, offset, size = array("i"), array("q"), array("i")
    with FaceIndexWriter(folder) as index:
        for number, file in enumerate(tracked(files, "indexing", len(files), "shards")):
            for name, start, count, problem in members(file):
                if problem:
                    index.skip(f"{file}: {name}" if name else str(file), problem)
                    continue
                index.add(name, name.split("/", 1)[0] if "/" in name else None)
                shard.append(number)
                offset.append(start)
                size.append(count)
    _check_distinct(folder, np.array(index.name_hash, np.uint64), files, shard)
    for name, values, kind in (("shard", shard, np.int32), ("offset", offset, np.int64), ("size", size, np.int32)):
        np.save(folder / f"{name}.npy", np.array(values, kind))
    (folder / "shards.json").write_text(json.dumps([str(file) for file in files]), encoding="utf-8")


def _check_distinct(folder: Path, hashes: np.ndarray, files: Sequence[Path], shard: Sequence[int]) -> None:
    order = np.argsort(hashes, kind="stable")
    same = np.flatnonzero(hashes[order][1:] == hashes[order][:-1])
    if len(same):
        first, second = order[same[0]], order[same[0] + 1]
        name = Texts(folder, "names")[int(first)]
        raise UserError(f"{files[shard[second]]}: holds {name}, as {files[shard[first]]} does; names must differ")


def members(file: Path) -> Iterator[tuple[str, int, int, str]]:
    """Yield (name, offset, size in bytes, problem) of a shard's images and of its invalid members.

    The problem is empty for images. The name is empty if the problem concerns the whole shard.
    """
    length = file.stat().st_size
    last = ""
    try:
        with _Heads(file) as heads, tarfile.open(fileobj=heads, mode="r:") as tar:
            end = 0
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # else tarfile keeps all of them
                name = last = member.name.removeprefix("./")
                if member.size < 0 or member.offset < end:
                    yield "", 0, 0, f"is damaged at its member {name!r}; make it again"
                    return
                if member.offset_data + member.size > length:
                    available = length - member.offset_data
                    yield (
                        name,
                        0,
                        0,
                        f"claims {member.size:,} bytes where {available:,} are left: the shard is cut, or lies",
                    )
                    return
                end = member.offset_data + member.size
                if problem := _problem(member):
                    yield name, 0, 0, problem
                elif is_picture(name):
                    yield name, member.offset_data, member.size, ""
            heads.seek(tar.offset)
            if heads.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # end of a tar file
                yield "", 0, 0, f"is cut or damaged behind its member {last!r}; make it again"
    except Exception as error:  # with damaged headers, tarfile raises many types
        position = f" behind its member {last!r}" if last else ""
        yield "", 0, 0, f"is no plain tar file, or is damaged{position}: {error}; unpack it if it is compressed"


class _Heads(io.FileIO):
    """File whose reads are limited to the maximum size of a header, whatever size the archive claims."""

    def __init__(self, file: Path) -> None:
        super().__init__(file, "rb")

    def read(self, size: int | None = -1) -> bytes:
        return super().read(MAX_HEAD if size is None or size < 0 else min(size, MAX_HEAD)) or b""


def _problem(member: tarfile.TarInfo) -> str:
    """Return the reason why a member is invalid; empty if it is valid."""
    if is_unsafe(member.name):
        return "has a path that leads outside; pack the shard again"
    if member.isdir():
        return ""
    if member.type not in PLAIN or member.issparse():
        return "is a link, a device or another special file; pack the shard again"
    if member.name.rpartition(".")[2].lower() in PICKLES:
        return "is a pickle, which could run any code when it is read; pack the shard without it"
    if member.size > MAX_MEMBER:
        return f"has {member.size:,} bytes, more than {MAX_MEMBER:,}; make it smaller"
    return ""


def is_picture(name: str) -> bool:
    """Return whether a member is the image of its key: KEY.jpg, not KEY.mask.jpg, and not hidden."""
    stem, dot, suffix = name.rpartition("/")[2].partition(".")
    return bool(stem and dot) and f".{suffix.lower()}" in SUFFIXES


class Shards:
    """Images of shards as a `fsf_data.sources.ImageSource`."""

    def __init__(self, index: ShardIndex) -> None:
        self.index = index
        self.place = index.place
        stamps = [file.stat().st_mtime_ns for file in index.files]
        pictures = [
            Picture(name, int(size), stamps[shard])
            for name, size, shard in zip(index.names, index.size, index.shard, strict=True)
        ]
        self._indices = {picture.name: index for index, picture in enumerate(pictures)}
        self.pictures = sorted(pictures, key=lambda picture: picture.name)

    def read(self, picture: Picture) -> np.ndarray:
        return self.index.read(self._indices[picture.name])
