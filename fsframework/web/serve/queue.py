"""What a request may cost: bytes, pixels, time and a place in the queue."""

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
FORM = 1 << 16  # bytes of a form, besides its two files
LINGER, QUIET = 10.0, 1.0  # seconds for the rest of a body that is refused, and for its next part
AFTER = {"Retry-After": "5"}  # seconds


@dataclass(frozen=True)
class Limits:
    """What is refused above."""

    file_bytes: int = 20_000_000  # of one file
    pixels: int = 25_000_000  # of one picture
    seconds: float = 60.0  # to receive a request, and again to wait for its turn and be worked on
    waiting: int = 16  # requests besides the one that is worked on
    faces: int = 50  # of a picture, to be swapped

    @property
    def body_bytes(self) -> int:
        """Of a request: two files and what stands around them."""
        return 2 * self.file_bytes + FORM

    def too_large(self) -> str:
        """What those are told who send more."""
        return f"A file may have {self.file_bytes:,} bytes, and a request two files; make the picture smaller."


class Queue:
    """One thread for the networks. Whoever is received, waits or is worked on has a place; there are few of them."""

    def __init__(self, limits: Limits) -> None:
        self._seconds = limits.seconds
        self._free = limits.waiting + 1
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="fsf-serve")

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Hold a place. Raises HTTPException 503 if there is none."""
        if self._free <= 0:
            raise HTTPException(503, "Too many requests wait already; try again in some seconds.", AFTER)
        self._free -= 1
        try:
            yield
        finally:
            self._free += 1

    async def do(self, work: Callable[[], Result]) -> Result:
        """Let the thread do something. Raises HTTPException 504 if that takes too long, and what `work` raises."""
        future = self._thread.submit(work)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), self._seconds)
        except TimeoutError:
            self._keep_place_of(future)
            raise HTTPException(504, f"It took more than {self._seconds:g} seconds and was given up.", AFTER) from None

    def _keep_place_of(self, future: "Future[Any]") -> None:
        """A thread cannot be stopped: what nobody waits for any longer takes a place until it is done."""
        if future.cancel() or future.done():
            return
        self._free -= 1
        loop = asyncio.get_running_loop()
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._give_back))

    def _give_back(self) -> None:
        self._free += 1

    def close(self) -> None:
        """Forget whoever waits."""
        self._thread.shutdown(wait=False, cancel_futures=True)


class Bounded:
    """Counts the bytes of bodies while they come, and refuses those that are too large, whatever they said before.

    Before an answer goes out, the rest of the body is read and thrown away, as clients that still send do not listen.
    Those that go on sending are cut off.
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
        patient = b"expect" not in headers  # who asks first whether to send need not be heard out

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                if patient:
                    await body.drain()
                if not body.ended:
                    message["headers"] = [*message["headers"], (b"connection", b"close")]  # else it is read for ever
            await send(message)

        if not length.isdigit() or int(length) > self.limits.body_bytes:
            await refusal(413, self.limits.too_large())(scope, receive, with_headers(answer))
            return
        await self.app(scope, body.receive, answer)


class _Body:
    """A request's body while it comes."""

    def __init__(self, receive: Receive, limits: Limits, exists: bool) -> None:
        self._receive = receive
        self._limits = limits
        self._size = 0
        self.ended = not exists

    async def receive(self) -> Message:
        """The next part. Raises HTTPException 413 beyond the limit."""
        message = await self._next()
        if self._size > self._limits.body_bytes:
            raise HTTPException(413, self._limits.too_large())
        return message

    async def drain(self) -> None:
        """Throw the rest away, within reason."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER):
                while not self.ended and self._size < 4 * self._limits.body_bytes:
                    await asyncio.wait_for(self._next(), QUIET)

    async def _next(self) -> Message:
        message = await self._receive()
        self._size += len(message.get("body", b""))
        self.ended = message["type"] != "http.request" or not message.get("more_body", False)
        return message
