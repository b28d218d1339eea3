"""Progress of long work: a bar on a terminal, now and then a line elsewhere, both on standard error."""

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

T = TypeVar("T")
INTERVAL = 10.0  # seconds between lines


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.0f}/s" if task.speed else "")


def tracked(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """The same items; says how far it is, how fast, and how long it will take."""
    console = Console(stderr=True, highlight=False)
    follow = _with_bar if console.is_terminal else _with_lines
    return follow(items, total, what, console)


def _with_bar(items: Iterable[T], total: int, what: str, console: Console) -> Iterator[T]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        yield from progress.track(items, total=total, description=what)


def _with_lines(items: Iterable[T], total: int, what: str, console: Console) -> Iterator[T]:
    start = said = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - said >= INTERVAL:
            said, rate = now, done / (now - start)
            left = (total - done) / rate
            console.print(f"{what}: {done} of {total}, {rate:.0f}/s, {left:.0f} s left", soft_wrap=True, markup=False)
