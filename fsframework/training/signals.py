"""Handle Ctrl-C and SIGTERM in training: finish the step, save a checkpoint, exit."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn


class Stop:
    """The stop request: the received signal, or None."""

    def __init__(self) -> None:
        self.signal: int | None = None

    @property
    def asked(self) -> bool:
        return self.signal is not None

    def leave(self, message: str) -> NoReturn:
        """Print a message and exit as by the signal: KeyboardInterrupt for SIGINT, status 143 for SIGTERM."""
        print(message, file=sys.stderr, flush=True)
        if self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(143)


@contextmanager
def stop_asked() -> Iterator[Stop]:
    """Record the first Ctrl-C or SIGTERM in the yielded `Stop`; a second one acts at once.

    Outside the main thread, where Python cannot set handlers, signals act as usual.
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
