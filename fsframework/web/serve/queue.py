"""Limits of a request: bytes, pixels, time and a slot in the queue."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fsframework.web.server import refusal, with_headers

Result = TypeVar("Result")
FORM = 1 << 16  # bytes of a form, in addition to its two files
DRAIN_SECONDS, PART_SECONDS = 10.0, 1.0  # for the rest of a refused body, and for each of its parts
RETRY_LATER = {"Retry-After": "5"}  # seconds


@dataclass(frozen=True)
class Limits:
    """The limits above which requests are refused."""

    file_bytes: int = 20_000_000  # of one file
    pixels: int = 25_000_000  # of one image
    seconds: float = 60.0  # to receive a request, and again to wait for and process it
    waiting: int = 16  # requests in addition to the one in progress
    faces: int = 50  # of an image, to be swapped

    @property
    def body_bytes(self) -> int:
        """Return the largest size of a request: two files and the form around them."""
        return 2 * self.file_bytes + FORM

    def too_large(self) -> str:
        """Return the error message for a larger request."""
        return f"A file may have {self.file_bytes:,} bytes, and a request two files; make the image smaller."


class Queue:
    """One thread for the networks, and a limited number of slots.

    A request holds a slot while it is received, waits or is processed.
    """

    def __init__(self, limits: Limits) -> None:
        self._seconds = limits.seconds
        self._free = limits.waiting + 1
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="fsf-serve")

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Hold a slot. Raise HTTPException 503 if none is free."""
        if self._free <= 0:
            raise HTTPException(503, "Too many requests are waiting; try again in some seconds.", RETRY_LATER)
        self._free -= 1
        try:
            yield
        finally:
            self._free += 1

    async def run(self, task: Callable[[], Result]) -> Result:
        """Return the result of a task in the thread, and re-raise its errors.

        Raises
        ------
        HTTPException
            504: the task takes too long.
        """
        future = self._thread.submit(task)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), self._seconds)
        except TimeoutError:
            self._hold_slot(future)
            raise HTTPException(
                504, f"The request took more than {self._seconds:g} seconds and was cancelled.", RETRY_LATER
            ) from None

    def _hold_slot(self, future: "Future[Any]") -> None:
        """Hold a slot until an abandoned task ends, because a thread cannot be stopped."""
        if future.cancel() or future.done():
            return
        self._free -= 1
        loop = asyncio.get_running_loop()
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._release))

    def _release(self) -> None:
        self._free += 1

    def close(self) -> None:
        """Cancel the waiting tasks."""
        self._thread.shutdown(wait=False, cancel_futures=True)


class Bounded:
    """Middleware that counts the bytes of bodies as they arrive, and refuses those above the limit.

    The Content-Length header alone is not trusted. Before a response is sent, the rest of the body is read and
    discarded, because clients that still send do not read. The connection of clients that continue is closed.
    """

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self.app = app
        self.limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"0")
        body = _Body(receive, self.limits, b"transfer-encoding" in headers or length != b"0")
        drains = b"expect" not in headers  # a client that waits for "100 Continue" has not sent its body

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                if drains:
                    await body.drain()
                if not body.ended:
                    message["headers"] = [
                        *message["headers"],
                        (b"connection", b"close"),
                    ]  # otherwise the server would read the rest without limit
            await send(message)

        if not length.isdigit() or int(length) > self.limits.body_bytes:
            await refusal(413, self.limits.too_large())(scope, receive, with_headers(answer))
            return
        await self.app(scope, body.receive, answer)


class _Body:
    """A request's body as it arrives."""

    def __init__(self, receive: Receive, limits: Limits, exists: bool) -> None:
        self._receive = receive
        self._limits = limits
        self._size = 0
        self.ended = not exists

    async def receive(self) -> Message:
        """Return the next message. Raise HTTPException 413 above the limit."""
        message = await self._next()
        if self._size > self._limits.body_bytes:
            raise HTTPException(413, self._limits.too_large())
        return message

    async def drain(self) -> None:
        """Read and discard the rest of the body, up to limits of time and size."""
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                while not self.ended and self._size < 4 * self._limits.body_bytes:
                    await asyncio.wait_for(self._next(), PART_SECONDS)

    async def _next(self) -> Message:
        message = await self._receive()
        self._size += len(message.get("body", b""))
        self.ended = message["type"] != "http.request" or not message.get("more_body", False)
        return message
