"""Overlap stages of work, such as decoding, networks and encoding, in a thread each."""

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def ahead(items: Iterable[T], depth: int = 2) -> Iterator[T]:
    """Yield the items, produced in a thread that is at most `depth` of them ahead.

    The thread's exceptions are raised here, in their place. When the consumer stops early, the thread stops, too.
    """
    results: queue.Queue[tuple[bool, T | BaseException | None]] = queue.Queue(depth)
    stopped = threading.Event()

    def put(entry: tuple[bool, T | BaseException | None]) -> None:
        while not stopped.is_set():
            try:
                return results.put(entry, timeout=0.1)
            except queue.Full:
                continue

    def produce() -> None:
        try:
            for item in items:
                put((True, item))
                if stopped.is_set():
                    break
        except BaseException as error:  # raised in the consumer
            put((False, error))
        else:
            put((False, None))
        finally:
            if stopped.is_set() and isinstance(items, Iterator) and hasattr(items, "close"):
                items.close()

    thread = threading.Thread(target=produce, daemon=True)
    thread.start()
    try:
        while True:
            is_item, value = results.get()
            if is_item:
                yield value  # type: ignore[misc]  # an item
            elif isinstance(value, BaseException):
                raise value
            else:
                return
    finally:
        stopped.set()
        thread.join()
