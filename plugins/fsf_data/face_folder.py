"""Your own pictures, in a folder or a zip file."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import cv2
from pydantic import Field

from fsf_data.aligned_cache import AlignedFaces, Row, cached
from fsf_data.locate import cut, fingerprint, locate
from fsf_data.sources import Source, open_source
from fsframework.alignment import template
from fsframework.components import ComponentOptions, Dataset
from fsframework.errors import UserError
from fsframework.progress import tracked
from fsframework.types import Sample


class FaceFolder(Dataset):
    """Pictures in a folder or a zip file, sorted into a folder for each person or not sorted at all.

    The first folder of a picture's path is its person; in a folder without folders nobody is known. Faces are found
    and aligned when the pictures are first used, and kept in a cache. Of each picture the main face is taken (see
    `fsf_data.locate.main_face`). Pictures that cannot be used are left out and listed in `skipped`.
    """

    name = "face-folder"

    class Options(ComponentOptions):
        root: Path = Field(description="Folder or zip file of pictures: person/picture.jpg, or pictures only.")
        test_root: Path | None = Field(None, description="Folder or zip file of the people for tests, if kept apart.")
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
        cache: Path | None = Field(None, description="Folder for aligned crops; by default ~/.cache/fsframework.")

    options: Options

    def load(self) -> None:
        """Open the cache of aligned crops; make it first if it is not there.

        Raises
        ------
        UserError
            There are no usable pictures, or nobody in this split, or a person who is held out is in root and test_root.
        """
        options = self.options
        self.skipped: list[tuple[str, str]] = []
        self.places: list[tuple[AlignedFaces, int]] = []  # of every face: its cache, and its place there
        sources = {"train": open_source(options.root.expanduser())}
        if options.test_root is not None:
            sources["test"] = open_source(options.test_root.expanduser())
            if not self.seen:
                _check_apart(sources["train"], sources["test"])
        for part, source in sources.items():
            if options.test_root is None or self.split in (part, "all"):
                faces = self._aligned(source)
                self.skipped += faces.skipped
                self.places += [(faces, place) for place in range(len(faces)) if self._belongs(faces, place)]
        if not self.places:
            remedy = f"change test_share ({options.test_share}), or give test_root"
            raise UserError(f"{options.root}: nobody is in the split {self.split}; {remedy}")

    def _belongs(self, faces: AlignedFaces, place: int) -> bool:
        if self.options.test_root is not None or self.split == "all":
            return True
        person = None if self.seen else faces.people[place]
        held_out = is_held_out(person or faces.names[place], self.options.test_share)
        return held_out == (self.split == "test")

    @property
    def seen(self) -> bool:
        """Whether pictures, not people, are held out."""
        return self.options.hold_out == "pictures"

    def _aligned(self, source: Source) -> AlignedFaces:
        detector = self.detector if self.options.layout == "raw" else None
        what = fingerprint(source, self.size, detector)

        def make() -> Iterator[Row]:
            rows = cut(locate(source, detector), self.size) if detector else as_they_are(source, self.size)
            return tracked(rows, f"aligning {Path(source.place).name}", len(source.pictures), "pictures")

        return cached(self.options.cache, what, make)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Sample:
        faces, place = self.places[index]
        return faces[place]

    def names(self) -> list[str]:
        return [faces.names[place] for faces, place in self.places]

    def people(self) -> list[str | None]:
        return [faces.people[place] for faces, place in self.places]


def is_held_out(name: str, share: float) -> bool:
    """Whether a person, or a picture of nobody known, is for tests: by a hash, so that new people change nothing."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def as_they_are(source: Source, size: int) -> Iterator[Row]:
    """Pictures that are whole-head crops already, resized; landmarks are those of the template."""
    for picture in source.pictures:
        try:
            image = source.read(picture)
        except UserError as error:
            yield Row(picture.name, picture.person, note=str(error))
            continue
        if image.shape[0] != image.shape[1]:
            yield Row(picture.name, picture.person, note="is not square, as an aligned crop is")
            continue
        smooth = cv2.INTER_AREA if image.shape[0] > size else cv2.INTER_CUBIC
        if image.shape[0] != size:
            image = cv2.resize(image, (size, size), interpolation=smooth)
        yield Row(picture.name, picture.person, image, template(size))


def _check_apart(train: Source, test: Source) -> None:
    def who(source: Source) -> set[Any]:
        return {picture.person or picture.name for picture in source.pictures}

    both = who(train) & who(test)
    if both:
        raise UserError(f"{test.place}: {min(both)} is in {train.place} too; a person must be in one of them only")
