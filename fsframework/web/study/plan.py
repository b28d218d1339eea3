"""The plan of a study, stored in study.json, and the random orders of trials and images for each participant.

A study's folder holds study.json, consent.txt, pictures/ and, after `fsf study serve`, answers.sqlite.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fsframework.core.errors import UserError

PLAN, CONSENT, PICTURES, ANSWERS = "study.json", "consent.txt", "pictures", "answers.sqlite"
MOST = 9  # maximum number of methods: each has a number key

Picture = Annotated[str, Field(pattern=r"^[0-9a-f]{32}\.png$")]  # a random file name, which reveals nothing
_TRIALS, _OPTIONS = range(2)  # separate random streams of one seed


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Question(_Part):
    """A question about every trial, and the image beside the results."""

    id: str = Field(min_length=1)
    text: str = Field(min_length=1)
    beside: Literal["source", "target"] | None


class Option(_Part):
    """An image to choose: a method's, or in an attention check `source`, `target` or `degraded`."""

    what: str
    picture: Picture


class Trial(_Part):
    """A pair and its options."""

    pair: tuple[str, str]  # names of source and target in the data set
    source: Picture
    target: Picture
    options: list[Option]
    right: dict[str, list[int]]  # correct options of an attention check, by question

    @property
    def is_check(self) -> bool:
        """Return whether the trial is an attention check."""
        return bool(self.right)


class Method(_Part):
    """A compared method."""

    name: str
    model: str  # as on the command line
    recipe_sha256: str
    weights_sha256: dict[str, str]  # by file; empty for methods without weights
    size: int
    known_people: bool  # it supports only people of its training data


class Study(_Part):
    """A study. Its questions may be reworded in study.json before the first answer."""

    id: str
    date: str
    command: str
    seed: Annotated[int, Field(ge=0)]
    side: int  # of every image, in pixels
    methods: list[Method] = Field(min_length=2, max_length=MOST)
    questions: list[Question] = Field(min_length=1)
    trials: list[Trial] = Field(min_length=1)
    evaluation: dict[str, Any]  # of the first method's recipe, the source of data and pairs
    manifest: dict[str, Any]

    @model_validator(mode="after")
    def _fits(self) -> "Study":
        names = [method.name for method in self.methods]
        ids = {question.id for question in self.questions}
        for number, trial in enumerate(self.trials):
            if len(trial.options) != len(names):
                raise ValueError(f"trial {number} has {len(trial.options)} options for {len(names)} methods")
            if not trial.is_check and [option.what for option in trial.options] != names:
                raise ValueError(f"the options of trial {number} are not the methods in their order")
            if not trial.right.keys() <= ids:
                raise ValueError(f"trial {number} has correct options of an unknown question")
        return self

    @classmethod
    def load(cls, folder: Path) -> "Study":
        """Return the study in a folder. Raise UserError if there is none, or it is damaged."""
        file = folder / PLAN
        if not file.is_file():
            raise UserError(f"{folder}: holds no study; create one with: fsf study new MODEL... -o {folder}")
        try:
            return cls.model_validate_json(file.read_bytes())
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            location = ".".join(map(str, first["loc"]))
            raise UserError(
                f"{file}: {location + ': ' if location else ''}{first['msg']}; create the study again"
            ) from None
        except OSError as error:
            raise UserError(f"{file}: cannot be read: {error.strerror or error}; check its permissions") from error

    def order(self, participant: int) -> list[int]:
        """Return the trial indices in the order for a participant, numbered from 1.

        All trials but the attention checks are shuffled. Each check has a random position in a block of its own.
        """
        rng = np.random.default_rng([self.seed, _TRIALS, participant])
        checks = [number for number, trial in enumerate(self.trials) if trial.is_check]
        others = [number for number, trial in enumerate(self.trials) if not trial.is_check]
        stretches = np.array_split(rng.permutation(others), max(1, len(checks)))
        order: list[int] = []
        for stretch, check in zip(stretches, rng.permutation(checks) if checks else [None], strict=True):
            block = [int(number) for number in stretch]
            if check is not None:
                block.insert(int(rng.integers(len(block) + 1)), int(check))
            order += block
        return order

    def shown(self, trial: int, participant: int) -> list[int]:
        """Return a trial's option indices in the order for a participant, numbered from 1.

        The order is a random permutation, rotated by one for each participant. Among as many consecutive participants
        as there are options, each option is thus once in every position. The next group has another permutation.
        """
        count = len(self.trials[trial].options)
        group, turn = divmod(participant - 1, count)
        start = np.random.default_rng([self.seed, _OPTIONS, trial, group]).permutation(count)
        return [int(option) for option in np.roll(start, turn)]

    def pictures(self) -> set[str]:
        """Return the file names of all images."""
        return {
            name
            for trial in self.trials
            for name in (trial.source, trial.target, *(option.picture for option in trial.options))
        }
