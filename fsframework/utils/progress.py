"""Show the progress of long work on stderr: a bar in a terminal, occasional plain lines elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

T = TypeVar("T")

QUIET_SECONDS = 10.0  # between plain lines; shorter work prints nothing


class Ticker:
    """Counter of completed items. `advance` is cheap enough for every item."""

    def __init__(self, description: str, total: int, unit: str, done: int, bar: Progress | None) -> None:
        self.description, self.total, self.unit = description, total, unit
        self.done = self.first = done
        self.started = self.printed = time.monotonic()
        self.bar = bar
        self.task = bar.add_task(description, total=total, completed=done, unit=unit, note="") if bar else None

    def advance(self, count: int = 1, note: str = "") -> None:
        """Add `count` completed items; `note` is displayed beside the bar."""
        self.done += count
        if self.bar is not None and self.task is not None:
            self.bar.update(self.task, advance=count, note=note)
        elif time.monotonic() - self.printed >= QUIET_SECONDS:
            self.printed = time.monotonic()
            rate = (self.done - self.first) / (self.printed - self.started)
            remaining = (self.total - self.done) / rate if rate > 0 else float("inf")
            completed = f"{self.done}/{self.total} {self.unit}"
            line = f"{self.description}: {completed}, {rate:.3g}/s, {remaining:.0f} s left  {note}"
            print(line.rstrip(), file=sys.stderr, flush=True)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.3g} {task.fields['unit']}/s" if task.speed else "")


@contextmanager
def progress(description: str, total: int, unit: str = "items", done: int = 0, shown: bool = True) -> Iterator[Ticker]:
    """Display the progress of some work, with rate and remaining time; yield its `Ticker`.

    Parameters
    ----------
    description:
        A short description of the work.
    total, done:
        Items in total, and items completed before (by an interrupted run).
    unit:
        The name of the items, in the plural.
    shown:
        False where another process displays the progress.
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
    """Yield the items and display their progress; parameters are those of `progress`."""
    with progress(description, total, unit) as ticker:
        for item in items:
            yield item
            ticker.advance()


def in_words(seconds: float) -> str:
    """Return a duration in its two largest units: 3 h 20 min, 4 min 5 s, 12 s."""
    days, rest = divmod(round(seconds), 86400)
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
    while len(parts) > 1 and parts[0][0] == 0:
        parts.pop(0)
    return " ".join(f"{count} {unit}" for count, unit in parts[:2] if count or len(parts) == 1)
