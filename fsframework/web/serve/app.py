"""The application of `fsf serve`: a page and an HTTP interface for swaps.

It stores nothing and loads no foreign resources. Errors are `{"error": "A sentence."}`. /openapi.json is the schema;
FastAPI's documentation pages are disabled, because they load scripts from other hosts.
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

CONNECTIONS = 512  # concurrent connections
DEFAULT_LIMITS = Limits()
DESCRIPTION = (
    "Swap faces in images. Every result is marked as synthetic: by a signed C2PA manifest, XMP and an invisible "
    "watermark; the marks cannot be disabled. The server stores nothing but a line in its local ledger."
)
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": text}
    for status, text in {
        400: "The form cannot be read.",
        401: "The token is missing or wrong (only if the server was started with one).",
        403: "The Host is not this machine, or the request comes from a page of another site.",
        408: "The request did not arrive in time.",
        413: "A file is too large.",
        422: "An image cannot be read or shows no such face; a file is missing; a field is invalid.",
        503: "Too many requests are waiting; Retry-After holds the seconds until a retry.",
        504: "The request took too long.",
    }.items()
}
PICTURE = {"picture": "JPEG, PNG, WebP, BMP, GIF, TIFF, PPM, JPEG 2000 or AVIF."}
PAIR = {"source": "An image with the source face.", "target": "The image whose faces are replaced."}
ONE = {"image/*": {"schema": {"type": "string", "format": "binary"}}, FORM: {"schema": form_schema(PICTURE)}}
TWO = {FORM: {"schema": form_schema(PAIR, SwapRequest.model_json_schema()["properties"])}}
RESULT = {
    kind: {"schema": {"type": "string", "format": "binary"}} for kind in ("image/png", "image/jpeg", "image/webp")
}


def serve(
    load_face_swapper: Callable[[], FaceSwapper],
    host: str,
    port: int,
    token: str | None,
    echo: Callable[[str], None],
    limits: Limits = DEFAULT_LIMITS,
) -> None:
    """Serve swaps until Ctrl-C or SIGTERM.

    Parameters
    ----------
    load_face_swapper:
        Returns the face swapper; called once the address is bound.
    host, port:
        The address to bind; port 0 selects a free one.
    token:
        The access token of requests. Without one, addresses that other machines reach get a new one.
    echo:
        Prints a line with the page's address.
    limits:
        The limits above which requests are refused.

    Raises
    ------
    UserError
        The address cannot be used, the token is invalid, signing is impossible, or there is no such model.
    """
    with listen(host, port) as listening:
        required_token = token_for(listening.getsockname()[0], token)
        ProvenanceOptions().check()
        queue = Queue(limits)
        try:
            app = build(Work(load_face_swapper(), limits), queue, limits, required_token)
            secret = f"/?token={required_token}" if required_token is not None else ""
            echo(f"serve: {address(_reachable(listening), listening)}{secret} (Ctrl-C ends it)")
            run(app, listening, CONNECTIONS)
        finally:
            queue.close()


def _reachable(listening: socket.socket) -> str:
    """Return the host for the printed address: the bound one, or this machine's name if all are bound."""
    host = str(listening.getsockname()[0])
    return socket.gethostname() if host in ("0.0.0.0", "::") else host


def build(worker: Work, queue: Queue, limits: Limits, token: str | None) -> FastAPI:
    """Return the application: the page at /, and its interface under /api."""
    info = worker.info()
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
        """Return the faces from left to right. The image is the request's body, or a file of its form."""
        async with queue.slot(), received(request, list(PICTURE), limits) as (folder, _):
            return await queue.run(lambda: worker.faces(folder / "picture"))

    @app.post(
        "/api/swap",
        responses={**PROBLEMS, 200: {"description": "The marked image.", "content": RESULT}},
        response_class=Response,
        summary="Swap",
        openapi_extra={"requestBody": _body(TWO)},
    )
    async def swap(request: Request) -> Response:
        """Return the target with the source's face, marked as synthetic; X-Seconds is the duration."""
        async with queue.slot(), received(request, list(PAIR), limits) as (folder, fields):
            options = _swap_request(fields)
            result = await queue.run(lambda: worker.swap(folder, options))
            headers = {
                "Content-Disposition": f'attachment; filename="{result.file.name}"',
                "X-Seconds": f"{result.seconds:.3f}",
            }
            content = await asyncio.to_thread(result.file.read_bytes)
            return Response(content, media_type=f"image/{options.format}", headers=headers)

    @app.post(
        "/api/swap/details",
        responses=PROBLEMS,
        summary="Swap, and return intermediate results",
        openapi_extra={"requestBody": _body(TWO)},
    )
    async def details(request: Request) -> Details:
        """Return the swap in base64, with crops, mask and metrics of each face."""
        async with queue.slot(), received(request, list(PAIR), limits) as (folder, fields):
            options = _swap_request(fields)
            return await queue.run(lambda: worker.details(folder, options))

    @app.post(
        "/api/verify", responses=PROBLEMS, summary="Verify", openapi_extra={"requestBody": _body(ONE)}
    )  # fmt: skip
    async def verify(request: Request) -> Verification:
        """Return the provenance report of an image, like `fsf verify`: verdict, manifest, XMP and watermark."""
        async with queue.slot(), received(request, list(PICTURE), limits) as (folder, _):
            return await queue.run(lambda: worker.verify(folder / "picture"))

    return app


def _body(content: dict[str, Any]) -> dict[str, Any]:
    return {"required": True, "content": content}


def _swap_request(fields: dict[str, str]) -> SwapRequest:
    """Return the swap's validated fields; empty ones take their defaults. Raise UserError if one is invalid."""
    try:
        request = SwapRequest.model_validate({name: value for name, value in fields.items() if value != ""})
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    ProvenanceOptions(consent=request.consent)
    return request


def _add_errors(app: FastAPI) -> None:
    add_errors(app)

    @app.exception_handler(UserError)
    def mistaken(request: Request, error: UserError) -> JSONResponse:
        return refusal(422, f"{error}.")

    @app.exception_handler(Exception)
    def failed(request: Request, error: Exception) -> JSONResponse:
        return refusal(500, "The server failed; its terminal shows the error.")
