"""Ctrl-C and SIGTERM: finish the step, save, then leave."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn


class Stop:
    """Whether somebody asked the work to stop."""

    def __init__(self) -> None:
        self.signal: int | None = None

    @property
    def asked(self) -> bool:
        return self.signal is not None

    def leave(self, message: str) -> NoReturn:
        """Say where things stand and leave as the signal would have: KeyboardInterrupt, or exit status 143."""
        print(message, file=sys.stderr, flush=True)
        if self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(143)


@contextmanager
def stop_asked() -> Iterator[Stop]:
    """Note the first Ctrl-C or SIGTERM instead of dying of it; a second one acts at once.

    Outside the main thread, where Python sets no handlers, signals act as usual.
    """
    stop = Stop()
    before: dict[signal.Signals, object] = {}

    def note(number: int, frame: FrameType | None) -> None:
        stop.signal = number
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        before.clear()

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, note)
    except ValueError:  # not the main thread
        pass
    try:
        yield stop
    finally:
        restore()
