"""Shares of a list of files (`--shard I/N`), for as many processes or jobs of an array."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self, TypeVar

from fsframework.core.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True)
class JobShard:
    """One of several equal shares of a list."""

    number: int = 1  # from 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Self:
        """`I/N`, such as 3/8. Raises UserError for anything else."""
        number, slash, count = text.partition("/")
        if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
            raise UserError(f"--shard {text}: is no share; write I/N with I from 1 to N, such as 3/8")
        return cls(int(number), int(count))

    def of(self, items: Sequence[T]) -> Sequence[T]:
        """Every `count`th item, so that long and short ones are spread; nothing is in two shares."""
        return items[self.number - 1 :: self.count]


WHOLE = JobShard()
