"""The common server of the pages: socket, security headers, errors as sentences, and static files."""

import socket
from collections.abc import Mapping
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from starlette.exceptions import HTTPException as StarletteError
from starlette.types import Message, Send

from fsframework.core.errors import UserError

GRACE = 5  # seconds for responses in progress when the server stops
HERE = Path(__file__).parent
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
SENTENCES = {
    400: "The body cannot be read; send JSON.",
    404: "There is no such page.",
    405: "This address does not accept this method.",
}


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 selects a free one. Raise UserError if the address cannot be bound."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{host}:{port}: cannot be used: {reason}; choose another --host or --port") from error


def address(host: str, listening: socket.socket) -> str:
    """Return the URL of a socket under a host's name or IP address: `http://127.0.0.1:8000`."""
    return f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}"


def run(app: FastAPI, listening: socket.socket, connections: int | None = None) -> None:
    """Serve an application until Ctrl-C or SIGTERM, then send the responses in progress and stop.

    uvicorn answers 503 above `connections` concurrent connections.
    """
    settings = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=GRACE,
        limit_concurrency=connections,
    )
    uvicorn.Server(settings).run(sockets=[listening])


def with_headers(send: Send) -> Send:
    """Return a `send` that adds HEADERS to every response, and `no-store` unless it sets Cache-Control."""

    async def guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            names = {name.lower() for name, _ in message["headers"]}
            added = HEADERS if b"cache-control" in names else HEADERS | {"Cache-Control": "no-store"}
            message["headers"] = [
                *message["headers"], *((key.lower().encode(), value.encode()) for key, value in added.items())
            ]  # fmt: skip
        await send(message)

    return guarded


def refusal(status: int, sentence: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Return an error response: a status and `{"error": "A sentence."}`."""
    return JSONResponse({"error": sentence}, status, headers)


def add_errors(app: FastAPI) -> None:
    """Convert errors of FastAPI and Starlette to refusals."""

    @app.exception_handler(StarletteError)
    def refused(request: Request, error: StarletteError) -> JSONResponse:
        is_sentence = error.detail.endswith(".")
        sentence = error.detail if is_sentence else SENTENCES.get(error.status_code, "The request is refused.")
        return refusal(error.status_code, sentence, error.headers)

    @app.exception_handler(RequestValidationError)
    def wrong(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return refusal(422, f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}.")


def add_page(app: FastAPI, folder: Path) -> None:
    """Serve a folder's page.html at /, with its page.css and page.js, and the common base.css."""

    @app.get("/", include_in_schema=False)
    def page() -> FileResponse:
        return FileResponse(folder / "page.html")

    @app.get("/base.css", include_in_schema=False)
    def base() -> FileResponse:
        return FileResponse(HERE / "base.css")

    @app.get("/page.css", include_in_schema=False)
    def style() -> FileResponse:
        return FileResponse(folder / "page.css")

    @app.get("/page.js", include_in_schema=False)
    def script() -> FileResponse:
        return FileResponse(folder / "page.js", media_type="text/javascript")
