"""Shards of a list of files (`--shard I/N`), one for each process or job of a job array."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self, TypeVar

from fsframework.core.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True)
class JobShard:
    """A shard of a list, of `count` equal ones."""

    number: int = 1  # from 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the shard `I/N`, such as 3/8. Raise UserError for any other text."""
        number, slash, count = text.partition("/")
        if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
            raise UserError(f"--shard {text}: is not a shard; write I/N with I from 1 to N, such as 3/8")
        return cls(int(number), int(count))

    def of(self, items: Sequence[T]) -> Sequence[T]:
        """Return every `count`-th item from `number` on; shards are disjoint."""
        return items[self.number - 1 :: self.count]


WHOLE = JobShard()
