"""Your own pictures, in a folder, a zip file or shards."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from fsf_data.aligned_cache import AlignedFaces, Row, cached
from fsf_data.aligned_layout import ShardedCrops, as_they_are
from fsf_data.face_index import hash_of, person_numbers
from fsf_data.locate import cut, fingerprint, locate
from fsf_data.shards import ShardIndex, Shards, open_index, shard_files
from fsf_data.sources import ImageSource, open_source
from fsframework.core.components import ComponentOptions, Dataset
from fsframework.core.errors import UserError
from fsframework.core.types import Sample
from fsframework.utils.progress import tracked

Crops = AlignedFaces | ShardedCrops


class FaceFolder(Dataset):
    """Pictures in a folder, a zip file or webdataset's shards, sorted into folders for each person or not at all.

    The first folder of a picture's path is its person; in a folder without folders nobody is known. Faces are found
    and aligned when the pictures are first used, and kept in a cache. Of each picture the main face is taken (see
    `fsf_data.locate.main_face`). Pictures that cannot be used are left out and listed in `skipped`.

    Shards of aligned crops, as `fsf extract --shards` writes them, are for millions of faces: crops are read from them
    when they are asked for, and only an index is kept. Members that are no good, such as pickles and paths that lead
    outside, and shards that were cut, stop everything unless `on_error` says otherwise.
    """

    name = "face-folder"

    class Options(ComponentOptions):
        root: Path = Field(
            description="Folder, zip file or shards of pictures: person/picture.jpg, or pictures only. Shards are a "
            ".tar, a folder of them, or a name such as faces-*.tar or faces-{000000..000009}.tar."
        )
        test_root: Path | None = Field(None, description="The same, of the people for tests, if they are kept apart.")
        test_share: float = Field(
            0.1, ge=0, le=1, description="Share of what is held out for tests, where there is no test_root."
        )
        hold_out: Literal["people", "pictures"] = Field(
            "people",
            description="Whether people are for tests or, for methods that paint only people they have seen, pictures "
            "of everybody: a test_share of them, or those in test_root.",
        )
        layout: Literal["raw", "aligned"] = Field(
            "raw", description="raw: find and align the faces. aligned: pictures are whole-head crops already."
        )
        on_error: Literal["stop", "skip"] = Field(
            "stop",
            description="What is done about what is wrong with shards: stop, or go on without it. Of folders and zip "
            "files, pictures that cannot be used are always left out.",
        )
        cache: Path | None = Field(
            None, description="Folder for aligned crops and indexes; by default ~/.cache/fsframework."
        )

    options: Options

    def load(self) -> None:
        """Open the cache of aligned crops, or the index of shards; make it first if it is not there.

        Raises
        ------
        UserError
            There are no usable pictures, or nobody in this split, or a person who is held out is in root and
            test_root, or a member of a shard is no good and none shall be skipped.
        """
        options = self.options
        self.skipped: list[tuple[str, str]] = []  # pictures that cannot be used, and why
        self.parts: list[tuple[Crops, np.ndarray]] = []  # each with the places (n,) that belong to this split
        opened = {"train": self._opened(options.root)}
        if options.test_root is not None:
            opened["test"] = self._opened(options.test_root)
            if not self.is_closed_set:
                _check_apart(opened["train"], opened["test"])
        for part, source in opened.items():
            if options.test_root is None or self.split in (part, "all"):
                faces = self._crops(source)
                self.parts.append((faces, np.flatnonzero(self._belong(faces))))
        self._ends = np.cumsum([len(places) for _, places in self.parts])
        if not len(self):
            remedy = f"change test_share ({options.test_share}), or give test_root"
            raise UserError(f"{options.root}: nobody is in the split {self.split}; {remedy}")

    def _opened(self, root: Path) -> ImageSource | ShardIndex:
        root = root.expanduser()
        files = shard_files(root)
        if not files:
            return open_source(root)
        index = open_index(files, self.options.cache)
        self.skipped += index.skipped
        if index.skipped and self.options.on_error == "stop":
            name, reason = index.skipped[0]
            more = f" (and {len(index.skipped) - 1} more)" if len(index.skipped) > 1 else ""
            raise UserError(f"{name}: {reason}; or go on without it by --on-error skip{more}")
        if not len(index):
            raise UserError(f"{root}: its shards hold no pictures that can be used; {len(index.skipped)} cannot")
        return index

    def _crops(self, source: ImageSource | ShardIndex) -> Crops:
        if isinstance(source, ShardIndex):
            if self.options.layout == "aligned":
                return ShardedCrops(source.folder, self.size, self.options.on_error == "skip")
            source = Shards(source)
        faces = self._aligned(source)
        self.skipped += faces.skipped
        return faces

    def _belong(self, faces: Crops) -> np.ndarray:
        """Which faces (N,) bool are in this split."""
        if self.options.test_root is not None or self.split == "all":
            return np.ones(len(faces), bool)
        return faces.held_out(self.options.test_share, by_name=self.is_closed_set) == (self.split == "test")

    @property
    def is_closed_set(self) -> bool:
        """Whether pictures, not people, are held out."""
        return self.options.hold_out == "pictures"

    def _aligned(self, source: ImageSource) -> AlignedFaces:
        detector = self.detector if self.options.layout == "raw" else None
        what = fingerprint(source, self.size, detector)

        def make() -> Iterator[Row]:
            rows = cut(locate(source, detector), self.size) if detector else as_they_are(source, self.size)
            return tracked(rows, f"aligning {Path(source.place).name}", len(source.pictures), "pictures")

        return cached(self.options.cache, what, make)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(index)
        part = int(np.searchsorted(self._ends, index, side="right"))
        faces, places = self.parts[part]
        return faces[int(places[index - (self._ends[part - 1] if part else 0)])]

    def names(self) -> list[str]:
        return [faces.names[place] for faces, places in self.parts for place in places.tolist()]

    def people(self) -> list[str | None]:
        found: list[str | None] = []
        for faces, places in self.parts:
            who = [*faces.who, None]  # the last stands for -1; a text is shared by all faces of a person
            found += [who[person] for person in faces.person[places].tolist()]
        return found

    def persons(self) -> np.ndarray:
        return person_numbers([(faces, places) for faces, places in self.parts])


def _check_apart(train: ImageSource | ShardIndex, test: ImageSource | ShardIndex) -> None:
    both = np.intersect1d(_hashes(train), _hashes(test))
    if len(both):
        who = min(name for name in _identities(test) if hash_of(name) in both)
        raise UserError(f"{test.place}: {who} is in {train.place} too; a person must be in one of them only")


def _hashes(source: ImageSource | ShardIndex) -> np.ndarray:
    """The hash of each of them (n,) uint64, in the same order; an index knows them."""
    if isinstance(source, ShardIndex):
        return np.concatenate([source.who_hash, source.name_hash[source.person < 0]])
    return np.fromiter(map(hash_of, _identities(source)), np.uint64)


def _identities(source: ImageSource | ShardIndex) -> Iterator[str]:
    """Every person, and every picture of nobody known."""
    if isinstance(source, ShardIndex):
        yield from source.who
        yield from (source.names[place] for place in np.flatnonzero(source.person < 0).tolist())
    else:
        yield from dict.fromkeys(picture.person or picture.name for picture in source.pictures)
