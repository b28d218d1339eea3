"""Progress of long work on standard error: a bar in a terminal, now and then a plain line elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

T = TypeVar("T")

QUIET_SECONDS = 10.0  # between plain lines; work that is done sooner prints nothing


class Ticker:
    """Counts work that is done. `advance` is cheap enough to be called for every item."""

    def __init__(self, description: str, total: int, unit: str, done: int, bar: Progress | None) -> None:
        self.description, self.total, self.unit = description, total, unit
        self.done = self.first = done
        self.started = self.printed = time.monotonic()
        self.bar = bar
        self.task = bar.add_task(description, total=total, completed=done, unit=unit, note="") if bar else None

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count so many items more; `note` is shown beside the bar."""
        self.done += count
        if self.bar is not None and self.task is not None:
            self.bar.update(self.task, advance=count, note=note)
        elif time.monotonic() - self.printed >= QUIET_SECONDS:
            self.printed = time.monotonic()
            rate = (self.done - self.first) / (self.printed - self.started)
            left = (self.total - self.done) / rate if rate > 0 else float("inf")
            line = f"{self.description}: {self.done}/{self.total} {self.unit}, {rate:.3g}/s, {left:.0f} s left  {note}"
            print(line.rstrip(), file=sys.stderr, flush=True)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.3g} {task.fields['unit']}/s" if task.speed else "")


@contextmanager
def progress(description: str, total: int, unit: str = "items", done: int = 0, shown: bool = True) -> Iterator[Ticker]:
    """Show how far some work is, with rate and remaining time.

    Parameters
    ----------
    description:
        What is being done, a few words.
    total, done:
        Items in all, and items done before (a resumed run).
    unit:
        What an item is, in the plural.
    shown:
        False where another process shows it.
    """
    console = Console(stderr=True, quiet=not shown)
    if not console.is_terminal:
        ticker = Ticker(description, total, unit, done, None)
        ticker.printed = ticker.printed if shown else float("inf")
        yield ticker
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as bar:
        yield Ticker(description, total, unit, done, bar)


def tracked(items: Iterable[T], description: str, total: int, unit: str = "items") -> Iterator[T]:
    """The same items, with their progress shown; parameters are those of `progress`."""
    with progress(description, total, unit) as ticker:
        for item in items:
            yield item
            ticker.advance()


def in_words(seconds: float) -> str:
    """A duration by its two largest units: 3 h 20 min, 4 min 5 s, 12 s."""
    days, rest = divmod(round(seconds), 86400)
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
    while len(parts) > 1 and parts[0][0] == 0:
        parts.pop(0)
    return " ".join(f"{count} {unit}" for count, unit in parts[:2] if count or len(parts) == 1)
