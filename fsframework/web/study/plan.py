"""What a study is made of, as study.json holds it, and who sees which trial and which picture where.

A study's folder holds study.json, consent.txt, pictures/ and, once it was served, answers.sqlite.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fsframework.core.errors import UserError

PLAN, CONSENT, PICTURES, ANSWERS = "study.json", "consent.txt", "pictures", "answers.sqlite"
MOST = 9  # methods: each has a number key

Picture = Annotated[str, Field(pattern=r"^[0-9a-f]{32}\.png$")]  # a file's name, which says nothing
_TRIALS, _OPTIONS = range(2)  # what a random order is of: streams of their own from one seed


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Question(_Part):
    """What is asked of every trial, and the picture that its results are compared with."""

    id: str = Field(min_length=1)
    text: str = Field(min_length=1)
    beside: Literal["source", "target"] | None


class Option(_Part):
    """A picture to choose: a method's, or in an attention check `source`, `target` or `degraded`."""

    what: str
    picture: Picture


class Trial(_Part):
    """A pair and the pictures to choose from."""

    pair: tuple[str, str]  # names of source and target in the data set
    source: Picture
    target: Picture
    options: list[Option]
    right: dict[str, list[int]]  # of a check, by question: the options that an attentive person may choose

    @property
    def is_check(self) -> bool:
        return bool(self.right)


class Method(_Part):
    """What is compared."""

    name: str
    model: str  # as it was named on the command line
    recipe_sha256: str
    weights_sha256: dict[str, str]  # by file; none where nothing learns
    size: int
    known_people: bool  # it paints only people whom it was trained on


class Study(_Part):
    """A study as it was made. Its questions may be worded anew before the first answer."""

    id: str
    date: str
    command: str
    seed: Annotated[int, Field(ge=0)]
    side: int  # of every picture, in pixels
    methods: list[Method] = Field(min_length=2, max_length=MOST)
    questions: list[Question] = Field(min_length=1)
    trials: list[Trial] = Field(min_length=1)
    evaluation: dict[str, Any]  # of the first method's recipe, whose data and pairs were taken
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
                raise ValueError(f"trial {number} is right in a question that is not asked")
        return self

    @classmethod
    def load(cls, folder: Path) -> "Study":
        """The study in a folder. Raises UserError if there is none, or it is damaged."""
        file = folder / PLAN
        if not file.is_file():
            raise UserError(f"{folder}: holds no study; make one with: fsf study new MODEL... -o {folder}")
        try:
            return cls.model_validate_json(file.read_bytes())
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise UserError(f"{file}: {where + ': ' if where else ''}{first['msg']}; make the study again") from None
        except OSError as error:
            raise UserError(f"{file}: cannot be read: {error.strerror or error}; check its permissions") from error

    def order(self, participant: int) -> list[int]:
        """The trials in the order in which a participant, numbered from 1, sees them.

        All but the attention checks are shuffled; each check stands at a random place in a stretch of its own.
        """
        rng = np.random.default_rng([self.seed, _TRIALS, participant])
        checks = [number for number, trial in enumerate(self.trials) if trial.is_check]
        others = [number for number, trial in enumerate(self.trials) if not trial.is_check]
        stretches = np.array_split(rng.permutation(others), max(1, len(checks)))
        order: list[int] = []
        for stretch, check in zip(stretches, rng.permutation(checks) if checks else [None], strict=True):
            shown = [int(number) for number in stretch]
            if check is not None:
                shown.insert(int(rng.integers(len(shown) + 1)), int(check))
            order += shown
        return order

    def shown(self, trial: int, participant: int) -> list[int]:
        """A trial's options, by place in its list, in the order in which a participant sees them.

        As many participants in a row as there are options see every option at every place once: a random order that
        is turned by one for each of them. The next ones start from another.
        """
        count = len(self.trials[trial].options)
        block, turn = divmod(participant - 1, count)
        start = np.random.default_rng([self.seed, _OPTIONS, trial, block]).permutation(count)
        return [int(option) for option in np.roll(start, turn)]

    def pictures(self) -> set[str]:
        """The names of all pictures."""
        return {
            name
            for trial in self.trials
            for name in (trial.source, trial.target, *(option.picture for option in trial.options))
        }
