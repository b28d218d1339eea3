"""Receive a request's files and fields into a temporary folder under fixed names; names from clients are ignored."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fastapi import HTTPException, Request
from starlette.datastructures import UploadFile

from fsframework.core.errors import UserError
from fsframework.web.serve.queue import Limits

FIELDS = 8  # fields of a form, in addition to its files
FIELD_BYTES = 20_000  # of a field: fits a consent text of one- or two-byte characters
FORM = "multipart/form-data"


@asynccontextmanager
async def received(
    request: Request, files: Sequence[str], limits: Limits
) -> AsyncIterator[tuple[Path, dict[str, str]]]:
    """Yield a temporary folder with a request's files, and the request's fields.

    A single file may also be the whole body.

    Raises
    ------
    HTTPException
        400: the form cannot be read. 408: receiving takes too long. 413: a file is too large. 422: a file is missing,
        empty or unexpected.
    """
    with TemporaryDirectory(prefix="fsf-serve-", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        try:
            async with asyncio.timeout(limits.seconds):
                fields = await _receive(request, files, folder, limits)
        except TimeoutError:
            raise HTTPException(408, f"The request did not arrive within {limits.seconds:g} seconds.") from None
        try:
            yield folder, fields
        except UserError as error:  # hides the temporary folder from clients
            raise UserError(str(error).replace(f"{folder}/", "")) from error


async def _receive(request: Request, files: Sequence[str], folder: Path, limits: Limits) -> dict[str, str]:
    if not request.headers.get("content-type", "").lower().startswith(FORM):
        if len(files) > 1:
            raise HTTPException(422, f"Send a form ({FORM}) with the files {' and '.join(files)}.")
        await _receive_body(request, folder / files[0], limits)
        return {}
    async with request.form(max_files=len(files), max_fields=FIELDS, max_part_size=FIELD_BYTES) as form:
        fields: dict[str, str] = {}
        for name, value in form.multi_items():
            if isinstance(value, str):
                fields[name] = value
            elif name in files:
                _store_upload(value, name, folder / name, limits)
            else:
                raise HTTPException(422, f"Send the files {' and '.join(files)}, and no others.")
    for name in files:
        if not (folder / name).is_file():
            raise HTTPException(422, f"{name}: is missing; send it as a file of the form.")
    return fields


async def _receive_body(request: Request, file: Path, limits: Limits) -> None:
    size = 0
    with file.open("wb") as output:
        async for part in request.stream():
            size += len(part)
            if size > limits.file_bytes:
                raise HTTPException(413, limits.too_large())
            output.write(part)
    if size == 0:
        raise HTTPException(422, f"{file.name}: is empty; send an image.")


def _store_upload(upload: UploadFile, name: str, file: Path, limits: Limits) -> None:
    if not upload.size:
        raise HTTPException(422, f"{name}: is empty; send an image.")
    if upload.size > limits.file_bytes:
        raise HTTPException(413, limits.too_large())
    with file.open("wb") as output:
        shutil.copyfileobj(upload.file, output)


def form_schema(files: dict[str, str], fields: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the OpenAPI schema of a form: files with a description each, and fields."""
    uploads = {name: {"type": "string", "format": "binary", "description": text} for name, text in files.items()}
    return {"type": "object", "required": list(files), "properties": {**uploads, **(fields or {})}}
