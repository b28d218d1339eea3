"""`fsf serve`: swaps in the browser and over HTTP, by one application. Nothing is kept or loaded from elsewhere.

Errors are `{"error": "A sentence."}`. /openapi.json describes everything; pages that show it are left out, as FastAPI's
load their scripts from elsewhere.
"""

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import ValidationError

from fsframework.core.errors import UserError
from fsframework.inference.face_swapper import FaceSwapper
from fsframework.provenance.options import ProvenanceOptions
from fsframework.web.serve.auth import Gate, token_for
from fsframework.web.serve.queue import Bounded, Limits, Queue
from fsframework.web.serve.schemas import Details, FoundFaces, Info, Problem, SwapRequest, Verification
from fsframework.web.serve.swaps import Work
from fsframework.web.serve.uploads import FORM, form_schema, received
from fsframework.web.server import add_errors, add_page, address, listen, refusal, run

CONNECTIONS = 512  # at once
DEFAULT_LIMITS = Limits()
DESCRIPTION = (
    "Swaps faces in pictures. Every result says that it is synthetic: by a signed C2PA manifest, XMP and an invisible "
    "watermark; there is no way to leave them out. Nothing is kept here but a line in the register of this machine."
)
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": text}
    for status, text in {
        400: "The form cannot be read.",
        401: "A token is asked for, and was not given (only where the server was started with one).",
        403: "The Host is not this machine, or a page of another site asks.",
        408: "The request did not arrive in time.",
        413: "A file is too large.",
        422: "A picture cannot be read or shows no such face; a file is missing; a field is wrong.",
        503: "Too many requests wait; Retry-After says when to try again.",
        504: "It took too long.",
    }.items()
}
PICTURE = {"picture": "JPEG, PNG, WebP, BMP, GIF, TIFF, PPM, JPEG 2000 or AVIF."}
PAIR = {"source": "A picture of who is put in.", "target": "The picture that is changed."}
ONE = {"image/*": {"schema": {"type": "string", "format": "binary"}}, FORM: {"schema": form_schema(PICTURE)}}
TWO = {FORM: {"schema": form_schema(PAIR, SwapRequest.model_json_schema()["properties"])}}
MADE = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in ("image/png", "image/jpeg", "image/webp")}


def serve(
    converter: Callable[[], FaceSwapper],
    host: str,
    port: int,
    token: str | None,
    say: Callable[[str], None],
    limits: Limits = DEFAULT_LIMITS,
) -> None:
    """Serve swaps until Ctrl-C or SIGTERM.

    Parameters
    ----------
    converter:
        Loads what swaps; asked once the address is known to be free.
    host, port:
        Where to listen; port 0 is any free one.
    token:
        What requests must carry; without one, addresses that other machines reach get a new one.
    say:
        Takes a line for the terminal: where the page is.
    limits:
        What is refused above.

    Raises
    ------
    UserError
        The address cannot be used, the token is none, nothing can be signed here, or there is no such model.
    """
    with listen(host, port) as listening:
        known = token_for(listening.getsockname()[0], token)
        ProvenanceOptions().check()
        queue = Queue(limits)
        try:
            app = build(Work(converter(), limits), queue, limits, known)
            secret = f"/?token={known}" if known is not None else ""
            say(f"serve: {address(_reachable(listening), listening)}{secret} (Ctrl-C ends it)")
            run(app, listening, CONNECTIONS)
        finally:
            queue.close()


def _reachable(listening: socket.socket) -> str:
    """Under which name a socket is reached: its own number, or this machine's name if it listens at all of them."""
    number = str(listening.getsockname()[0])
    return socket.gethostname() if number in ("0.0.0.0", "::") else number


def build(work: Work, queue: Queue, limits: Limits, token: str | None) -> FastAPI:
    """The application: the page at /, and what it asks for under /api."""
    info = work.info()
    app = FastAPI(
        title="fsf serve", version=info.version, description=DESCRIPTION, docs_url=None, redoc_url=None
    )  # fmt: skip
    app.add_middleware(Gate, token=token)
    app.add_middleware(Bounded, limits=limits)
    add_page(app, Path(__file__).parent)
    _add_errors(app)

    @app.get("/api/info", responses={key: PROBLEMS[key] for key in (401, 403)}, summary="The model and the limits")
    def about() -> Info:
        return info

    @app.post(
        "/api/faces", responses=PROBLEMS, summary="Find faces", openapi_extra={"requestBody": _body(ONE)}
    )  # fmt: skip
    async def faces(request: Request) -> FoundFaces:
        """Faces from left to right, with boxes, five landmarks and scores. One picture: the body, or a form's file."""
        async with queue.place(), received(request, list(PICTURE), limits) as (folder, _):
            return await queue.do(lambda: work.faces(folder / "picture"))

    @app.post(
        "/api/swap",
        responses={**PROBLEMS, 200: {"description": "The marked picture.", "content": MADE}},
        response_class=Response,
        summary="Swap",
        openapi_extra={"requestBody": _body(TWO)},
    )
    async def swap(request: Request) -> Response:
        """The target with the source's face, marked as synthetic; X-Seconds says how long it took."""
        async with queue.place(), received(request, list(PAIR), limits) as (folder, fields):
            wanted = _wanted(fields)
            made = await queue.do(lambda: work.swap(folder, wanted))
            headers = {
                "Content-Disposition": f'attachment; filename="{made.file.name}"',
                "X-Seconds": f"{made.seconds:.3f}",
            }
            content = await asyncio.to_thread(made.file.read_bytes)
            return Response(content, media_type=f"image/{wanted.format}", headers=headers)

    @app.post(
        "/api/swap/details",
        responses=PROBLEMS,
        summary="Swap, and tell what was seen on the way",
        openapi_extra={"requestBody": _body(TWO)},
    )
    async def details(request: Request) -> Details:
        """The same picture in base64, with crops, masks and measures of each face."""
        async with queue.place(), received(request, list(PAIR), limits) as (folder, fields):
            wanted = _wanted(fields)
            return await queue.do(lambda: work.details(folder, wanted))

    @app.post(
        "/api/verify", responses=PROBLEMS, summary="Verify", openapi_extra={"requestBody": _body(ONE)}
    )  # fmt: skip
    async def verify(request: Request) -> Verification:
        """What a picture says of itself, as `fsf verify` does: its manifest, XMP, watermark, whether it was altered."""
        async with queue.place(), received(request, list(PICTURE), limits) as (folder, _):
            return await queue.do(lambda: work.verify(folder / "picture"))

    return app


def _body(content: dict[str, Any]) -> dict[str, Any]:
    return {"required": True, "content": content}


def _wanted(fields: dict[str, str]) -> SwapRequest:
    """The fields of a swap; empty ones are as good as none. Raises UserError."""
    try:
        wanted = SwapRequest.model_validate({name: value for name, value in fields.items() if value != ""})
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    ProvenanceOptions(consent=wanted.consent)
    return wanted


def _add_errors(app: FastAPI) -> None:
    add_errors(app)

    @app.exception_handler(UserError)
    def mistaken(request: Request, error: UserError) -> JSONResponse:
        return refusal(422, f"{error}.")

    @app.exception_handler(Exception)
    def failed(request: Request, error: Exception) -> JSONResponse:
        return refusal(500, "The server failed; its terminal says why.")
