"""Dataset of rendered synthetic people, with the ground-truth swap of any two images."""

from typing import Any

import numpy as np
from pydantic import Field

from fsf_graphics import head_model
from fsf_graphics.head_pose import AHEAD, angles, rotation
from fsf_graphics.light import lamp, sky
from fsf_graphics.scene import Person, Picture, Setting, five, placed, render
from fsf_graphics.skin_model import GAMMA, draw, shipped
from fsframework.core.components import ComponentOptions, Dataset
from fsframework.core.types import Sample

TEST = 4  # one of this many people is in the test split
HAIRS = np.array([[22, 18, 17], [45, 32, 26], [75, 52, 38], [140, 112, 75], [125, 122, 118]])  # sRGB, 0..255
ROLL = 8.0  # standard deviation of the roll in degrees, before alignment


class RenderedHeads(Dataset):
    """Rendered heads of sampled people with known pose, expression and lighting, and ground-truth swaps.

    Identity is the shape and the skin of a head, sampled from statistics of LFW (`fsf_graphics.skin_model`). Pose,
    expression, lighting, hair and background are attributes of the image, although hair is constant per person. The
    ground-truth swap has the source's shape and skin and the target's attributes: as in face swapping, and unlike head
    swapping, hair is not part of the identity. Names are p0/0, p0/1, ...; every fourth person is in the test split.
    Images are deterministic, and independent of the numbers of people and images.
    """

    name = "rendered-heads"

    class Options(ComponentOptions):
        people: int = Field(80, ge=TEST, description="Number of people; a quarter of them is in the test split.")
        pictures: int = Field(10, ge=1, description="Number of pictures per person.")
        seed: int = Field(0, ge=0, description="Seed of all random numbers.")
        yaw: float = Field(40.0, ge=0, le=70, description="Maximum yaw to either side, in degrees.")
        pitch: float = Field(15.0, ge=0, le=40, description="Maximum pitch up or down, in degrees.")
        expression: float = Field(1.0, ge=0, le=1.5, description="Strength of expressions; 1: as in LFW.")
        light: float = Field(1.0, ge=0, le=1.5, description="Strength of directional light; 0: uniform light.")

    options: Options

    def __init__(self, options: Options, size: int, detector: Any, split: str) -> None:
        super().__init__(options, size, detector, split)
        test = {"train": (False,), "test": (True,), "all": (False, True)}[split]
        chosen = [number for number in range(options.people) if (number % TEST == TEST - 1) in test]
        self.places = [(person, picture) for person in chosen for picture in range(options.pictures)]
        self._people: dict[int, Person] = {}
        self._settings: dict[int, Setting] = {}
        self._pictures: dict[tuple[int, int], Picture] = {}

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Sample:
        return self.ground_truth_swap(index, index)

    def names(self) -> list[str]:
        return [f"p{person}/{picture}" for person, picture in self.places]

    def people(self) -> list[str | None]:
        return [f"p{person}" for person, _ in self.places]

    def ground_truth_swap(self, source: int, target: int) -> Sample:
        """Return the target's image, rendered with the source's person."""
        picture = self._picture(source, target)
        (owner, _), (person, number) = self.places[source], self.places[target]
        return Sample(picture.image.copy(), f"p{person}/{number}", f"p{owner}", five(picture.landmarks))

    def expected(self, quantity: str, source: int, target: int) -> np.ndarray | None:
        """Return `pose_deg` (3,) in degrees, `landmarks68` (68, 2) in pixels, or `mask` (1, S, S), 1 on the face.

        Other quantities are None.
        """
        if quantity == "pose_deg":
            return angles(self.setting(target).matrix) + np.array([0, AHEAD, 0])
        picture = self._picture(source, target)
        values = {"landmarks68": picture.landmarks, "mask": picture.face[None].astype(np.float64)}
        return values.get(quantity)

    def _picture(self, source: int, target: int) -> Picture:
        owner = self.places[source][0]
        if (owner, target) not in self._pictures:
            self._pictures[owner, target] = render(self.person(owner), self.setting(target), self.size)
        return self._pictures[owner, target]

    def person(self, number: int) -> Person:
        """Return the person of a number."""
        if number not in self._people:
            model, rng = shipped(), np.random.default_rng([self.options.seed, 0, number])
            shape = model.people @ draw(rng, len(model.people))
            self._people[number] = Person(shape, draw(rng, len(model.modes)), drawn_hair(rng))
        return self._people[number]

    def setting(self, index: int) -> Setting:
        """Return the attributes of the image at `index`."""
        if index not in self._settings:
            owner, picture = self.places[index]
            rng = np.random.default_rng([self.options.seed, 1, owner, picture])
            self._settings[index] = drawn_setting(self.options, self.person(owner), rng)
        return self._settings[index]


def drawn_setting(options: RenderedHeads.Options, person: Person, rng: np.random.Generator) -> Setting:
    """Return a random pose, expression, lighting and background for a person."""
    yaw, pitch = rng.uniform(-1, 1, 2) * (options.yaw, options.pitch)
    model = shipped()
    expression = options.expression * (model.expressions @ draw(rng, len(model.expressions)))
    shape = head_model.shipped().shape(person.shape + expression)
    matrix, shift = placed(shape, rotation(yaw, pitch, ROLL * rng.standard_normal()))
    light, clothes = drawn_light(rng, options.light), rng.uniform(10, 200) + rng.uniform(-25, 25, 3)
    return Setting(expression, matrix, shift, light, person.hair, clothes.clip(0, 255), drawn_background(rng))


def drawn_light(rng: np.random.Generator, strength: float) -> np.ndarray:
    """Return the random radiance (9, 3) of uniform light and a lamp in front, of roughly constant total brightness."""
    share = strength * rng.uniform(0.2, 0.65)
    across, up = np.radians(rng.uniform(-75, 75)), np.radians(rng.uniform(-15, 55))
    towards = np.array([np.sin(across) * np.cos(up), -np.sin(up), -np.cos(across) * np.cos(up)])
    tint = 1 + strength * 0.06 * rng.standard_normal((2, 3))
    return rng.uniform(0.8, 1.15) * (sky((1 - share) * tint[0]) + lamp(towards, 1.5 * share * tint[1]))


def drawn_hair(rng: np.random.Generator) -> np.ndarray:
    """Return a random mixture (3,) of two hair colours, linear RGB."""
    first, second = HAIRS[rng.integers(len(HAIRS), size=2)]
    levels = first + rng.uniform() * (second - first)
    colour: np.ndarray = (levels / 255) ** GAMMA
    return colour


def drawn_background(rng: np.random.Generator) -> np.ndarray:
    """Return a random low-resolution background (h, w, 3) in 0..255."""
    colour = rng.uniform(30, 220) + 18 * rng.standard_normal(3)
    side = int(rng.integers(2, 8))
    blots = 40 * rng.standard_normal((side, side, 1)) + 15 * rng.standard_normal((side, side, 3))
    return (colour + blots).clip(0, 255)
