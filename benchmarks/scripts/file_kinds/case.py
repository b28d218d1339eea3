"""Cases, of which a kind of input consists: files, arguments of `fsf` and checks."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from file_kinds.people import Cast

Expected = Literal["result", "refusal", "either"]


@dataclass(frozen=True)
class Outcome:
    """Result of a case by `fsf`, `fsf serve` or the Python interface."""

    status: int  # exit status; of the other interfaces 0, or 1 for a refusal
    text: str  # of both outputs
    out: Path
    marked: bool = False  # whether every pixel carries the watermark, although the case asks for none

    @property
    def levels(self) -> float:
        """Return the mean difference, in grey levels, that the watermark makes to pixels."""
        return 2.0 if self.marked else 0.0


Check = Callable[[Outcome], list[str]]  # returns the problems of a result, none if it is right


@dataclass(frozen=True)
class Case:
    """An input.

    Parameters
    ----------
    name:
        A short description.
    arguments:
        The arguments of `fsf`. Of a swap the last three without options are source, target and result.
    check:
        Returns the problems of a result. It is called where `fsf` succeeds.
    out:
        The result.
    expected:
        Whether a result is right, a refusal with words, or either.
    portable:
        Whether `fsf serve` and the Python interface are tried, too: a swap of one picture into another.
    """

    name: str
    arguments: Sequence[str | Path]
    check: Check
    out: Path
    expected: Expected = "result"
    portable: bool = False
    face: str = field(default="largest")


class Bench:
    """Means by which cases are made: a folder, the people of the pictures, and files of the machine.

    Parameters
    ----------
    folder:
        Where files are written.
    cast:
        The people.
    profiles:
        Colour profiles (ICC) of the machine, by name in lower case.
    """

    def __init__(self, folder: Path, cast: Cast, profiles: dict[str, Path]) -> None:
        self.folder, self.cast, self.profiles = folder, cast, profiles
        self._count = 0

    def place(self) -> Path:
        """Return a new folder."""
        self._count += 1
        place = self.folder / f"{self._count:03}"
        place.mkdir(parents=True)
        return place

    def swap(
        self,
        name: str,
        target: Path,
        check: Check,
        suffix: str | None = None,
        options: Sequence[str | Path] = (),
        expected: Expected = "result",
        portable: bool = False,
        face: str = "largest",
    ) -> Case:
        """Return the case of one target, swapped with the source of the cast; `suffix` is that of the result."""
        out = target.with_name(f"{target.stem}_out{suffix or target.suffix}")
        faces = [] if face == "largest" else ["--face", face]
        arguments = ["swap", *faces, *options, self.cast.source_file, target, out]
        return Case(name, arguments, check, out, expected, portable, face)

    def mapped(self, name: str, references: Sequence[Path], target: Path, check: Check, expected: Expected) -> Case:
        """Return the case of a target in which the people of some pictures are replaced by the source of the cast."""
        out = target.with_name(f"{target.stem}_out{target.suffix}")
        pairs = [part for file in references for part in ("--map", f"{file}={self.cast.source_file}")]
        return Case(name, ["swap", *pairs, target, out], check, out, expected)


Maker = Callable[[Bench], Iterator[Case]]


def none_of(outcome: Outcome) -> list[str]:
    """Return no problems: the check of cases that only need a result."""
    return []


def said(outcome: Outcome, *words: str) -> list[str]:
    """Return a problem if none of some words is in what was printed."""
    found = any(word in outcome.text for word in words)
    return [] if found else [f"nothing is said of: {' / '.join(words)}"]
