"""Dataset of user-supplied images in a folder, a zip file or shards."""

from collections.abc import Iterator
from fnmatch import fnmatchcase
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
from fsframework.core.errors import EmptySplitError, UserError
from fsframework.core.types import Sample
from fsframework.utils.progress import tracked

Crops = AlignedFaces | ShardedCrops


class FaceFolder(Dataset):
    """Images in a folder, a zip file or webdataset shards, optionally in one subfolder per person.

    The first folder of an image's path is its person; without subfolders, people are unknown. Faces are detected and
    aligned on first use, and cached. One face per image is used, see `fsf_data.locate.main_face`. Unusable images are
    skipped and listed in `skipped`.

    Shards of aligned crops, as `fsf extract --shards` writes them, suit millions of faces: crops are read from the
    shards on access, and only an index is cached. Invalid members, such as pickles and paths outside the shard, and
    truncated shards are errors unless `on_error` is skip.
    """

    name = "face-folder"

    class Options(ComponentOptions):
        root: Path = Field(
            description="Folder, zip file or shards of pictures: person/picture.jpg, or pictures only. Shards are a "
            ".tar, a folder of them, or a name such as faces-*.tar or faces-{000000..000009}.tar."
        )
        test_root: Path | None = Field(None, description="The same for the test set, if it is stored separately.")
        test_share: float = Field(0.1, ge=0, le=1, description="Fraction held out for tests, without test_root.")
        hold_out: Literal["people", "pictures"] = Field(
            "people",
            description="What is held out for tests: people, or pictures of every person, for methods with a closed "
            "set of people. The test set is a test_share of them, or test_root.",
        )
        layout: Literal["raw", "aligned"] = Field(
            "raw", description="raw: detect and align the faces. aligned: pictures are whole-head crops already."
        )
        exclude: list[str] = Field(
            [],
            description="Patterns of pictures to leave out, compared with the path inside root and test_root, such as "
            "masks/*. For folders and zip files.",
        )
        on_error: Literal["stop", "skip"] = Field(
            "stop",
            description="Whether to stop at invalid members of shards, or skip them. In folders and zip files, "
            "unusable pictures are always skipped.",
        )
        cache: Path | None = Field(
            None, description="Folder for aligned crops and indexes; default: ~/.cache/fsframework."
        )

    options: Options

    def load(self) -> None:
        """Open the cache of aligned crops, or the index of shards; build it first if it is absent.

        Raises
        ------
        UserError
            There are no usable images, or nobody in this split; or a test person is in both root and test_root; or a
            member of a shard is invalid and `on_error` is stop; or a pattern of `exclude` matches no picture.
        """
        options = self.options
        self.skipped: list[tuple[str, str]] = []  # unusable images and the reasons
        self.parts: list[tuple[Crops, np.ndarray]] = []  # each with the indices (n,) that belong to this split
        self._unmatched = set(options.exclude)
        opened = {"train": self._open(options.root)}
        if options.test_root is not None:
            opened["test"] = self._open(options.test_root)
            if not self.is_closed_set:
                _check_disjoint(opened["train"], opened["test"])
        if self._unmatched:
            raise UserError(f"{options.root}: exclude: no picture matches {min(self._unmatched)}; correct the pattern")
        for part, source in opened.items():
            if options.test_root is None or self.split in (part, "all"):
                faces = self._crops(source)
                self.parts.append((faces, np.flatnonzero(self._in_split(faces))))
        self._ends = np.cumsum([len(indices) for _, indices in self.parts])
        if not len(self):
            people = sum(len(faces.who) for faces, _ in self.parts)
            found = f"{people} people, of whom 0 are in the {self.split} split"
            raise EmptySplitError(f"{options.root}: {found}; set test_share (now {options.test_share}), or test_root")

    def _open(self, root: Path) -> ImageSource | ShardIndex:
        root = root.expanduser()
        files = shard_files(root)
        if not files:
            return self._without_excluded(open_source(root))
        if self.options.exclude:
            raise UserError(f"{root}: exclude is for folders and zip files; make the shards without those pictures")
        index = open_index(files, self.options.cache)
        self.skipped += index.skipped
        if index.skipped and self.options.on_error == "stop":
            name, reason = index.skipped[0]
            more = f" (and {len(index.skipped) - 1} more)" if len(index.skipped) > 1 else ""
            raise UserError(f"{name}: {reason}; or go on without it by --on-error skip{more}")
        if not len(index):
            raise UserError(f"{root}: its shards hold no usable pictures; {len(index.skipped)} are unusable")
        return index

    def _without_excluded(self, source: ImageSource) -> ImageSource:
        """Return the source without the pictures that `exclude` matches, whose patterns are marked as used."""
        excluded: set[str] = set()
        for pattern in self.options.exclude:
            matches = {picture.name for picture in source.pictures if fnmatchcase(picture.name, pattern)}
            if matches:
                self._unmatched.discard(pattern)
            excluded |= matches
        source.pictures = [picture for picture in source.pictures if picture.name not in excluded]
        if not source.pictures:
            raise UserError(f"{source.place}: exclude matches all of its pictures; use narrower patterns")
        return source

    def _crops(self, source: ImageSource | ShardIndex) -> Crops:
        if isinstance(source, ShardIndex):
            if self.options.layout == "aligned":
                return ShardedCrops(source.folder, self.size, self.options.on_error == "skip")
            source = Shards(source)
        faces = self._aligned(source)
        self.skipped += faces.skipped
        return faces

    def _in_split(self, faces: Crops) -> np.ndarray:
        """Return a mask (N,) bool of the faces in this split."""
        if self.options.test_root is not None or self.split == "all":
            return np.ones(len(faces), bool)
        return faces.held_out(self.options.test_share, by_name=self.is_closed_set) == (self.split == "test")

    @property
    def is_closed_set(self) -> bool:
        """Return whether images, not people, are held out."""
        return self.options.hold_out == "pictures"

    def _aligned(self, source: ImageSource) -> AlignedFaces:
        detector = self.detector if self.options.layout == "raw" else None
        key = fingerprint(source, self.size, detector)

        def make() -> Iterator[Row]:
            rows = cut(locate(source, detector), self.size) if detector else as_they_are(source, self.size)
            return tracked(rows, f"aligning {Path(source.place).name}", len(source.pictures), "pictures")

        return cached(self.options.cache, key, make)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(index)
        part = int(np.searchsorted(self._ends, index, side="right"))
        faces, indices = self.parts[part]
        return faces[int(indices[index - (self._ends[part - 1] if part else 0)])]

    def names(self) -> list[str]:
        return [faces.names[index] for faces, indices in self.parts for index in indices.tolist()]

    def people(self) -> list[str | None]:
        people: list[str | None] = []
        for faces, indices in self.parts:
            names = [*faces.who, None]  # the last entry is for -1; all faces of a person share one string
            people += [names[person] for person in faces.person[indices].tolist()]
        return people

    def persons(self) -> np.ndarray:
        return person_numbers([(faces, indices) for faces, indices in self.parts])


def _check_disjoint(train: ImageSource | ShardIndex, test: ImageSource | ShardIndex) -> None:
    both = np.intersect1d(_hashes(train), _hashes(test))
    if len(both):
        person = min(name for name in _identities(test) if hash_of(name) in both)
        raise UserError(f"{test.place}: {person} is in {train.place} too; a person must be in one of them only")


def _hashes(source: ImageSource | ShardIndex) -> np.ndarray:
    """Return the hashes (n,) uint64 of the source's identities, in order; an index stores them."""
    if isinstance(source, ShardIndex):
        return np.concatenate([source.who_hash, source.name_hash[source.person < 0]])
    return np.fromiter(map(hash_of, _identities(source)), np.uint64)


def _identities(source: ImageSource | ShardIndex) -> Iterator[str]:
    """Yield every person, and the name of every image of an unknown person."""
    if isinstance(source, ShardIndex):
        yield from source.who
        yield from (source.names[index] for index in np.flatnonzero(source.person < 0).tolist())
    else:
        yield from dict.fromkeys(picture.person or picture.name for picture in source.pictures)
