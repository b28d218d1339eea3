"""Stages of work that overlap: decoding, networks and encoding each in a thread of its own."""

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def ahead(items: Iterable[T], depth: int = 2) -> Iterator[T]:
    """The same items, made in a thread that is at most `depth` of them ahead.

    What the thread raises is raised here, in its place. When the consumer stops early, so does the thread.
    """
    made: queue.Queue[tuple[bool, T | BaseException | None]] = queue.Queue(depth)
    stopped = threading.Event()

    def give(entry: tuple[bool, T | BaseException | None]) -> None:
        while not stopped.is_set():
            try:
                return made.put(entry, timeout=0.1)
            except queue.Full:
                continue

    def work() -> None:
        try:
            for item in items:
                give((True, item))
                if stopped.is_set():
                    break
        except BaseException as error:  # it belongs to the consumer
            give((False, error))
        else:
            give((False, None))
        finally:
            if stopped.is_set() and isinstance(items, Iterator) and hasattr(items, "close"):
                items.close()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            is_item, value = made.get()
            if is_item:
                yield value  # type: ignore[misc]  # it is an item
            elif isinstance(value, BaseException):
                raise value
            else:
                return
    finally:
        stopped.set()
        thread.join()
